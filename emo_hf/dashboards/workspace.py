"""The W&B workspace as code: the same panels for everybody, without a click.

    emo-hf dashboard show                                      prints its specification
    emo-hf dashboard push --entity me --project mine           saves it as a new view and prints its address
    emo-hf dashboard push ... --update URL                     saves it in the place of that view

It holds the sections of `emo_hf.dashboards.metrics`, each with a panel that says how to read it, and a section that
compares optimizers and seeds. It is built and validated without a key or a network; only `push` needs them.
"""

from typing import Any

from emo_hf.dashboards.metrics import EVAL_LOSS, METRICS, SECTIONS, Panel, Section
from emo_hf.dashboards.sinks import STEP
from emo_hf.dashboards.wandb import PICTURE, REPORT
from emo_hf.errors import DashboardError

NAME = "Emotion"
LOSSES = r"^(train/loss|eval/(.*_)?loss)$"  # of every evaluation set; W&B draws what this matches, not `y`
OPTIMIZER = "emo_optimizer"  # config key by which runs are compared
COLUMNS = (
    f"config:{OPTIMIZER}.value",
    "config:emo_version.value",
    "config:seed.value",
    "summary:best/eval_loss",
    "summary:emo/lr_median",
    "summary:emo/found_lr",
)


def build(entity: str, project: str) -> Any:
    """Returns the ``wandb_workspaces.workspaces.Workspace``, not saved anywhere."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections: list[Any] = []
    for section in SECTIONS:
        panels = [*map(_line_plot, section.panels), _reading(section)]
        sections.append(_section(section.title, panels, section.open, pinned=not sections))
    sections.insert(4, _section("Across optimizers and seeds", _comparison(), is_open=True))
    sections.append(_section("Report", [wr.MediaBrowser(media_keys=[REPORT, PICTURE])], is_open=False))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=ws.RunsetSettings(pinned_columns=list(COLUMNS)),
    )


def specification(entity: str = "ENTITY", project: str = "PROJECT") -> dict[str, Any]:
    """Returns the workspace as W&B stores it."""
    return build(entity, project)._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def push(entity: str, project: str, update: str | None = None) -> str:
    """Saves the workspace in W&B and returns its address.

    Args:
        entity: User or team.
        project: Project of the entity.
        update: Address of a view of that project, which the workspace replaces; None makes a new view.

    Raises:
        DashboardError: There is no key, W&B cannot be reached, it refuses, or ``update`` is of another project.
    """
    import wandb
    import wandb_workspaces.workspaces as ws

    workspace = build(entity, project)
    try:
        if not wandb.login(prompt=False, verify=False):
            raise DashboardError("There is no W&B key. Run `wandb login` first, or set WANDB_API_KEY.")
        if update:
            view = ws.Workspace.from_url(update)
            if (view.entity, view.project) != (entity, project):
                raise DashboardError(f"{update} belongs to {view.entity}/{view.project}, not to {entity}/{project}.")
            workspace._internal_name, workspace._internal_id = view._internal_name, view._internal_id
        return workspace.save().url
    except DashboardError:
        raise
    except Exception as error:  # a vendor may raise anything
        raise DashboardError(
            f"W&B did not save the workspace. Check that {entity}/{project} exists, that the key may write to it, and "
            f"the network. {type(error).__name__}: {error}"
        ) from error


def _section(title: str, panels: list[Any], is_open: bool, pinned: bool = False) -> Any:
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=3, rows=1 if len(panels) <= 3 else 2)
    return ws.Section(name=title, panels=panels, is_open=is_open, pinned=pinned, layout_settings=layout)


def _line_plot(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    first = panel.first
    return wr.LinePlot(
        title=panel.title,
        x=STEP,
        y=list(panel.metrics),
        metric_regex=LOSSES if EVAL_LOSS in panel.keys else None,
        title_y=first.unit or None,
        log_y=first.axis == "log" or None,
        range_y=first.range if first.axis == "fixed" else (None, None),
        smoothing_type="none",
        smoothing_factor=0,
    )


def _reading(section: Section) -> Any:
    """Returns a panel of text: what the lines mean, what healthy looks like, when to act."""
    import wandb_workspaces.reports.v2 as wr

    lines = []
    for key in dict.fromkeys(key for panel in section.panels for key in panel.keys):
        metric = METRICS[key]
        act = f" **Act:** {metric.act}." if metric.act else ""
        lines.append(f"* `{key}` is {metric.meaning}. **Healthy:** {metric.healthy}.{act}")
    return wr.MarkdownPanel(markdown="\n".join(["#### How to read this", *lines]))


def _comparison() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    by_optimizer: dict[str, Any] = {
        "groupby": wr.Config(OPTIMIZER),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "minmax",
        "aggregate": True,
    }
    best, lr = wr.SummaryMetric("best/eval_loss"), wr.SummaryMetric("emo/lr_median")
    column = wr.ParallelCoordinatesPlotColumn
    return [
        wr.LinePlot(title="Evaluation loss, mean and range", x=STEP, y=[EVAL_LOSS], log_y=True, **by_optimizer),
        wr.LinePlot(title="Step size, mean and range", x=STEP, y=["emo/lr"], log_y=True, **by_optimizer),
        wr.BarPlot(title="Best evaluation loss, mean and range", metrics=[best.name], **by_optimizer),
        wr.ScatterPlot(title="Best evaluation loss against median step size", x=lr, y=best, log_x=True),
        wr.ParallelCoordinatesPlot(
            title="What leads to the best loss",
            columns=[
                column(metric=wr.Config(OPTIMIZER), display_name="optimizer"),
                column(metric=wr.Config("emo_version"), display_name="version"),
                column(metric=wr.Config("seed"), display_name="seed"),
                column(metric=lr, display_name="median step size", log=True),
                column(metric=wr.SummaryMetric("emo/lr_ceiling_share"), display_name="share at the ceiling"),
                column(metric=best, display_name="best evaluation loss"),
            ],
        ),
        wr.RunComparer(diff_only="split"),
    ]
