"""The text of an arm's model card, in Markdown, from the facts of `emo_hf.lab.report.card_data`.

All numbers come from there. What somebody wrote into a recipe is shown as plain text, without keys and paths.
"""

import re
from pathlib import PurePosixPath
from typing import Any

from emo_hf import registry
from emo_hf.hf.card import plain, section, table
from emo_hf.hf.confidential import places
from emo_hf.lab.analysis.results import Stat, number
from emo_hf.lab.recipe.baselines import ALIASES
from emo_hf.lab.recipe.data import Data
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.report import formulas, templating
from emo_hf.lab.report.card_data import ArmData
from emo_hf.lab.report.templating import count, listed
from emo_hf.run_folder import CLASSES

COLUMNS = {  # of the table of results, as far as the summaries have them
    "accuracy": ("accuracy", ".3f"),
    "perplexity": ("perplexity", ".2f"),
    "eval_loss": ("evaluation loss", ".3f"),
    "train_loss": ("training loss (mean)", ".3f"),
    "step_size_median": ("median step size", ".1e"),
    "found_lr": ("found step size", ".1e"),
    "seconds": ("seconds", ".0f"),
}


def body(data: ArmData, picture: str | None) -> str:
    """Returns the Markdown of the card; `picture` is the name of a file next to it."""
    comparison, columns = data.comparison, [name for name in COLUMNS if any(name in run for run in data.summaries)]
    template = templating.environment(plain).get_template("card.md.jinja")
    return template.render(
        run=data.run_config,
        recipe=comparison.recipe,
        verdict=comparison.verdict,
        complete=comparison.complete,
        rule_changes=comparison.rule_changes,
        model=_model(data.run_config),
        parameters=_parameters(data),
        data=_data(data),
        command=_command(data),
        columns=[COLUMNS[name][0] for name in columns],
        results=_results(data, columns),
        n=len(data.summaries),
        machines=[_machine(environment) for environment in data.environments],
        picture=picture,
        optimizer=_optimizer(data),
        training=table(_training(data)),
    )


def plain_revision(revision: str) -> str:
    """Returns the name of a commit, branch or tag, "..." for anything else."""
    is_one = re.fullmatch(r"[\w][\w.-]{0,63}", revision) and not list(places({"revision": revision}))
    return revision if is_one else "..."


def _repository(hub: Any) -> str:
    """Returns a repository of the hub and its revision as Markdown."""
    return f"`{hub.name}` (revision `{plain_revision(hub.revision)}`)"


def set_name(run_config: RunConfig) -> str:
    """Returns what the data set is called."""
    data = run_config.task.data
    return data.embedded or data.files or (data.hub.name if data.hub else own_name(data))


def own_name(data: Data) -> str:
    """Returns the name of one's own file or folder, without the folders above it."""
    return PurePosixPath(data.own[1]).name if data.own else "DIR"


def _model(run_config: RunConfig) -> str:
    model = run_config.scale.model
    if model.config:
        config = model.config
        case = ", lower-cased" if config.lowercase else ""
        text = (
            f"A GPT-2 with random initial weights: {count(config.layers, 'layer')}, {count(config.heads, 'head')},"
            f" width {config.width}, dropout {config.dropout:g}, a byte-level BPE tokenizer of at most"
            f" {config.vocabulary:,} tokens trained on the training texts{case}."
        )
    elif model.vision:
        widths = ", ".join(map(str, model.vision.widths))
        blocks = count(model.vision.blocks, "basic block")
        text = f"A ResNet with random initial weights: {blocks} per stage, stages of {widths} channels."
    elif model.vit:
        vit = model.vit
        text = (
            f"A vision transformer with random initial weights: {count(vit.layers, 'layer')},"
            f" {count(vit.heads, 'head')}, width {vit.width}, patches of {vit.patch} x {vit.patch} pixels."
        )
    elif model.llama2c:
        text = f"The pretrained Llama of {_repository(model.llama2c.hub)} in llama2.c's format."
    else:
        text = f"The pretrained {_repository(model.hub)}" + (", from a local copy." if run_config.model_dir else ".")
    if model.lora:
        lora = model.lora
        targets = ", ".join(f"`{plain(target)}`" for target in lora.targets)
        text += f" LoRA adapters of rank {lora.rank} (alpha {lora.alpha:g}, dropout {lora.dropout:g}) in {targets}."
    return text


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
        where = f"{_repository(source.hub)} of the hub"
    elif source.own:
        columns = ", ".join(f"{key} in the column {plain(name)}" for key, name in source.columns.items())
        where = f"{plain(own_name(source))} in a local folder DIR" + (f" ({columns})" if columns else "")
    else:
        where = f"the original files of `{source.files}` in a local folder DIR"
        if data.from_hub is None:
            where = f"{_repository(source.hub)} of the hub, or {where}"
    held = " examples held out of the training set" if source.holdout else " test examples"
    classes = f" Classes: {plain(listed(first[CLASSES]))}." if CLASSES in first else ""
    return (
        f"Data: {where}; {first['train_examples']:,} training and {first['test_examples']:,}{held}"
        f" (SHA-256 of texts and labels `{str(first['data_sha256'])[:16]}...`).{classes}"
    )


def _command(data: ArmData) -> str:
    run_config = data.run_config
    local = " --data-dir DIR" if data.from_hub is not True and not run_config.task.data.embedded else ""
    local += " --model-dir MODELS" if run_config.model_dir else ""
    arms = f" --arms {run_config.name}" if len(data.comparison.recipe.arms) > 1 else ""
    return f"emo-hf run {data.path} --size {run_config.size}{arms}{local}"


def _results(data: ArmData, columns: list[str]) -> dict[str, list[str]]:
    """Returns the cells of the table of results, by seed; then those of the mean."""
    cells = {
        str(run["seed"]): [_number(run.get(name), COLUMNS[name][1]) for name in columns] for run in data.summaries
    }
    stats = [(stat(data, name), COLUMNS[name][1]) for name in columns]
    title = "mean ± sd" if len(data.summaries) > 1 else "mean"
    return {**cells, title: ["" if value.mean is None else value.text(form) for value, form in stats]}


def stat(data: ArmData, name: str) -> Stat:
    """Returns mean and standard deviation of a number over the seeds."""
    return Stat.from_values([number(run.get(name)) for run in data.summaries])


def _number(value: Any, form: str) -> str:
    value = number(value)
    return "not finite" if value is None else f"{value:{form}}"


def _machine(environment: dict[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in environment.get("packages", {}).items() if version]
    threads = f", {count(environment['cpu_threads'], 'thread')}" if environment.get("cpu_threads") else ""
    device, python = environment.get("device"), environment.get("python")
    return f"Run on {device}{threads}; Python {python}, {', '.join(versions)}."


def _optimizer(data: ArmData) -> str:
    arm, key = data.run_config.arm, data.summaries[0]["optimizer"]
    if arm.is_emo:
        row = registry.find(key)
        return section(row, {title: each.formula for title, each in formulas.formulas_of(row).items()})
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
