"""Hooks of MkDocs: the site is the repository's own Markdown, wherever it lies.

A file of the repository has one place on the site (`place`): those of docs/ at the top, the others at their own path.
Every link is read as one between files of the repository, as a reader of the repository would follow it, and leads

    to a file of the site         to its page
    to another file, `repo_url`   to that file in the repository
    to another file, no address   nowhere: the path of the file is shown as code

The quickstart is a notebook: its cells, and the outputs that it was committed with, become a page.
"""

import base64
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = (  # what the site shows besides docs/
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "recipes/**/*.md",
    "recipes/**/*.png",
    "model_cards/*.md",
    "model_cards/*.png",
    "benchmarks/results/*.png",
)
NOTEBOOK = "notebooks/quickstart.ipynb"
MOVED = {"README.md": "index.md", "docs/README.md": "contents.md", NOTEBOOK: "quickstart-in-jupyter.md"}
CODE_OR_LINK = re.compile(
    r"^ *```.*?^ *```|`[^`\n]+`"  # code, as it is
    r"|(?P<image>!?)\[(?P<text>(?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*)\]\((?P<target>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)


def place(path: str) -> str:
    """Returns where a file of the repository lies on the site."""
    return MOVED.get(path, path.removeprefix("docs/"))


def with_links(markdown: str, page: str, shown: Mapping[str, str], repo_url: str = "") -> str:
    """Returns the text of a page with its links as the site needs them.

    Args:
        markdown: the text.
        page: the path of its file in the repository.
        shown: path in the repository -> path on the site, of every file that the site has.
        repo_url: the address of the repository, or "" if it has none.
    """

    def link(match: re.Match) -> str:
        target = match["target"]
        if target is None or target.startswith("#") or re.match(r"[a-z]+:", target):
            return match[0]
        file, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), file))
        text = match["text"]
        if path in shown:
            there = posixpath.relpath(shown[path], posixpath.dirname(shown[page]) or ".")
        elif not (ROOT / path).exists():
            return match[0]  # for MkDocs to complain of
        elif repo_url:
            there = f"{repo_url.rstrip('/')}/blob/main/{path}"
        else:
            is_its_name = posixpath.basename(text.strip("`").rstrip("/")) == posixpath.basename(path)
            return f"`{path}`" if is_its_name else f"{text} (`{path}`)"
        return f"{match['image']}[{with_links(text, page, shown, repo_url)}]({there}{hash_}{anchor})"

    return CODE_OR_LINK.sub(link, markdown)


def notebook_page(notebook: Mapping[str, Any], folder: str) -> tuple[str, dict[str, bytes]]:
    """Returns a notebook as Markdown, and its pictures by the paths in `folder` that the text shows."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        texts = [_text(output) for output in cell.get("outputs", ())]
        if any(texts):
            parts.append("``` { .text .output }\n" + "\n".join(filter(None, texts)) + "\n```")
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                name = f"{folder}/{cell['id']}.png"
                pictures[name] = base64.b64decode(picture)
                parts.append(f"![Output of the code above]({name})")
    return "\n\n".join([*parts, ""]), pictures


def _text(output: Mapping[str, Any]) -> str:
    """Returns what an output says in words, if it is not a picture."""
    data = output.get("data", {})
    return "" if "image/png" in data else "".join(data.get("text/plain", output.get("text", ""))).strip("\n")


_shown: dict[str, str] = {}  # of the site that is being built: path in the repository -> path on the site


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie outside docs/ and the quickstart, and moves the index of docs/ aside."""
    from mkdocs.structure.files import File

    index = files.get_file_from_path("README.md")
    files.remove(index)
    files.append(File.generated(config, MOVED["docs/README.md"], abs_src_path=index.abs_src_path))
    outside = sorted(path.relative_to(ROOT).as_posix() for pattern in OUTSIDE for path in ROOT.glob(pattern))
    for path in outside:
        files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    text, pictures = notebook_page(json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8")), "figures")
    files.append(File.generated(config, MOVED[NOTEBOOK], content=text))
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    inside = (path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*") if path.is_file())
    _shown.clear()
    _shown.update({path: place(path) for path in (*inside, *outside, NOTEBOOK)})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrites the links of every page, before MkDocs checks them."""
    path = next(path for path, uri in _shown.items() if uri == page.file.src_uri)
    return with_links(markdown, path, _shown, config.repo_url or "")


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Takes the backslash from a bar in the code of a table, where Python-Markdown leaves it."""
    return re.sub(r"<code>[^<]*</code>", lambda code: code[0].replace("\\|", "|"), html)
