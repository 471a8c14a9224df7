"""report.html in a real browser, headless Chromium, opened from disk: sorting, filtering, keyboard, narrow screens."""

import json
import re
import shutil
import tempfile
from contextlib import contextmanager

import pytest

from fewrec.report import load_results
from fewrec.report.page import write_page
from tests.report.conftest import TIMING, RunWriter, drawn_scores

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
selenium = pytest.importorskip("selenium", reason="selenium isn't installed")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver isn't installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

HOSTILE = "<script>window.hacked = 1</script>"
HOSTILE_IMAGE = '"><img src=x onerror="window.hacked=1">'
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
         "--force-prefers-reduced-motion", "--window-size=1280,900")  # fmt: skip
ROWS = """return [...document.querySelectorAll("#board tbody")].filter(b => !b.hidden).map(b => ({
  task: [b.dataset.protocol, b.dataset.k], rows: [...b.querySelectorAll("tr.row")].filter(r => !r.hidden).map(r => ({
    name: r.cells[0].dataset.v, values: [...r.cells].slice(1).map(c => c.dataset.v)}))}))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The report of a run of two states and two K, with names that want to be markup and rows without figures."""
    run = RunWriter(tmp_path_factory.mktemp("browser") / "run")
    manifest = run.path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"suite": {"title": HOSTILE}}))
    noises = (("bias", "bias", 1.0), ("user-mean", "user-mean", 1.3), ("gp", "gp", 0.8), ("knn", HOSTILE, 0.9),
              ("maml", HOSTILE_IMAGE, 1.1))  # fmt: skip
    for state in ("user-cold", "warm"):
        for k in (5, 10):
            for learner, label, noise in noises:
                run.cell(learner, drawn_scores(noise + k / 100, episodes=12), label=label, k_shot=k,
                         protocol={"state": state}, timing={} if learner == "gp" else TIMING)  # fmt: skip
            run.cell("broken", status="failed", reason=f"ValueError: {HOSTILE_IMAGE}", k_shot=k,
                     protocol={"state": state})  # fmt: skip
    results = load_results(run.path)
    return write_page(results, results.leaderboard, run.path.parent / "out")[0]


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests of this module."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        driver.set_page_load_timeout(120)
        driver.set_script_timeout(60)
        yield driver
        driver.quit()


@contextmanager
def screen(browser, width, height=844, **more):
    """Look at the page on a screen of this size: a window can't be as narrow as a phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics | more)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def opened(browser, page_file):
    """The browser with the page just loaded, its logs empty."""
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page_file.as_uri())
    wait(browser, lambda: "js" in browser.find_element(By.TAG_NAME, "html").get_attribute("class").split())
    return browser


def wait(browser, condition):
    return WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda _: condition())


def names(browser, task=0):
    return [row["name"] for row in browser.execute_script(ROWS)[task]["rows"]]


def head(browser, title):
    (found,) = [one for one in browser.find_elements(By.CSS_SELECTOR, "#board thead th")
                if one.get_attribute("textContent").strip() == title]  # fmt: skip
    return found


def count(browser):
    return browser.find_element(By.ID, "count").text


def test_nothing_is_requested_logged_or_run_that_isnt_the_page(opened, page_file):
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"}
    assert page_file.as_uri() in asked and all(url.startswith(("file:", "data:")) for url in asked), asked
    head(opened, "RMSE").find_element(By.TAG_NAME, "button").click()
    opened.find_element(By.ID, "all").click()
    assert opened.get_log("browser") == []
    assert opened.execute_script("return typeof window.hacked") == "undefined"
    assert opened.find_elements(By.CSS_SELECTOR, "img") == []
    assert len(opened.find_elements(By.TAG_NAME, "script")) == 1
    assert opened.find_element(By.CSS_SELECTOR, ".lead").text == HOSTILE
    assert {HOSTILE, HOSTILE_IMAGE} <= set(names(opened))


def test_what_isnt_the_pages_own_is_refused_by_its_policy(opened):
    opened.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 1\">');"
    )
    wait(opened, lambda: len([one for one in opened.get_log("browser") if "Content Security Policy" in one["message"]]))
    assert opened.execute_script("return typeof window.hacked") == "undefined"


def test_one_task_is_shown_at_first_sorted_by_its_metric(opened):
    (shown,) = opened.execute_script(ROWS)
    assert shown["task"] == ["user-cold", "10"]
    assert [row["name"] for row in shown["rows"]] == ["gp", HOSTILE, "bias", HOSTILE_IMAGE, "user-mean", "broken"]
    assert head(opened, "RMSE").get_attribute("aria-sort") == "ascending"
    assert count(opened) == "6 of 24 rows shown, 1 of 4 tasks, sorted by RMSE, ascending"


def test_a_click_on_a_head_sorts_by_its_numbers_and_another_click_turns_them_round(opened):
    column = head(opened, "RMSE")
    place = int(column.get_attribute("cellIndex")) - 1
    column.find_element(By.TAG_NAME, "button").click()
    assert column.get_attribute("aria-sort") == "descending"
    assert "sorted by RMSE, descending" in count(opened)
    rows = opened.execute_script(ROWS)[0]["rows"]
    values = [float(row["values"][place]) for row in rows[:-1]]
    assert values == sorted(values, reverse=True) and len(values) == 5
    assert rows[-1]["name"] == "broken"  # what has no figure is last, either way
    column.find_element(By.TAG_NAME, "button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert names(opened) == ["gp", HOSTILE, "bias", HOSTILE_IMAGE, "user-mean", "broken"]


def test_the_keyboard_sorts_too_by_the_better_end_first_and_missing_values_stay_last(opened):
    column = head(opened, "AUC")
    button = column.find_element(By.TAG_NAME, "button")
    opened.execute_script("arguments[0].focus()", button)
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert column.get_attribute("aria-sort") == "descending"  # more is better
    assert head(opened, "RMSE").get_attribute("aria-sort") == "none"
    place = int(column.get_attribute("cellIndex")) - 1
    values = [float(row["values"][place]) for row in opened.execute_script(ROWS)[0]["rows"][:-1]]
    assert values == sorted(values, reverse=True)
    adapt = head(opened, "adapt ms")
    opened.execute_script("arguments[0].focus()", adapt.find_element(By.TAG_NAME, "button"))
    for order in ("ascending", "descending"):
        opened.switch_to.active_element.send_keys(Keys.SPACE)
        assert adapt.get_attribute("aria-sort") == order
        assert names(opened)[-2:] == ["gp", "broken"]  # gp wasn't timed


def test_numbers_are_sorted_as_numbers_in_every_column_and_task(opened):
    opened.find_element(By.ID, "all").click()
    columns = opened.find_elements(By.CSS_SELECTOR, "#board thead th.number")
    assert len(columns) > 8
    for column in columns:
        place = int(column.get_attribute("cellIndex")) - 1
        opened.execute_script("arguments[0].click()", column.find_element(By.TAG_NAME, "button"))
        sign = -1 if column.get_attribute("aria-sort") == "descending" else 1
        for group in opened.execute_script(ROWS):
            said = [row["values"][place] if len(row["values"]) > place else None for row in group["rows"]]
            values = [float(value) for value in said if value]
            assert values == sorted(values, key=lambda value: sign * value) and values
            assert not any(said[len(values) :])


def test_selectors_choose_the_tasks_in_the_table_and_in_the_plots(opened):
    visible = "return [...document.querySelectorAll('figure.card')].filter(f => !f.hidden).map(f => f.innerText)"
    Select(opened.find_element(By.CSS_SELECTOR, "select[data-field=protocol]")).select_by_visible_text("warm")
    Select(opened.find_element(By.CSS_SELECTOR, "select[data-field=k]")).select_by_visible_text("5")
    (shown,) = opened.execute_script(ROWS)
    assert shown["task"] == ["warm", "5"]
    plots = opened.execute_script(visible)
    assert len(plots) > 4 and not [text for text in plots if "user-cold" in text.split("\n")[0]]
    assert any("warm" in text and "K=5" in text for text in plots)
    assert not any("K=10" in text.split("\n")[0] for text in plots)
    opened.find_element(By.ID, "all").click()
    assert len(opened.execute_script(ROWS)) == 4 and len(opened.execute_script(visible)) > 2 * len(plots)
    assert count(opened).startswith("24 of 24 rows shown, 4 of 4 tasks")


def test_text_filters_rows_also_by_reason_and_the_live_region_says_how_many_are_left(opened):
    region = opened.find_element(By.ID, "count")
    assert region.get_attribute("aria-live") == "polite" and region.get_attribute("role") == "status"
    field = opened.find_element(By.ID, "filter")
    field.send_keys("valueERROR")
    wait(opened, lambda: names(opened) == ["broken"])
    assert count(opened).startswith("1 of 24 rows shown, 1 of 4 tasks")
    field.send_keys(" no such row")
    wait(opened, lambda: count(opened).startswith("0 of 24 rows shown, 0 of 4 tasks"))
    assert opened.execute_script(ROWS) == []
    field.send_keys(Keys.CONTROL + "a", Keys.DELETE)
    wait(opened, lambda: count(opened).startswith("6 of 24 rows shown"))


def test_trivial_rows_can_be_hidden_with_the_keyboard(opened):
    box = opened.find_element(By.ID, "trivial")
    opened.execute_script("arguments[0].focus()", box)
    box.send_keys(Keys.SPACE)
    assert names(opened) == ["gp", HOSTILE, HOSTILE_IMAGE, "broken"]
    box.send_keys(Keys.SPACE)
    assert len(names(opened)) == 6


def test_the_tab_key_reaches_every_control_in_reading_order_and_shows_where_it_is(opened):
    wanted = ["a.skip", "nav a", "select", "#all", "#filter", "#trivial", "#board thead button", "summary"]
    opened.execute_script("document.body.focus()")
    reached, outlined = [], []
    for _ in range(60):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        one, outline = opened.execute_script(
            "const e = document.activeElement, all = arguments[0]; return [all.findIndex(s => e.matches(s)),"
            " getComputedStyle(e).outlineStyle]", wanted,
        )  # fmt: skip
        reached.append(one)
        outlined.append(outline)
        if one == len(wanted) - 1:
            break
    order = [one for one in dict.fromkeys(reached) if one >= 0]
    assert order == list(range(len(wanted))), reached
    assert all(style not in ("none", "") for style in outlined)


def test_a_screen_reader_gets_a_name_for_every_plot_table_control_and_region(opened):
    opened.find_element(By.ID, "all").click()
    tree = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node.get("role", {}).get("value"), node.get("name", {}).get("value", "").strip()) for node in tree
             if not node.get("ignored")]  # fmt: skip
    for role in ("image", "figure", "table", "button", "searchbox", "combobox", "checkbox", "region", "columnheader"):
        of_role = [name for found, name in named if found in (role, {"image": "img"}.get(role))]
        if role == "table":  # those of numbers stand in a region that has a name
            of_role = [name for name in of_role if name]
        assert of_role and all(of_role), (role, of_role)
    figures = [name for role, name in named if role == "figure"]
    assert len(set(figures)) == len(figures) > 10


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_but_tables_and_plots_scrolls_sideways_on_a_phone(opened, width):
    with screen(opened, width, mobile=True):
        assert opened.execute_script("return innerWidth") == width
        opened.execute_script("document.getElementById('all').click()")
        widest, overflowing = opened.execute_script(
            "return [document.documentElement.scrollWidth, [...document.querySelectorAll('body *')].filter(e =>"
            " !e.closest('.scroll, .sr, .skip') && e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.tagName + '.' + e.className)]"
        )
        assert widest <= width and overflowing == []
        hint = opened.find_element(By.ID, "sideways")
        assert hint.is_displayed()  # says so
        board = opened.find_element(By.CSS_SELECTOR, ".scroll.board")
        assert board.get_attribute("tabindex") == "0" and "more" in board.get_attribute("class").split()
        opened.execute_script("arguments[0].scrollLeft = 1e6", board)
        wait(opened, lambda: "more" not in board.get_attribute("class").split())
        first = opened.find_element(By.CSS_SELECTOR, "#board tbody tr.row:not([hidden]) th")
        assert first.rect["x"] < 40  # the learner's name stays in view
        small = opened.execute_script(
            "return [...document.querySelectorAll('a:not(.skip), button, select, input, summary')].filter(e =>"
            " e.offsetParent && Math.max(e.offsetHeight, e.parentNode.tagName === 'LABEL' ? e.parentNode.offsetHeight"
            " : 0) < 24).map(e => e.outerHTML.slice(0, 80))"
        )
        assert small == []  # WCAG 2.2, target size


def test_without_javascript_everything_is_there(browser, page_file):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page_file.as_uri())
        rows = browser.find_elements(By.CSS_SELECTOR, "#board tr.row")
        assert len(rows) == 24 and all(row.is_displayed() for row in rows)
        figures = browser.find_elements(By.CSS_SELECTOR, "figure.card")
        assert len(figures) > 10 and all(figure.is_displayed() for figure in figures)
        for name in ("chooser", "controls"):
            assert not browser.find_element(By.ID, name).is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_plots_are_as_wide_as_their_card_and_their_numbers_open(opened):
    summary = opened.find_element(By.CSS_SELECTOR, "figure.card:not([hidden]) summary")
    opened.execute_script("arguments[0].scrollIntoView()", summary)
    summary.send_keys(Keys.ENTER)
    figure = opened.find_element(By.CSS_SELECTOR, "figure.card:not([hidden])")
    assert figure.find_element(By.CSS_SELECTOR, "details table").is_displayed()
    assert re.search(r"\d\.\d{4}", figure.find_element(By.CSS_SELECTOR, "details").text)
    sizes = opened.execute_script(
        "return [...document.querySelectorAll('figure.card:not([hidden]) svg.chart')].map(s => "
        "[s.getBoundingClientRect().width, s.closest('.plot').clientWidth])"
    )
    assert sizes and all(300 < own <= around + 1 for own, around in sizes), sizes
