"""What the runs of a comparison need. It is checked before the first run starts."""

from pathlib import Path

from emo_hf.errors import RecipeError
from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import runner
from emo_hf.run_folder import RunFolder


def check(run_configs: list[RunConfig], place: Path | None = None) -> None:
    """Reads the data, and checks that model and optimizers are there. All runs are of one recipe and size.

    Args:
        run_configs: the runs.
        place: where their folders are. One's own data must be what those that have finished learned from.

    Raises:
        RecipeError: something is missing, malformed, out of reach or changed.
    """
    data = sources.examples(run_configs[0])  # all of them read the same data, and begin with the same model
    if place and run_configs[0].task.data.own:
        _check_unchanged(run_configs, place, data.sha256)
    tasks.check_model(run_configs[0])
    for name in dict.fromkeys(run_config.arm.optim for run_config in run_configs):
        if name in baselines.ALIASES:
            baselines.load(name)


def _check_unchanged(run_configs: list[RunConfig], place: Path, sha256: str) -> None:
    """Raises `RecipeError` if a finished run, which would be skipped, learned from other data than `sha256`."""
    for run_config in run_configs:
        folder = RunFolder.in_comparison(place, run_config.name, run_config.seed)
        if run_config.arm.condition != run_configs[0].arm.condition or not runner.is_finished(run_config, folder):
            continue
        if ((folder.read_summary() or {}).get("data_sha256", sha256)) != sha256:
            raise RecipeError(
                f"The data is not what the finished runs in {place} learned from. Give another --runs-dir, or move"
                " that folder away."
            )
