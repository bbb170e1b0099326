"""The report in a real browser, by playwright with the system's chromium."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emo_hf.dashboards import report
from tests.dashboards.recorded_runs import write_cell, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `test`)")

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOWN = "[...plots.values()].map(plot => [plot.scales.x.min, plot.scales.x.max])"  # steps of every chart


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    files = {name: folder / f"{name}.html" for name in ("one", "many")}
    report.write_html(report.read([write_run(folder / "one")]), files["one"])
    for arm in ("emosens", "emocats", "adamw_torch"):
        for seed in (0, 1):
            write_cell(folder / "many", arm, seed, emo=arm.startswith("emo"))
    report.write_html(report.read([folder / "many"]), files["many"])
    return files


@pytest.fixture
def show(browser: Any, files: dict[str, Path]) -> Iterator[Any]:
    """Opens a report; at the end of the test nothing was complained about and nothing was fetched."""
    contexts, wrong, fetched = [], [], []

    def show(name: str, **settings: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1300, "height": 900}, **settings}))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(files[name].as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert wrong == []
    assert {url.partition(":")[0] for url in fetched} <= {"file", "data"}
    assert len([url for url in fetched if url.startswith("file:")]) == len(contexts)


def wait_until(page: Any, condition: Callable[[], bool]) -> None:
    """Asks again and again from here: the page's policy forbids the polling that `page.wait_for_function` would do."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the page never came to this state"
        page.wait_for_timeout(20)


def drag(page: Any, chart: Any, start: float, end: float) -> None:
    """Drags from one share of a chart's width to another."""
    box = chart.locator(".u-over").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * start, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (start + end) / 2, y)
    page.mouse.move(box["x"] + box["width"] * end, y)
    page.mouse.up()


def chart(page: Any, title: str) -> Any:
    return page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))


def ink(page: Any, title: str) -> int:
    """How many pixels of a chart are drawn on, counted on a copy: chromium complains of reading the same one twice."""
    return (
        chart(page, title)
        .locator("canvas")
        .evaluate("""canvas => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
        copy.drawImage(canvas, 0, 0);
        return copy.getImageData(0, 0, canvas.width, canvas.height).data.filter((v, at) => at % 4 === 3 && v).length;
    }""")
    )


def test_the_charts_of_open_sections_are_drawn_and_the_others_when_they_open(show) -> None:
    page = show("one")
    drawn = page.evaluate("plots.size")
    assert drawn == page.locator("main > details[open] figure").count() > 5
    assert ink(page, "Loss") > 1000
    page.get_by_text("Stopping", exact=True).click()
    wait_until(page, lambda: page.evaluate("plots.size") > drawn)
    assert ink(page, "Margins to ready") > 1000


def test_zoom_is_one_for_all_charts(show) -> None:
    page = show("one")
    assert set(map(tuple, page.evaluate(SHOWN))) == {(0, 60)}
    drag(page, chart(page, "Loss"), 0.25, 0.5)
    (first, last), *others = page.evaluate(SHOWN)
    assert first == pytest.approx(15, abs=0.5)
    assert last == pytest.approx(30, abs=0.5)
    assert others
    assert all(shown == [first, last] for shown in others)
    page.get_by_text("Stopping", exact=True).click()  # drawn later, zoomed as well
    wait_until(page, lambda: page.evaluate("plots.size") > len(others) + 1)
    assert all(shown == [first, last] for shown in page.evaluate(SHOWN))
    chart(page, "Emotion").locator(".u-over").dblclick()
    assert set(map(tuple, page.evaluate(SHOWN))) == {(0, 60)}


def test_buttons_zoom_within_the_steps(show) -> None:
    page = show("one")
    page.get_by_role("button", name="Zoom in").click()
    assert page.evaluate(SHOWN)[0] == [15, 45]
    assert "steps 15 to 45" in page.locator("#where").inner_text()
    for _ in range(3):
        page.get_by_role("button", name="Zoom out").click()
    assert page.evaluate(SHOWN)[0] == [0, 60]
    for _ in range(9):
        page.get_by_role("button", name="Zoom in").click()
    first, last = page.evaluate(SHOWN)[0]
    assert last - first == pytest.approx(4)
    page.get_by_role("button", name="All steps").click()
    assert page.evaluate(SHOWN)[0] == [0, 60]


def test_the_cursor_is_one_for_all_charts(show) -> None:
    page = show("one")
    last = chart(page, "Step size used").locator(".legend output").inner_text()
    assert last == "0.006"
    box = chart(page, "Emotion").locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    assert page.locator("#where").inner_text().startswith("step 30 ")
    assert chart(page, "Step size used").locator(".legend output").inner_text() == "0.003"
    page.mouse.move(5, 5)
    assert chart(page, "Step size used").locator(".legend output").inner_text() == last


def test_the_legend_switches_a_line_off_and_on(show) -> None:
    page = show("one")
    before = ink(page, "Loss and its averages")
    button = page.get_by_role("button", name="emo/ema_long")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    wait_until(page, lambda: ink(page, "Loss and its averages") < before)
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    wait_until(page, lambda: ink(page, "Loss and its averages") == before)


def test_the_legend_switches_an_optimizer_off_in_all_charts(show) -> None:
    page = show("many")
    shown = "[...plots.values()].flatMap(p => p.series.filter(s => s.label === 'emosens').map(s => s.show))"
    assert all(page.evaluate(shown))
    page.get_by_role("button", name="emosens").first.click()
    assert page.evaluate(shown)
    assert not any(page.evaluate(shown))
    assert page.locator("[data-name=emosens][aria-pressed=true]").count() == 0
    assert page.locator("[data-name=emocats][aria-pressed=false]").count() == 0
    page.get_by_text("Cost", exact=True).click()
    cost = page.locator("main > details", has=page.get_by_text("Cost", exact=True))
    wait_until(page, lambda: cost.locator("canvas").count() > 0)
    assert not any(page.evaluate(shown))


def test_thin_seeds_and_a_thick_mean(show) -> None:
    page = show("many")
    lines = "plots.values().next().value.series.slice(1).map(line => [line.label, line.kind, line.width])"
    seed, mean = ["adamw_torch", "seed", 1], ["adamw_torch", "main", 2.5]
    assert page.evaluate(lines)[:4] == [seed, seed, mean, ["adamw_torch", "raw", 1]]  # of a loss that is smoothed


def test_the_keyboard_reads_and_zooms(show) -> None:
    page = show("one")
    chart(page, "Step size used").locator(".plot").focus()
    page.keyboard.press("Home")
    said = page.get_by_role("status").and_(page.locator("#said"))
    assert said.inner_text() == "step 1: emo/lr 1e-4"
    page.keyboard.press("ArrowRight")
    assert said.inner_text() == "step 2: emo/lr 2e-4"
    page.keyboard.press("+")
    first, last = page.evaluate(SHOWN)[0]
    assert last - first == 30
    page.keyboard.press("End")  # follows beyond the edge
    assert page.evaluate(SHOWN)[0] == [30, 60]
    page.keyboard.press("0")
    assert page.evaluate(SHOWN)[0] == [0, 60]
    page.keyboard.press("-")
    assert page.evaluate(SHOWN)[0] == [0, 60]


def test_every_control_is_reached_by_tab_and_has_a_name(show) -> None:
    page = show("one")
    for _ in range(400):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        page.evaluate("document.activeElement.dataset.reached = true")
    controls = "[...document.querySelectorAll('button, .plot, summary')]"
    visible = "e.checkVisibility({visibilityProperty: true})"
    assert page.evaluate(f"{controls}.filter(e => {visible} && !e.dataset.reached).map(e => e.outerHTML)") == []
    assert page.evaluate(f"{controls}.filter(e => !(e.ariaLabel || e.textContent.trim())).length") == 0
    assert page.evaluate(f"{controls}.filter(e => e.dataset.reached).length") > 20


def test_the_log_axis_is_switched(show) -> None:
    page = show("one")
    button = page.get_by_role("button", name="Step size used: logarithmic axis")
    scale = "[...plots].find(([figure]) => figure.innerText.startsWith('Step size used'))[1].scales.y.distr"
    assert (button.get_attribute("aria-pressed"), page.evaluate(scale)) == ("true", 3)
    button.click()
    assert (button.get_attribute("aria-pressed"), page.evaluate(scale)) == ("false", 1)
    assert not page.get_by_role("button", name="Gap of the averages: logarithmic axis").is_visible()


SMOOTHED = """[...plots.keys()]
    .filter(figure => getComputedStyle(figure.querySelector(".unit"), "::after").content != "none")
    .map(figure => figure.querySelector("h3").textContent)"""
JUMPS = """[...plots].filter(([figure]) => figure.innerText.startsWith("Loss and its averages"))
    .map(([_, plot]) => plot.data[1].slice(1).reduce((sum, y, at) => sum + Math.abs(y - plot.data[1][at]), 0))[0]"""


def test_losses_alone_are_smoothed_at_first_in_a_comparison(show) -> None:
    page = show("many")
    assert page.evaluate(SMOOTHED) == ["Training loss", "Loss and its averages"]
    page = show("one")
    assert page.evaluate(SMOOTHED) == []
    button, rough = page.get_by_role("button", name="Smooth losses"), page.evaluate(JUMPS)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate(SMOOTHED) == ["Loss", "Loss and its averages"]
    assert page.evaluate(JUMPS) < 0.99 * rough
    button.click()
    assert page.evaluate(JUMPS) == rough


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_light_and_dark(show, scheme: str, other: str) -> None:
    page = show("one", color_scheme=scheme)
    back = "getComputedStyle(document.body).backgroundColor"
    backs = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}
    assert page.evaluate(back) == backs[scheme]
    stroke = page.evaluate("colours.c0")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(back) == backs[other]
    assert page.evaluate("colours.c0") != stroke


@pytest.mark.parametrize("name", ["one", "many"])
def test_a_phone_needs_no_sideways_scrolling(show, name: str) -> None:
    page = show(name, viewport={"width": 360, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_charts_follow_the_window(show) -> None:
    page = show("one")
    width = "plots.values().next().value.width"
    wide = page.evaluate(width)
    page.set_viewport_size({"width": 340, "height": 700})
    wait_until(page, lambda: page.evaluate(width) < wide)
    assert page.evaluate("document.documentElement.scrollWidth") <= 340


def test_print_shows_every_chart_on_white_and_gives_the_page_back(show, tmp_path: Path) -> None:
    page = show("one", color_scheme="dark")
    page.evaluate("addEventListener('beforeprint', () => (window.printed = [plots.size, theme()]))")
    pdf = page.pdf(path=tmp_path / "report.pdf")
    assert pdf.startswith(b"%PDF")
    assert page.evaluate("printed") == [page.locator("figure").count(), "light"]
    assert page.evaluate("theme()") == "dark"
    assert page.locator("main > details:not([open])").count() > 0
