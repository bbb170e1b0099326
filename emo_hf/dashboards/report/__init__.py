"""Reports of finished and running trainings, with no account and no network:

    runs = report.read(["runs/quickstart/small"])
    report.write_html(runs, Path("report.html"))     one file, opened by any browser
    report.write_png(runs, Path("report.png"))       one picture, for a model card; needs matplotlib

What a run consists of is `runs`' business, what is shown `page`'s, and how, that of `build`, `figures` and `ramp`.
"""

from pathlib import Path

from emo_hf.dashboards.jsonl import write_whole
from emo_hf.dashboards.report.build import html
from emo_hf.dashboards.report.runs import RecordedRun, read
from emo_hf.extras import needing

__all__ = ["RecordedRun", "html", "read", "write_html", "write_png"]


def write_html(runs: list[RecordedRun], path: Path) -> None:
    """Writes the report of `runs` as one HTML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, html(runs).encode())


def write_png(runs: list[RecordedRun], path: Path) -> None:
    """Writes a picture of `runs`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needing("A picture"):
        from emo_hf.dashboards.report import figures

    figures.draw(runs, path)
