"""The W&B workspace: what it is (workspace.json), that its panels show what is logged, and that it is saved.

``python tests/dashboards/test_workspace.py`` writes workspace.json anew.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from emo_hf.cli import main
from emo_hf.dashboards import workspace
from emo_hf.dashboards.metrics import METRICS, SECTIONS, SUMMARY
from emo_hf.dashboards.sinks import STEP
from emo_hf.errors import DashboardError
from tests import ROOT

GOLDEN = Path(__file__).with_name("workspace.json")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]  # wandb_workspaces'


def stripped(content: Any) -> Any:
    """Leaves out the ids, which are drawn anew each time."""
    if isinstance(content, list):
        return [stripped(each) for each in content]
    if isinstance(content, dict):
        return {key: stripped(value) for key, value in content.items() if key not in ("__id__", "id", "ref")}
    return content


def panels() -> list[dict[str, Any]]:
    sections = workspace.specification()["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def test_the_specification_is_the_golden_one() -> None:
    assert stripped(workspace.specification()) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_sections_are_in_order_and_the_first_is_pinned() -> None:
    sections = workspace.specification()["spec"]["section"]["panelBankConfig"]["sections"]
    assert [(section["name"], section["isOpen"]) for section in sections] == [
        ("Health", True),
        ("Loss as the optimizer sees it", True),
        ("Signal and noise", True),
        ("Stopping", False),
        ("Across optimizers and seeds", True),
        ("Finding the step size", False),
        ("Options", False),
        ("Cost", False),
        ("Report", False),
    ]
    assert [section["pinned"] for section in sections] == [True, *[False] * 8]


def test_axes_are_those_of_the_metrics() -> None:
    plots = [panel["config"] for panel in panels() if panel["viewType"] == "Run History Line Plot"]
    assert all(plot["xAxis"] == STEP for plot in plots)
    by_title = {plot["chartTitle"]: plot for plot in plots}
    for panel in (panel for section in SECTIONS for panel in section.panels):
        plot, metric = by_title[panel.title], METRICS[panel.keys[0]]
        assert tuple(plot["metrics"]) == panel.metrics
        assert plot.get("yLogScale", False) == (metric.axis == "log")
        limits = (plot.get("yAxisMin"), plot.get("yAxisMax"))
        assert limits == (metric.range if metric.axis == "fixed" else (None, None))
        assert plot["smoothingType"] == "none"


def test_the_panel_of_losses_draws_those_of_every_evaluation_set() -> None:
    by_title = {panel["config"].get("chartTitle"): panel["config"] for panel in panels()}
    assert by_title["Loss"]["useMetricRegex"] is True
    drawn = re.compile(by_title["Loss"]["metricRegex"])
    logged = (
        "train/loss",
        "eval/loss",
        "eval/a_loss",
        "eval/my set_loss",
        "eval/runtime",
        "eval/a_runtime",
        "emo/loss",
    )
    assert [key for key in logged if drawn.search(key)] == list(logged[:4])


def test_the_text_says_when_to_act() -> None:
    texts = "\n".join(panel["config"]["value"] for panel in panels() if panel["viewType"] == "Markdown Panel")
    for key, metric in METRICS.items():
        if key != "emo/trust" and not key.endswith(("_min", "_max")):
            assert f"* `{key}` is {metric.meaning}." in texts
            assert metric.act in texts


def named() -> set[str]:
    """Every metric that a panel or a column names: ``config:x.value``, ``summary:x``, or a key of the history."""
    names = set(workspace.specification()["spec"]["section"]["runSets"][0]["runFeed"]["columnOrder"])
    for panel in panels():
        config = panel["config"]
        of = "summary:" if panel["viewType"] == "Bar Chart" else ""
        names |= {of + key for key in config.get("metrics", ())} | set(config.get("mediaKeys", ()))
        names |= {config[axis] for axis in ("xAxis", "yAxis") if axis in config}
        names |= {column["accessor"] for column in config.get("columns", ())}
        names |= {f"config:{config['groupBy']}"} if "groupBy" in config else set()
    return names - {"run:displayName"}


SCRIPT = """
import sys
import wandb
from transformers import Trainer, TrainingArguments
import emo_hf
sys.path.insert(0, sys.argv[1])
from tests.hf.tiny_gpt2 import make_data, make_model

for optim, options in (("emosens", "moments=log,use_shadow=true"), ("emonavi", None), ("emofree", None)):
    args = TrainingArguments(optim, optim=optim, optim_args=options, max_steps=20, use_cpu=True, report_to=["wandb"],
                             logging_steps=1, eval_strategy="steps", eval_steps=2, save_strategy="no",
                             disable_tqdm=True, dataloader_pin_memory=False, per_device_train_batch_size=2,
                             gradient_accumulation_steps=2)
    Trainer(make_model(), args, train_dataset=make_data(), eval_dataset=make_data(4)).train()
wandb.finish()
wandb.teardown()
"""


def test_every_metric_that_is_named_is_logged(tmp_path: Path, inspect, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    command = [sys.executable, "-c", SCRIPT, str(ROOT)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120, capture_output=True)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")  # the trainings of one process are one run
    logged: set[str] = set()
    for record in inspect(run):
        logged |= {key.removesuffix("._type") for key in record.get("history", {}).get("item", ())}
        logged |= {f"summary:{key}" for key in record.get("summary", {}).get("update", ())}
        for config in (record.get("run", {}).get("config", {}), record.get("config", {}).get("update", {})):
            logged |= {f"config:{key}.value" for key in config}
    assert named() - logged == set()
    assert {f"summary:{key}" for key in SUMMARY} - logged == {"summary:emo/first_stop_step"}  # it was never ready
    artifacts = [record["artifact"] for record in inspect(run) if record["type"] == "artifact"]
    assert [artifact["type"] for artifact in artifacts] == ["signals"] * 3
    assert [entry["path"] for entry in artifacts[0]["manifest"]["contents"]] == ["emo_signals.jsonl"]
    media = sorted(path.suffix for path in (run / "files" / "media").rglob("*") if path.is_file())
    assert media == [*[".html"] * 3, *[".png"] * 3]


class Server(HTTPServer):
    """As much of W&B as saving a view needs; keeps the views that were saved."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.views: list[dict[str, Any]] = []
        self.entity = "me"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            self.views.append(variables)
            view = {"id": variables.get("id") or f"id{len(self.views)}", "name": variables["name"]}
            return {"upsertView": {"view": view, "inserted": True}}
        if "allViews" in query:
            view = {"id": "id1", "displayName": self.views[0]["displayName"], "spec": self.views[0]["spec"]}
            return {"project": {"allViews": {"edges": [{"node": view}]}}}
        teams = {"edges": []}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": teams}}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content = b"{}"
        if self.path == "/graphql":
            request = json.loads(body)
            data = self.server.answer(request["query"], request.get("variables") or {})
            content = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(session, monkeypatch) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        session.teardown()
        server.shutdown()
        thread.join()


def test_push_saves_a_view_and_updates_it(server: Server, capsys) -> None:
    push = ["dashboard", "push", "--entity", "me", "--project", "mine"]
    assert main(push) == 0
    url = capsys.readouterr().out.removeprefix("Saved: ").strip()
    assert url.startswith(f"http://127.0.0.1:{server.server_port}/me/mine?nw=")
    assert main([*push, "--update", url]) == 0
    assert capsys.readouterr().out == f"Saved: {url}\n"
    first, second = server.views
    assert (first.get("id"), second["id"]) == (None, "id1")
    assert first["name"] == second["name"]
    for view in server.views:
        assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "mine", "Emotion")
        assert stripped(json.loads(view["spec"])) == json.loads(GOLDEN.read_text(encoding="utf-8"))["spec"]


def test_a_view_of_another_project_is_not_replaced(server: Server) -> None:
    url = workspace.push("me", "mine")
    with pytest.raises(DashboardError, match="belongs to me/mine, not to me/other"):
        workspace.push("me", "other", url)
    assert len(server.views) == 1


def test_push_without_a_key(session, monkeypatch, capsys) -> None:
    monkeypatch.delenv("WANDB_MODE")
    assert main(["dashboard", "push", "--entity", "me", "--project", "mine"]) == 2
    assert "There is no W&B key. Run `wandb login` first" in capsys.readouterr().err


def test_what_w_and_b_says_is_told(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(server, "answer", lambda query, variables: {"viewer": None})
    with pytest.raises(DashboardError, match="Check that me/mine exists, that the key may write to it"):
        workspace.push("me", "mine")


def test_show_prints_the_specification(capsys) -> None:
    assert main(["dashboard", "show"]) == 0
    assert stripped(json.loads(capsys.readouterr().out)) == json.loads(GOLDEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(stripped(workspace.specification()), indent=1) + "\n", encoding="utf-8")
