"""What scripts write into a page: what stands between two marks of Markdown."""

import re


def between(name: str) -> re.Pattern[str]:
    """Returns the pattern of what ``<!-- NAME -->`` or ``<!-- NAME: WHERE -->`` and ``<!-- end -->`` enclose.

    Its groups are the first mark, WHERE, and the last mark, with their empty lines.
    """
    return re.compile(rf"(<!-- {name}(?:: (\S+))? -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
