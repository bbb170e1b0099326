"""A text of few kinds of blocks, written as Markdown and as one HTML file that needs nothing else.

All words are plain text: what looks like markup in them is shown, not obeyed. The HTML takes its looks from the report
of the dashboards, needs no script, and its content security policy lets nothing load.
"""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

POLICY = "default-src 'none'; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'"
_MARKS = re.compile(r"([\\`*<|~&$]|\](?=[(\[:])|(?<!\w)_|_(?!\w))")
_STARTS = re.compile(r"^(\d*)([.)#>+=-])(?=[\s#>=-]|$)")  # of a heading, a list, a quotation or a line


@dataclass(frozen=True, slots=True)
class Heading:
    """A title within the text."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """`kind`: "good", "bad", "open" or "alarm" stand out."""

    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list without numbers."""

    items: list[str]


@dataclass(frozen=True, slots=True)
class Code:
    """A command."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """`words`: the columns that hold text, which may be broken into lines. Names in the first may not."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    words: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Pictures:
    """PNG files beside the text."""

    files: list[Path]


Block = Heading | Paragraph | Bullets | Code | Table | Pictures


def markdown(title: str, blocks: list[Block]) -> str:
    """Returns the text as GitHub's Markdown."""
    return "\n\n".join([f"# {plain(title)}", *map(_markdown, blocks)]) + "\n"


def html(title: str, blocks: list[Block]) -> str:
    """Returns the text as one HTML file with its pictures in it."""
    style = resources.files("emo_hf.dashboards.report").joinpath("page.css").read_text(encoding="utf-8")
    style += resources.files("emo_hf.lab.report").joinpath("blocks.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY.format(style=f"sha256-{digest}")}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body class="text">
<h1>{escape(title)}</h1>
{chr(10).join(map(_html, blocks))}
</body>
</html>
"""


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {plain(text)}"
        case Paragraph(text, kind):
            return f"**{plain(text)}**" if kind else _line(text)
        case Bullets(items):
            return "\n".join(f"* {_line(item)}" for item in items)
        case Code(text):
            return "\n".join(f"    {line}" for line in text.splitlines())
        case Pictures(files):
            return "\n\n".join(f"![{plain(_named(file))}]({file.name.replace(' ', '%20')})" for file in files)
    marks = ["---" if place == 0 or place in block.words else "---:" for place in range(len(block.head))]
    lines = [f"| {' | '.join(map(plain, row))} |" for row in (block.head, *block.rows)]
    return "\n".join([f"{_line(block.caption)}:\n", lines[0], f"|{'|'.join(marks)}|", *lines[1:]])


def _line(text: str) -> str:
    """Returns one line that Markdown shows as it is, wherever it stands."""
    return _STARTS.sub(r"\1\\\2", plain(text))


def plain(text: str) -> str:
    """Returns the same for the middle of a line. A `_` within a word is no mark."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Pictures(files):
            return "\n".join(map(_picture, files))
    return _table(block)


def _table(table: Table) -> str:
    kinds = [' class="word"' if place in table.words else "" for place in range(len(table.head))]
    head = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(table.head, kinds, strict=True))
    body = ""
    for first, *cells in table.rows:
        rest = (f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells, kinds[1:], strict=True))
        body += f'<tr><th scope="row"{kinds[0]}>{escape(first)}</th>{"".join(rest)}</tr>\n'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _picture(file: Path) -> str:
    content = base64.b64encode(file.read_bytes()).decode()
    name = escape(_named(file))
    return f'<figure><img src="data:image/png;base64,{content}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _named(file: Path) -> str:
    return file.stem.replace("-", " ").replace("_", " ")
