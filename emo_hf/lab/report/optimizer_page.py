"""One optimizer in Markdown, from the registry and the formulas."""

from emo_hf.lab.report import formulas
from emo_hf.spec import OptimizerSpec


def facts(spec: OptimizerSpec) -> dict[str, str]:
    """Returns what is known about a spec, except its quirks, as Markdown by title."""
    own = formulas.formulas_of(spec)
    rows = {title: formula.formula for title, formula in own.items()}
    under_trainer = f"; under Trainer {spec.trainer_lr:g}" if spec.trainer_lr else ""
    rows["learning rate"] = f"{spec.recommended_lr} (default {spec.options['lr']:g}{under_trainer})"
    rows["options"] = ", ".join(f"`{name}={value!r}`" for name, value in spec.options.items())
    if spec.dead:
        rows["without effect"] = (
            ", ".join(f"`{name}`" for name in spec.dead)
            + ": ignored with a warning; an error in a recipe or in `optim_args`"
        )
    rows["state"] = f"{spec.state_ratio:.3g} times the bytes of a 768 x 768 matrix, without shadow"
    if names := [formula.upstream for formula in own.values() if formula.upstream and not spec.mechanism.measures]:
        rows["upstream's names"] = "; ".join(names)
    rows["source"] = "emo_hf: ours, not of the authors" if spec.is_ours else f"{spec.source}, `{spec.name}.py`"
    return rows


def section(spec: OptimizerSpec) -> str:
    """Returns one version as Markdown."""
    lines = [f"## {spec.key}", "", "| | |", "|---|---|"]
    for title, text in facts(spec).items():
        escaped = text.replace("|", "\\|")  # a bar would end the cell
        lines.append(f"| {title} | {escaped} |")
    lines += ["", "Quirks:", "", *(f"* {quirk}" for quirk in spec.quirks)]
    return "\n".join(lines)
