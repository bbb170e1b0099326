"""What a file says reaches the terminal as text: no escape sequence, and no mark that turns text around."""

import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest

from emo_hf import cli
from emo_hf.cli.printing import SafeConsole, plain
from tests.dashboards.recorded_runs import row, write_rows, write_run
from tests.lab import made_up_runs

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202elast\u2066\r\x08"


def unsafe(text: str) -> set[str]:
    """The characters of `text` that a terminal could obey, by the Unicode categories control and format."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf")} - {"\n", "\t"}


def run_with_names(folder: Path) -> Path:
    write_run(folder)
    write_rows(folder / "emo_signals.jsonl", [row(1)])
    write_rows(folder / "history.jsonl", [{"step": 1, "loss": 1.0, f"eval_{HOSTILE}_loss": 1.0}])
    (folder / "emo_run.json").write_text(json.dumps({"emo_optimizer": HOSTILE, "emo_version": "1"}))
    return folder


def results(folder: Path) -> Path:
    content = made_up_runs.recipe({"description": HOSTILE, "claim": HOSTILE, "source": HOSTILE})
    content["arms"]["adamw"]["tuning"]["chosen_by"] = HOSTILE
    return made_up_runs.write(folder, content, data_dir=folder)


def bad_line(folder: Path) -> Path:
    folder.mkdir()
    (folder / "emo_signals.jsonl").write_text(f"{HOSTILE}\n")
    return folder


def bad_recipe(folder: Path) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(json.dumps({HOSTILE: {HOSTILE: 1}, "name": HOSTILE}))
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("make", "command"),
    [
        (run_with_names, ["watch", "{}", "--once"]),
        (run_with_names, ["report", "{}", "-o", "{}/report.html"]),
        (results, ["report", "{}"]),
        (results, ["validate", "{}/recipe.yaml"]),
        (results, ["sweep", "{}/recipe.yaml", "--data-dir", "{}"]),
        (results, ["card", "{}/adamw", "-o", "{}/card.md"]),
        (bad_line, ["watch", "{}", "--once"]),
        (bad_line, ["report", "{}"]),
        (bad_recipe, ["validate", "{}"]),
        (bad_recipe, ["run", "{}"]),
    ],
)
def test_no_command_lets_a_file_speak_to_the_terminal(make, command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    place = make(tmp_path / "place")
    cli.main([part.format(place) for part in command])
    captured = capsys.readouterr()
    assert captured.out + captured.err
    assert not unsafe(captured.out + captured.err)


def test_nor_an_argument(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main([f"no-such-command{HOSTILE}"])
    assert not unsafe(capsys.readouterr().err)


def test_nor_a_log_message(capsys) -> None:
    cli.main(["completion", "bash"])
    logging.getLogger("other").warning("a file says %s", HOSTILE)
    said = capsys.readouterr().err
    assert "a file says" in said
    assert not unsafe(said)


def test_what_rich_says_to_the_terminal_stays() -> None:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print("[red]word[/] \x1b[0m", highlight=False)
    assert console.file.getvalue().replace(" ?[0m", "") == "\x1b[31mword\x1b[0m\n"


def test_letters_and_signs_stay() -> None:
    text = "naïve ± 3 日本 עברית 👩\u200d👩\u200d👧 ▁▂▃\tx\n"
    assert plain(text) == text
