"""What the model card of an arm says: the runs as `emo_hf.lab.report.card_data` found them, as Markdown.

No number in it is from anywhere else. What somebody wrote into a recipe is shown as plain text.
"""

import re
from typing import Any

from emo_hf import registry
from emo_hf.hf.card import plain, section, table
from emo_hf.hf.confidential import places
from emo_hf.lab.analysis.results import Stat
from emo_hf.lab.recipe.baselines import ALIASES
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.report import formulas
from emo_hf.lab.report.card_data import ArmData

COLUMNS = {  # of the table of results, as far as the summaries have them
    "accuracy": ("accuracy", ".3f"),
    "perplexity": ("perplexity", ".2f"),
    "eval_loss": ("evaluation loss", ".3f"),
    "train_loss": ("training loss (mean)", ".3f"),
    "step_size_median": ("median step size", ".1e"),
    "seconds": ("seconds", ".0f"),
}
HUB_NAME = re.compile(r"(?!.*\.\.)[\w][\w.-]*(/[\w][\w.-]*)?")


def body(data: ArmData, picture: str | None) -> str:
    """Returns the Markdown of the card; `picture` is the name of a file beside it."""
    run_config = data.run_config
    parts = [
        f"# {run_config.name} of {run_config.recipe} ({run_config.size})",
        plain(data.comparison.recipe.description),
        f"{_model(run_config)} {_parameters(data)} {_data(data)}",
        f"    {_command(data)}",
        "## Result",
        _results(data),
        _machines(data),
        *([f"![Loss, step size and emotion of one run]({picture})"] if picture else []),
        "## Comparison",
        _verdict(data),
        "## Optimizer",
        _optimizer(data),
        "## Training",
        table(_training(data)),
        "## Limits",
        "\n".join(f"* {limit}" for limit in _limits(data)),
    ]
    return "\n\n".join(parts)


def plain_revision(revision: str) -> str:
    """A revision is a commit, branch or tag; anything else stays out."""
    is_one = re.fullmatch(r"[\w][\w.-]{0,63}", revision) and not list(places({"revision": revision}))
    return revision if is_one else "..."


def hub_name(name: str) -> str | None:
    """Returns the name of a repository, None for what may be a path."""
    return name if HUB_NAME.fullmatch(name) else None


def _from(hub: Any) -> str:
    return f"`{hub_name(hub.name) or 'DIR'}` (revision `{plain_revision(hub.revision)}`)"


def set_name(run_config: RunConfig) -> str:
    """Returns what the data set is called."""
    data = run_config.task.data
    return data.embedded or data.files or hub_name(data.hub.name) or "DIR"


def _model(run_config: RunConfig) -> str:
    model = run_config.scale.model
    if model.config:
        config = model.config
        case = ", lower-cased" if config.lowercase else ""
        what = (
            f"A GPT-2 with random initial weights: {count(config.layers, 'layer')}, {count(config.heads, 'head')},"
            f" width {config.width}, dropout {config.dropout:g}, a byte-level BPE tokenizer of at most"
            f" {config.vocabulary:,} tokens trained on the training texts{case}."
        )
    elif model.vision:
        widths = ", ".join(map(str, model.vision.widths))
        blocks = count(model.vision.blocks, "basic block")
        what = f"A ResNet with random initial weights: {blocks} per stage, stages of {widths} channels."
    elif model.hub:
        what = f"The pretrained {_from(model.hub)}."
    else:
        what = f"The pretrained Llama of {_from(model.llama2c.hub)} in llama2.c's format."
    if model.lora:
        lora = model.lora
        targets = ", ".join(f"`{plain(target)}`" for target in lora.targets)
        what += f" LoRA adapters of rank {lora.rank} (alpha {lora.alpha:g}, dropout {lora.dropout:g}) in {targets}."
    return what


def _parameters(data: ArmData) -> str:
    first = data.summaries[0]
    trained = first.get("trained_parameters", first["parameters"])
    some = "" if trained == first["parameters"] else f", of which {trained:,} are trained"
    return f"{first['parameters']:,} parameters{some}."


def _data(data: ArmData) -> str:
    run_config, first = data.run_config, data.summaries[0]
    source = run_config.task.data
    if source.embedded:
        where = f"the set `{source.embedded}` of emo_hf"
    elif data.from_hub:
        where = f"{_from(source.hub)} of the hub"
    elif data.from_hub is None:
        where = f"{_from(source.hub)} of the hub, or the original files of `{source.files}` in a local folder DIR"
    else:
        where = f"the original files of `{source.files}` in a local folder DIR"
    held = " examples held out of the training set" if source.holdout else " test examples"
    return (
        f"Data: {where}; {first['train_examples']:,} training and {first['test_examples']:,}{held}"
        f" (SHA-256 of texts and labels `{str(first['data_sha256'])[:16]}...`)."
    )


def _command(data: ArmData) -> str:
    run_config = data.run_config
    local = " --data-dir DIR" if data.from_hub is not True and not run_config.task.data.embedded else ""
    arms = f" --arms {run_config.name}" if len(data.comparison.recipe.arms) > 1 else ""
    return f"emo-hf run {data.path} --size {run_config.size}{arms}{local}"


def _results(data: ArmData) -> str:
    columns = {name: words for name, words in COLUMNS.items() if any(name in run for run in data.summaries)}
    lines = [
        f"| seed | {' | '.join(words for words, _ in columns.values())} |",
        f"|{'---|' * (len(columns) + 1)}",
    ]
    for run in data.summaries:
        numbers = [_number(run.get(name), form) for name, (_, form) in columns.items()]
        lines.append(f"| {run['seed']} | {' | '.join(numbers)} |")
    stats = [(stat(data, name), form) for name, (_, form) in columns.items()]
    spread = ["" if stat.mean is None else stat.text(form) for stat, form in stats]
    lines.append(f"| mean{' ± sd' if len(data.summaries) > 1 else ''} | {' | '.join(spread)} |")
    return "\n".join([*lines, "", f"n = {seeds(len(data.summaries))}; ± is the standard deviation over them."])


def stat(data: ArmData, name: str) -> Stat:
    """Returns mean and standard deviation of a number over the seeds."""
    return Stat.from_values([run.get(name) for run in data.summaries])


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else f"{value:{form}}"


def _machines(data: ArmData) -> str:
    lines = []
    for found in data.environments:
        versions = [f"{name} {version}" for name, version in found.get("packages", {}).items() if version]
        threads = f", {count(found['cpu_threads'], 'thread')}" if found.get("cpu_threads") else ""
        lines.append(
            plain(f"Run on {found.get('device')}{threads}; Python {found.get('python')}, {', '.join(versions)}.")
        )
    return "\n\n".join(lines) or "The machine and the versions were not noted."


def _verdict(data: ArmData) -> str:
    recipe, verdict = data.comparison.recipe, data.comparison.verdict
    if verdict.answer is None:
        arms = f" of {len(recipe.arms)} arms" if len(recipe.arms) > 1 else ""
        return f"No claim was decided{arms}: the recipe has no rule, so these are results of a training."
    claim = f"Claim: {plain(recipe.claim).rstrip('.')} (source: {plain(recipe.source)})."
    claim += f" {plain(recipe.caveat)}" if recipe.caveat else ""
    unfinished = "" if data.comparison.complete else " Preliminary: not all runs of the comparison are finished."
    fixed = "changed after runs were made" if data.comparison.rule_changes else "fixed before the runs"
    lines = [f"* {plain(line.words)}: {line.answer} (n = {line.estimate.n})" for line in verdict.lines]
    text = f"{claim} Verdict by the recipe's rule, {fixed}: **{verdict.answer}**.{unfinished}"
    return "\n".join([text, "", *lines])


def _optimizer(data: ArmData) -> str:
    arm, key = data.run_config.arm, data.summaries[0]["optimizer"]
    if arm.is_emo:
        row = registry.find(key)
        return section(row, {title: law.formula for title, law in formulas.formulas_of(row).items()})
    if arm.optim in ALIASES:
        alias = ALIASES[arm.optim]
        return table({"Optimizer": f"`{alias.name}` of {alias.package}", "Source": alias.source})
    return table({"Optimizer": f'`optim="{arm.optim}"` of transformers\' Trainer'})


def _training(data: ArmData) -> dict[str, str]:
    run_config, arm = data.run_config, data.run_config.arm
    kind = "Multiplier" if arm.is_emo and registry.find(arm.optim).lr_is_multiplier else "Learning rate"
    chosen = f", chosen by {plain(arm.tuning.chosen_by)}" if arm.tuning.chosen_by else ""
    rows = {kind: f"{arm.lr:g} ({plain(str(arm.tuning))}{chosen})"}
    if arm.options:
        rows["Options"] = ", ".join(f"{plain(name)} = {plain(repr(value))}" for name, value in arm.options.items())
    rows["Schedule"] = arm.schedule + (f", warmup over {arm.warmup:.0%} of the steps" if arm.warmup else "")
    if arm.driven_by:
        rows["Schedule"] = "emoPulse: the loss sets the learning rate"
    rows["Weight decay"] = f"{arm.weight_decay:g}"
    if arm.has_emotion:
        change = arm.loss_transform
        heard = f"{change.scale:g} times the loss plus {change.offset:g}" if change else "fed at every step"
        rows["Loss"] = heard if not arm.withhold_loss else "withheld: 0 is heard at every step"
    rows["Batch"] = str(run_config.scale.batch_size)
    epochs = f"{count(run_config.scale.epochs, 'epoch')}, " if run_config.scale.epochs else ""
    rows["Length"] = f"{epochs}{data.summaries[0]['steps']:,} optimizer steps"
    rows["Longest text"] = f"{run_config.scale.max_tokens} tokens"
    if run_config.task.type == "image-classification":
        del rows["Longest text"]
    rows["Precision"] = f"weights and optimizer in {arm.weights}"
    if run_config.processes:
        each = f", averaged every {count(arm.local_sgd_steps, 'step')}" if arm.local_sgd_steps else ", synchronous"
        rows["Processes"] = f"{run_config.processes}{each}"
    for name in ("condition", "handover", "replay"):
        if (part := getattr(arm, name)) is not None:
            settings = part.model_dump(exclude_defaults=True).items()
            rows[name.capitalize()] = ", ".join(f"{key} {plain(value)}" for key, value in settings)
    return rows


def _limits(data: ArmData) -> list[str]:
    run_config, arm, n = data.run_config, data.run_config.arm, len(data.summaries)
    limits = [f"The numbers are those of {seeds(n)} on one split of the data; other machines give others."]
    if run_config.scale.model.config or run_config.scale.model.vision:
        limits.append("Trained from random weights, it is no match for a pretrained model that is fine-tuned.")
    if run_config.task.data.holdout:
        limits.append("Evaluated on examples held out of the training set, not on the test set.")
    if arm.tuning.how == "untuned":
        limits.append("Its settings were not tuned.")
    if arm.condition:
        limits.append("Its training data was changed on purpose (see Training): do not use it for anything else.")
    if run_config.size == "smoke":
        limits.append("The size is for checking that everything works; the model has learned next to nothing.")
    return limits


def seeds(n: int) -> str:
    """Returns "1 seed", "2 seeds"."""
    return count(n, "seed")


def count(n: float, noun: str) -> str:
    """Returns "1 step", "2 steps"."""
    return f"{n:,g} {noun}" + ("" if n == 1 else "s")
