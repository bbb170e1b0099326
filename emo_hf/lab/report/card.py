"""The model card of one arm: the text of `emo_hf.lab.report.card_text` below the metadata that the hub reads."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from emo_hf.dashboards import report
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import RecipeError
from emo_hf.hf.card import TAG
from emo_hf.lab.report import card_text
from emo_hf.lab.report.card_data import ArmData
from emo_hf.lab.report.templating import count

TASKS = {  # task -> its name on the hub, and in words
    "sequence-classification": ("text-classification", "Text classification"),
    "causal-lm": ("text-generation", "Language modelling"),
    "image-classification": ("image-classification", "Image classification"),
}


def write(data: ArmData, path: Path, license: str | None = None, force: bool = False) -> list[Path]:
    """Writes the card and, next to it, a picture of one run's signals; returns what was written.

    A folder of results has no signals: then a picture that is there already stays.

    Raises:
        RecipeError: a file exists, and `force` is not set.
        EmoError: matplotlib is not installed.
    """
    picture = path.with_suffix(".png")
    files = [path, picture] if data.pictured else [path]
    if existing := [str(file) for file in files if file.exists() and not force]:
        raise RecipeError(f"{', '.join(existing)} exists: give another file by -o, or --force to replace it.")
    text = str(render(data, picture.name if data.pictured or picture.exists() else None, license))
    if data.pictured:
        report.write_png(report.read([data.pictured]), picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (text.rstrip() + "\n").encode())
    return files


def render(data: ArmData, picture: str | None, license: str | None = None) -> ModelCard:
    """Returns the card; `picture` is the name of a file next to it."""
    return ModelCard(f"---\n{metadata(data, license).to_yaml()}\n---\n\n{card_text.body(data, picture)}\n")


def metadata(data: ArmData, license: str | None = None) -> ModelCardData:
    """Returns what the hub reads of the card."""
    run_config, metric = data.run_config, data.run_config.task.metric
    task, words = TASKS[run_config.task.type]
    hub = run_config.task.data.hub
    dataset = hub.name if hub else None
    mean = card_text.stat(data, metric).mean
    results = []
    if mean is not None:
        results.append(
            EvalResult(
                task_type=task,
                task_name=words,
                dataset_type=dataset or card_text.set_name(run_config),
                dataset_name=card_text.set_name(run_config),
                dataset_config=hub.config if hub else None,
                dataset_split="train" if run_config.task.data.holdout else "test",
                dataset_revision=card_text.plain_revision(hub.revision) if hub and data.from_hub else None,
                metric_type=metric,
                metric_value=float(f"{mean:.6g}"),
                metric_name=f"{metric}, mean of {count(len(data.summaries), 'seed')}",
            )
        )
    base = run_config.scale.model.hub or (
        run_config.scale.model.llama2c.hub if run_config.scale.model.llama2c else None
    )
    name = data.summaries[0]["optimizer"].partition("-")[0] if run_config.arm.is_emo else run_config.arm.optim
    return ModelCardData(
        language=None if run_config.task.type == "image-classification" or run_config.task.data.own else "en",
        license=license,
        library_name="peft" if run_config.scale.model.lora else "transformers",
        pipeline_tag=task,
        base_model=base.name if base else None,
        tags=[TAG, name, *(["emopulse"] if run_config.arm.driven_by else [])],
        datasets=[dataset] if dataset else None,
        metrics=[metric],
        model_name=f"{run_config.recipe}-{run_config.size}-{run_config.name}",
        eval_results=results or None,
    )
