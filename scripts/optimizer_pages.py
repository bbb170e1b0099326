"""Writes a page for each family of optimizers, and their index, into docs/optimizers.

    python -m scripts.optimizer_pages

A test compares the generated pages with those on record.
"""

from pathlib import Path

from emo_hf import registry
from emo_hf.lab.report import formulas, optimizer_page
from emo_hf.spec import OptimizerSpec

FOLDER = Path("docs/optimizers")


def page(name: str) -> str:
    """Returns the page of a family, its newest version first."""
    specs = [spec for spec in reversed(registry.specs()) if spec.name == name]
    cls = registry.optimizer_class(name)
    intro = [
        f"# {cls.__name__}",
        "",
        str(cls.__doc__).splitlines()[0],
        "",
        f'`TrainingArguments(optim="{name}")` is version {specs[0].version};'
        f" `{cls.__name__}(model.parameters())` in a loop of your own. Terms: [how the loss becomes a"
        f" step](../how-the-loss-becomes-a-step.md). {_further(specs[0])}",
    ]
    return "\n".join([*intro, *(f"\n{optimizer_page.section(spec)}" for spec in specs), ""])


def _further(spec: OptimizerSpec) -> str:
    if spec.is_ours:
        return "How it works, and where it fails: [EmoFree](../emofree.md)."
    return "The facts behind the quirks: [quirks](../quirks.md)."


def index() -> str:
    """Returns the list of all specs."""
    lines = [
        "# The optimizers",
        "",
        f"All {len(registry.specs())} specs of the registry; `emo-hf ls` lists them, `emo-hf show NAME` prints one. A"
        " name without a version is the newest. State: bytes per byte of a 768 x 768 matrix, without shadow.",
        "",
        "| optimizer | update | learning rate | state | source |",
        "|---|---|---|---|---|",
    ]
    for spec in registry.specs():
        link = f"[{spec.key}]({spec.name}.md#{spec.key.replace('.', '')})"
        update = formulas.formulas_of(spec)["update"].formula.partition(":")[0]
        kind = "multiplier" if spec.lr_is_multiplier else "base rate"
        lines.append(
            f"| {link} | {update} | {kind}, {spec.options['lr']:g} | {spec.state_ratio:.2g} | {spec.source} |"
        )
    return "\n".join([*lines, ""])


def pages() -> dict[str, str]:
    """Returns every generated file by its name."""
    return {"README.md": index(), **{f"{name}.md": page(name) for name in registry.families()}}


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
