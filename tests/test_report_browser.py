"""The report in a real browser: no message, and its figures, tables and sliders answer a reader.

Needs Chromium and the package `playwright` in the environment that runs the tests; its own browser is not needed.
"""

import json
import math
import re
import shutil

import pandas as pd
import pytest
from helpers.simulated import write_sweep
from helpers.staged import write_staged

from lmscale.core.files import write_json
from lmscale.core.plans import read_plan
from lmscale.study import report
from lmscale.study.plots import power

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 180_000  # a busy machine may take long to load a page
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs chromium")]
playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), points=20)
    for run in read_plan(folder)[1]:
        write_json(folder / run.config.run_id / "config.json", run.config.to_json())
    return report.of_sweep(folder, resamples=100)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, written):
    """Opens the page in a window of its own; afterwards no window has had a message."""
    messages, contexts = [], []

    def open_page(**settings):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **settings})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.append(request.url) if "report.html" not in request.url else None)
        page.goto(written.as_uri())
        page.wait_for_selector("figure.is-live canvas")
        page.wait_for_timeout(300)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []


def data_of(page):
    return json.loads(page.locator("#page-data").text_content())


def ink_of(page, figure):
    """How many pixels of a figure's first canvas are drawn."""
    return page.evaluate(
        """(name) => {
          const canvas = document.querySelector(`figure[data-chart=${name}] canvas`);
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
          copy.drawImage(canvas, 0, 0);
          const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
          let drawn = 0;
          for (let i = 3; i < data.length; i += 4) if (data[i] > 0) drawn += 1;
          return drawn;
        }""",
        figure,
    )


def point_at(page, figure, run):
    """Moves the pointer to a run of a figure's first panel; arrow keys find it, the ring and the tip follow."""
    chart = page.locator(f"figure[data-chart={figure}] .canvas").first
    chart.scroll_into_view_if_needed()
    chart.focus()
    for _ in range(200):
        page.keyboard.press("ArrowRight")
        if run in chart.locator(".tip").inner_text():
            return chart
    raise AssertionError(f"no arrow key reaches {run}")


def test_every_figure_is_drawn_in_place_of_its_picture(opened):
    page = opened()
    for name in data_of(page)["charts"]:
        assert ink_of(page, name) > 3000
        assert page.locator(f"figure[data-chart={name}] .drawn").is_hidden()


def test_the_pointer_finds_a_run_and_a_click_goes_to_its_row_and_command(opened):
    page = opened()
    chart = page.locator("figure[data-chart=valleys] .canvas").first
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    spot = None
    for x in range(4, int(box["width"]), 6):
        for y in range(4, int(box["height"]), 12):
            page.mouse.move(box["x"] + x, box["y"] + y)
            if chart.locator(".tip").is_visible() and "loss" in chart.locator(".tip").inner_text():
                spot = (box["x"] + x, box["y"] + y)
                break
        if spot:
            break
    text = chart.locator(".tip").inner_text()
    run = text.split()[0]
    record = data_of(page)["runs"][run]
    assert f"loss {record['loss']:.4f}" in text and "rate" in text and "C " in text
    page.mouse.click(*spot)
    row = page.locator(f'tr[data-run="{run}"]')
    assert "chosen" in row.get_attribute("class")
    assert record["command"] in page.locator("tr.command").inner_text()
    assert row.evaluate(
        "row => { const box = row.getBoundingClientRect(); return box.top > 0 && box.top < innerHeight }"
    )
    page.get_by_role("button", name="back to the figure").click()
    assert chart.evaluate("one => one === document.activeElement")


def test_arrow_keys_go_from_run_to_run(opened):
    page = opened()
    run = next(iter(data_of(page)["runs"]))
    chart = point_at(page, "valleys", run)
    assert run in chart.locator(".tip").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("tr.chosen").get_attribute("data-run") == run


def test_a_choice_of_a_budget_leaves_its_valley_alone(opened):
    page = opened()
    before = ink_of(page, "valleys")
    page.locator("figure[data-chart=valleys] select").select_option("3×10¹¹")
    page.wait_for_timeout(200)
    assert ink_of(page, "valleys") < before


def test_a_drag_zooms_and_the_whole_comes_back(opened):
    page = opened()
    figure = page.locator("figure[data-chart=loss]")
    figure.scroll_into_view_if_needed()
    box = figure.locator(".u-over").bounding_box()
    before = figure.locator("canvas").screenshot()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 160, steps=5)
    page.mouse.up()
    page.mouse.move(box["x"] - 30, box["y"] - 30)
    page.wait_for_timeout(200)
    assert figure.locator("canvas").screenshot() != before
    figure.get_by_role("button", name="show the whole figure").click()
    page.wait_for_timeout(200)
    assert figure.locator("canvas").screenshot() == before


def test_the_slider_moves_every_number_to_those_of_its_budget(opened):
    page = opened()
    explored = data_of(page)["explore"]
    slider = page.locator("#explore-slider")
    for position in (0, len(explored["flops"]) - 1):
        slider.evaluate("(one, to) => { one.value = to; one.dispatchEvent(new Event('input')) }", str(position))
        assert page.locator("#explore output").inner_text() == f"{power(explored['flops'][position])} FLOPs"
        loss = explored["approaches"]["3"]["quantities"]["loss_nats"]
        assert page.locator('[data-cell="3:loss_nats:centre"]').inner_text() == f"{loss['centre'][position]:.4f}"
        low, high = loss["intervals"]["0.95"][position]
        assert page.locator('[data-cell="3:loss_nats:0.95"]').inner_text() == f"{low:.4f} – {high:.4f}"
    assert "an extrapolation" in page.locator('[data-cell="3:beyond:"]').inner_text()


def test_a_slider_of_a_parameter_shows_the_optimum_there_and_the_others_go_back(opened):
    page = opened()
    moved = data_of(page)["sensitivity"]
    move = "(one, to) => { one.value = to; one.dispatchEvent(new Event('input')) }"
    page.locator("#parameter-alpha").evaluate(move, "0")
    page.locator("#parameter-beta").evaluate(move, "2")
    shown = page.locator('[data-cell="alone:loss_nats"]').inner_text()
    assert shown == f"{moved['parameters']['beta']['alone']['loss_nats'][2][0]:.4f}"
    assert page.locator("#parameter-alpha").input_value() == str(moved["start"])


def test_tables_sort_by_their_numbers_filter_and_are_copied(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    table = page.locator("table", has=page.locator("tr[data-run]"))
    heads = [head.inner_text() for head in table.locator("th").all()]
    column = next(index for index, head in enumerate(heads) if head.startswith("N"))
    table.locator("th button").nth(column).click()
    cells = table.locator(f"tbody td:nth-child({column + 1})").all()
    values = [float(cell.get_attribute("data-value")) for cell in cells
              if cell.get_attribute("data-value")]  # fmt: skip
    assert values == sorted(values)
    table.locator("th button").nth(column).click()
    assert table.locator("th").nth(column).get_attribute("aria-sort") == "descending"
    wide = table.locator("xpath=ancestor::div[contains(@class, 'wide')]")
    tools = wide.locator("xpath=preceding-sibling::div[contains(@class, 'controls')][1]")
    tools.locator("input").fill("held out")
    assert table.locator("tbody tr:visible").count() == 7
    tools.get_by_role("button", name="copy").click()
    page.wait_for_timeout(200)
    assert tools.get_by_role("button", name="copy").inner_text() == "copied"
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(lines) == 8 and lines[0].startswith("run,")


@pytest.mark.parametrize("width", [400, 1100])
def test_no_table_is_cut_without_a_word_and_the_page_is_as_wide_as_the_window(opened, width):
    page = opened(viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for wide in page.locator(".wide, .scroll").all():
        cut = wide.evaluate("one => one.scrollWidth > one.clientWidth + 1 && one.offsetParent !== null")
        hint = wide.evaluate("one => !one.previousElementSibling.hidden")
        assert cut == hint or not wide.is_visible()


def test_the_dark_theme_is_dark_and_the_button_changes_it(opened):
    page = opened(color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    assert max(map(int, re.findall(r"\d+", dark)[:3])) < 60
    page.locator("button.theme").click()
    assert min(map(int, re.findall(r"\d+", page.evaluate(ground))[:3])) > 240
    assert page.locator("button.theme").inner_text() == "theme: light"


def test_paper_has_the_pictures_in_place_of_the_charts_and_no_control(opened):
    page = opened()
    page.emulate_media(media="print")
    assert page.locator("figure .drawn").first.is_visible() and not page.locator("figure .panels").first.is_visible()
    assert not any(bar.is_visible() for bar in page.locator(".controls").all())
    page.emulate_media(media="screen")
    assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_without_scripts_the_page_says_the_same(browser, written):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written.as_uri())
    assert page.locator("figure .drawn svg").first.is_visible()
    assert "Over 19 fitted runs" in page.locator("main").text_content()
    context.close()


def test_axe_finds_nothing_serious(browser, written):
    """Accessibility by axe-core, in both themes and on a phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    for settings in ({}, {"color_scheme": "dark"}, {"viewport": {"width": 400, "height": 900}}):
        context = browser.new_context(**settings)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(written.as_uri())
        page.wait_for_selector("figure.is-live canvas")
        violations = axe.run(page).response["violations"]
        serious = {one["id"]: one["help"] for one in violations if one["impact"] in ("serious", "critical")}
        assert serious == {}
        context.close()


def test_a_page_of_several_stages_is_drawn_whole(browser, tmp_path):
    """Also on a phone: the figures of every stage, of repeats and of scores, no message, nothing serious for axe."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    written, messages = report.of_sweep(write_staged(tmp_path / "staged"), resamples=20), []
    context = browser.new_context(viewport={"width": 400, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(written.as_uri())
    page.wait_for_selector("figure.is-live canvas")
    names = list(data_of(page)["charts"])
    assert {"scores", "repeats", "fine-tune-loss", "fine-tune-valleys"} <= set(names)
    for name in names:
        assert ink_of(page, name) > 1000, name
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    violations = axe.run(page).response["violations"]
    assert {one["id"]: one["help"] for one in violations if one["impact"] in ("serious", "critical")} == {}
    context.close()
    assert messages == []


def test_panels_that_their_axes_do_not_tell_apart_have_their_titles(browser, tmp_path):
    rows = [(n, d, 6 * n * d, rate, 3 - 1e-7 * n + math.log(rate / 0.01) ** 2)
            for n in (1e5, 2e5) for d in (1e6, 4e6) for rate in (0.005, 0.01, 0.02)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["params", "tokens", "flops", "peak_lr", "loss_nats"])
    table.to_csv(tmp_path / "rates.csv", index=False)
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(report.of_table(tmp_path / "rates.csv", tmp_path / "out", resamples=0).as_uri())
    page.wait_for_selector("figure.is-live canvas")
    assert page.locator(".live .panel-title").all_inner_texts() == ["D = 1.00M", "D = 4.00M"]
    context.close()
