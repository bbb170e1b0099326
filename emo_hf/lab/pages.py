"""The documentation page of every optimizer, from its rows of the catalog and the words of `emo_hf.lab.laws`.

    python -m emo_hf.lab.pages

writes the pages and their index anew, below the current folder; a test compares them with what is there.
"""

from pathlib import Path

from emo_hf import catalog
from emo_hf.lab import laws
from emo_hf.row import Row

FOLDER = Path("docs/optimizers")


def facts(row: Row) -> dict[str, str]:
    """Returns everything the catalog knows about a row but its quirks, as Markdown by title."""
    found = {title: law.formula for title, law in laws.of(row).items()}
    found["learning rate"] = f"{row.recommended_lr} (default {row.options['lr']:g})"
    found["options"] = ", ".join(f"`{name}={value!r}`" for name, value in row.options.items())
    if row.dead:
        found["without effect"] = ", ".join(f"`{name}`" for name in row.dead) + ": passing one is an error"
    found["state"] = f"{row.state_ratio:.3g} times the bytes of a 768 x 768 matrix, without shadow"
    found["upstream's names"] = "; ".join(law.upstream for law in laws.of(row).values() if law.upstream)
    found["source"] = f"{row.source}, `{row.name}.py`"
    return found


def section(row: Row) -> str:
    """Returns one version as Markdown."""
    lines = [f"## {row.key}", "", "| | |", "|---|---|"]
    lines += [f"| {title} | {_cell(text)} |" for title, text in facts(row).items()]
    lines += ["", "Quirks:", "", *(f"* {quirk}" for quirk in row.quirks)]
    return "\n".join(lines)


def page(name: str) -> str:
    """Returns the page of a family, its newest version first."""
    rows = [row for row in reversed(catalog.rows()) if row.name == name]
    cls = catalog.optimizer_class(name)
    intro = [
        f"# {cls.__name__}",
        "",
        cls.__doc__.splitlines()[0],
        "",
        f'`TrainingArguments(optim="{name}")` is version {rows[0].version};'
        f" `{cls.__name__}(model.parameters())` in a loop of your own. Terms: [how the loss becomes a"
        " step](../how-the-loss-becomes-a-step.md). The facts behind the quirks: [quirks](../quirks.md).",
    ]
    return "\n".join([*intro, *(f"\n{section(row)}" for row in rows), ""])


def index() -> str:
    """Returns the list of all rows."""
    lines = [
        "# The optimizers",
        "",
        f"All {len(catalog.rows())} rows of the catalog; `emo-hf ls` lists them, `emo-hf show NAME` prints one. A name"
        " without a version is the newest. State: bytes per byte of a 768 x 768 matrix, without shadow.",
        "",
        "| optimizer | update | learning rate | state | source |",
        "|---|---|---|---|---|",
    ]
    for row in catalog.rows():
        link = f"[{row.key}]({row.name}.md#{row.key.replace('.', '')})"
        update = laws.of(row)["update"].formula.partition(":")[0]
        kind = "multiplier" if row.lr_is_multiplier else "base rate"
        lines.append(f"| {link} | {update} | {kind}, {row.options['lr']:g} | {row.state_ratio:.2g} | {row.source} |")
    return "\n".join([*lines, ""])


def pages() -> dict[str, str]:
    """Returns every generated file by its name."""
    return {"README.md": index(), **{f"{name}.md": page(name) for name in catalog.families()}}


def _cell(text: str) -> str:
    """A bar would end the cell of a Markdown table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
