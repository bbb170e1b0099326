"""Fills the Markdown templates of the reports, and turns their Markdown into HTML.

Whatever a template prints is escaped, so text out of a file cannot become markup; ``| safe`` marks what is Markdown
already. The HTML needs no other file and no script: its content security policy lets nothing load.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from emo_hf.dashboards import colours
from emo_hf.lab.analysis.results import Stat
from emo_hf.lab.analysis.verdicts import Estimate

TEMPLATES = Path(__file__).parent / "templates"
NONE = "-"
_MARKS = re.compile(r"([\\`*<|~&$]|\](?=[(\[:])|(?<!\w)_|_(?!\w))")  # a _ within a word is no mark
_STARTS = re.compile(r"^(\d*)([.)#>+=-])(?=[\s#>=-]|$)")  # of a heading, a list, a quotation or a line


def environment(escape: Callable[[str], str], *folders: Path) -> Environment:
    """Returns the environment of the templates in `folders` and in this package.

    Args:
        escape: from text to Markdown that shows it; applied to whatever a template prints without ``| safe``.
        folders: where else to look for templates.
    """

    def printed(value: Any) -> str:
        return value if isinstance(value, Markup) else escape(str(value))

    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=False,  # Markdown, not HTML
        finalize=printed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {function.__name__: function for function in (count, interval, line, listed, number, stat, times)}
    return made


def plain(text: str) -> str:
    """Returns `text` as one line of Markdown that shows it as it is, within a line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def line(text: str) -> Markup:
    """Returns `text` as one line of Markdown that shows it as it is, also at the start of a line."""
    return Markup(_STARTS.sub(r"\1\\\2", plain(text)))


def number(value: float | None, form: str = ".4g") -> str:
    """Returns a number, or what stands for none."""
    return NONE if value is None else f"{value:{form}}"


def interval(estimate: Estimate, form: str = ".4g") -> str:
    """Returns the interval of an estimate in brackets."""
    return NONE if estimate.low is None else f"[{estimate.low:{form}}, {estimate.high:{form}}]"


def stat(value: Stat | None, form: str = ".4g", form_of_sd: str = ".2g") -> str:
    """Returns mean ± standard deviation."""
    if value is None:
        return NONE
    return f"missing or not finite in {value.missing}" if value.mean is None else value.text(form, form_of_sd)


def count(n: float, noun: str) -> str:
    """Returns "1 step", "2 steps"."""
    return f"{n:,g} {noun}" + ("" if n == 1 else "s")


def listed(names: Iterable[str], most: int = 50) -> str:
    """Returns names with commas between them, the first of them if they are many."""
    cut = [f"{name:.60}" for name in names]
    return ", ".join(cut[:most]) + (f" and {len(cut) - most} more" if len(cut) > most else "")


def times(n: int) -> str:
    """Returns "once", "2 times"."""
    return "once" if n == 1 else f"{n} times"


def html(title: str, markdown: str, kind: str, pictures: Iterable[Path]) -> str:
    """Returns one HTML file.

    Args:
        title: of the page, as plain text.
        markdown: its content; HTML in it is shown, not obeyed.
        kind: "good", "bad" or "open": the colour of the verdict.
        pictures: PNG files that the Markdown shows by their names; they become part of the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "reference"])
    contents = {file.name: base64.b64encode(file.read_bytes()).decode() for file in pictures}
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.attrGet("style") == "text-align:right":  # the policy allows no style but the page's own
            token.attrs = {"class": "number"}
        for child in token.children or []:
            if child.type == "image":
                child.attrs["src"] = f"data:image/png;base64,{contents[unquote(str(child.attrs['src']))]}"
    dashboards = resources.files("emo_hf.dashboards.report").joinpath("page.css").read_text(encoding="utf-8")
    style = dashboards + colours.style() + TEMPLATES.with_name("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    body = parser.renderer.render(tokens, parser.options, {})
    page = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("page.html.jinja")
    return page.render(title=title, kind=kind, style=Markup(style), digest=Markup(digest), body=Markup(body)) + "\n"
