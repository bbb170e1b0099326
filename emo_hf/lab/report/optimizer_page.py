"""One optimizer in Markdown: what the registry and the formulas say of it."""

from emo_hf.lab.report import formulas
from emo_hf.spec import OptimizerSpec


def facts(spec: OptimizerSpec) -> dict[str, str]:
    """Returns everything the registry knows about a spec but its quirks, as Markdown by title."""
    found = {title: law.formula for title, law in formulas.formulas_of(spec).items()}
    found["learning rate"] = f"{spec.recommended_lr} (default {spec.options['lr']:g})"
    found["options"] = ", ".join(f"`{name}={value!r}`" for name, value in spec.options.items())
    if spec.dead:
        found["without effect"] = ", ".join(f"`{name}`" for name in spec.dead) + ": passing one is an error"
    found["state"] = f"{spec.state_ratio:.3g} times the bytes of a 768 x 768 matrix, without shadow"
    found["upstream's names"] = "; ".join(law.upstream for law in formulas.formulas_of(spec).values() if law.upstream)
    found["source"] = f"{spec.source}, `{spec.name}.py`"
    return found


def section(spec: OptimizerSpec) -> str:
    """Returns one version as Markdown."""
    lines = [f"## {spec.key}", "", "| | |", "|---|---|"]
    lines += [f"| {title} | {_cell(text)} |" for title, text in facts(spec).items()]
    lines += ["", "Quirks:", "", *(f"* {quirk}" for quirk in spec.quirks)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A bar would end the cell of a Markdown table."""
    return text.replace("|", "\\|")
