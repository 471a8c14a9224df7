"""Names, reasons, titles and ids that want to be markup or formulas stay text, in every format that fewrec writes.

The page's escapes are in tests/report/test_page.py, LaTeX's (with pdflatex) in test_latex.py; here is what is beside.
"""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fewrec.report import export_reference, load_results, write_leaderboard
from fewrec.report.curves import KEYS, curves_csv, curves_of
from fewrec.report.latex import latex
from fewrec.report.markdown import markdown
from fewrec.report.numbers import csv_field, guarded, markdown_text, unguarded

FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "=HYPERLINK(\"https://evil.invalid\",\"x\")", "=cmd|'/C calc'!A0", "\t=1",
    "\r=1", " =1", "＝1+1", "＋1", "－a", "＠a", "'=1", "''=1", "\n=1", "-", "--", "\t", "+a", "-5+6", "- 5",
]  # fmt: skip
MARKUP = [
    "[a](javascript:alert(1))", "![a](https://evil.invalid/x.png)", "<script>window.hacked=1</script>", "a | b | c",
    "`code`", "<img src=x onerror=window.hacked=1>", "[a]: https://evil.invalid", "&lt;b&gt;", "<https://evil.invalid>",
    "x`\r\r<script>window.hacked=1</script>\r\r`", "a\n\n# b", "a\u2028<b>", "**b**", "]()[",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_in_a_table_is_text(text):
    written = guarded(text)
    assert written == f"'{text}" and unguarded(written) == text
    (cell, _) = next(csv.reader([f"{csv_field('label', text)},end"]))
    assert cell.startswith("'") or not cell


@pytest.mark.parametrize("text", ["-5", "+3", "-1.5e3", "5", "a=1", "it's", "'tis", "", "user-cold", ".5", "-.5"])
def test_numbers_and_plain_text_stay_as_they_are(text):
    assert guarded(text) == text and unguarded(text) == text


@given(st.text(alphabet=st.sampled_from(list("'=+-@\t\r\n a1.e＝")), max_size=8) | st.text(max_size=20))
def test_every_text_is_read_back_as_it_was(text):
    written = guarded(text)
    assert unguarded(written) == text
    bare = written.lstrip()
    assert not bare.startswith(("=", "@", "＝")) and (not bare.startswith(("+", "-")) or float(bare) is not None)


def test_learning_curves_of_any_name_are_read_back(small_run, tmp_path):
    values = {"dataset": "=1+1", "state": "@a", "seed": 0, "learner": "+x", "configuration": "-ab", "step": 3}
    frame = pd.DataFrame([values | {"validation_rmse": -0.5, "=loss": -1.0}])
    export_reference(small_run.path, tmp_path / "reference")
    content = curves_csv(frame)
    (tmp_path / "reference" / "curves.csv").write_bytes(content)
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert rows[0][-1] == "'=loss" and rows[1][:2] == ["'=1+1", "'@a"] and rows[1][-2:] == ["-0.5", "-1"]
    found = curves_of(load_results(tmp_path / "reference"))
    assert found[KEYS].to_dict("records") == [values] and found["=loss"].tolist() == [-1.0]


def test_the_predictions_of_a_fine_tuned_model_hold_no_formula():
    from types import SimpleNamespace

    from fewrec.data.table import Scale
    from fewrec.finetune.api import _predictions

    pairs = SimpleNamespace(item_ids=["=1+1", "-5"], user_ids=["@a", "b"], scale=Scale(1, 5, 1),
                            test=SimpleNamespace(item=np.array([0, 1]), user=np.array([0, 1])))  # fmt: skip
    rows = list(csv.reader(io.StringIO(_predictions(pairs, np.array([4.0, 9.0])).decode())))
    assert rows == [["item", "user", "prediction"], ["'=1+1", "'@a", "4.0"], ["-5", "b", "5.0"]]


@pytest.mark.parametrize("text", MARKUP)
def test_no_text_becomes_markdown(text):
    shown = markdown_text(text)
    page = f"| a | b |\n| --- | --- |\n| {shown} | c |\n\n# {shown}\n\n- x{shown}\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(page)
    kinds = {token.type for token in tokens} | {c.type for token in tokens for c in token.children or ()}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "code_inline", "strong_open", "fence"}, kinds
    assert [token.type for token in tokens].count("td_open") == 2


@pytest.fixture
def hostile(new_run, scores_of):
    """A run in which every text that a person may choose is hostile."""
    run = new_run()
    run.cell("bias", scores_of(1.0))
    for number, text in enumerate([*FORMULAS, *MARKUP]):
        run.cell("mine", scores_of(0.9 + number / 100), label=f"{text}{number}")
    for text in MARKUP:
        run.cell("broken", label=text, status="failed", reason=text)
    file = run.path / "manifest.json"
    manifest = json.loads(file.read_text())
    data = manifest["datasets"]["toy"]
    data |= {"licence": MARKUP[2], "citation": MARKUP[0], "homepage": "javascript:window.hacked=1", "notes": MARKUP,
             "sources": {"javascript:alert(1)": MARKUP[2]}}  # fmt: skip
    data |= {"sha256": MARKUP[9], "text_sha256": MARKUP[9]}
    manifest |= {
        "name": MARKUP[0],
        "command": MARKUP[9],
        "environment": {MARKUP[2]: MARKUP[2], "versions": {"a": MARKUP[2]}},
    }
    file.write_text(json.dumps(manifest))
    return run


def test_a_page_of_markdown_holds_no_element_and_no_link_but_its_own(hostile):
    results = load_results(hostile.path)
    text = markdown(results, results.leaderboard)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    flat = [c for token in tokens for c in (token, *(token.children or ()))]
    assert not {token.type for token in flat} & {"html_inline", "html_block", "link_open", "image", "fence"}
    assert "\r" not in text


def test_every_cell_of_the_tables_is_text_or_a_number(hostile):
    write_leaderboard(hostile.path)
    for row in csv.reader(io.StringIO((hostile.path / "leaderboard.csv").read_text())):
        for cell in row:
            if cell[:1] in tuple("=+-@＝＋－＠\t\r"):
                float(cell)
    tex = latex(load_results(hostile.path), load_results(hostile.path).leaderboard)
    assert "\\href" not in tex and "\\input" not in tex and tex.isascii()


def test_the_page_runs_no_script_and_follows_no_link_in_a_browser(hostile, tmp_path):
    browser_tests = pytest.importorskip("tests.report.test_browser", reason="selenium isn't installed")
    if not (browser_tests.CHROMIUM and browser_tests.DRIVER):
        pytest.skip("chromium or chromedriver isn't installed")
    from fewrec.report.page import write_page

    results = load_results(hostile.path)
    file, plots = write_page(results, results.leaderboard, tmp_path / "out")
    options = browser_tests.webdriver.ChromeOptions()
    options.binary_location = browser_tests.CHROMIUM
    for flag in (*browser_tests.FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    service = browser_tests.webdriver.ChromeService(browser_tests.DRIVER)
    driver = browser_tests.webdriver.Chrome(options=options, service=service)
    try:
        for address in (file, *plots[:2]):
            driver.get(address.as_uri())
            assert driver.execute_script("return window.hacked") is None
        driver.get(file.as_uri())
        for element in driver.find_elements("css selector", "summary, th button, a[href]"):
            driver.execute_script("arguments[0].click()", element)
        assert driver.execute_script("return window.hacked") is None
        links = driver.execute_script("return [...document.querySelectorAll('[href], [src]')].map(e => e.getAttribute("
                                      "'href') || e.getAttribute('src'))")  # fmt: skip
        assert all(link.startswith(("#", "data:")) for link in links), links
        assert driver.find_elements("css selector", "img, iframe, object, embed, form, base") == []
        assert "javascript:window.hacked=1" in driver.find_element("css selector", "body").get_attribute("textContent")
    finally:
        driver.quit()
