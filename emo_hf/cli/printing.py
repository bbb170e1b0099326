"""What the commands print on: nothing that comes out of a file reaches the terminal as a command to it.

A recipe, a record or a log may hold escape sequences, which move the cursor, paint or set the window's title, and
marks of direction, which show text in another order than it has. `SafeConsole` shows a "?" for each of them.
"""

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

UNSAFE = re.compile(  # C0 and C1 but for tab and newline; marks of direction; tags, which are not seen at all
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)


class SafeConsole(Console):
    """A console that prints text as text; what rich itself says to the terminal stays."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not UNSAFE.search(segment.text):
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


def plain(text: str) -> str:
    """Returns `text` without what a terminal could obey."""
    return UNSAFE.sub("?", text)


def print_plain(console: Console, text: str, end: str = "\n") -> None:
    """Prints `text` as it is, without markup or line breaks, so that paths can be copied."""
    console.print(text, end=end, soft_wrap=True, markup=False, highlight=False)
