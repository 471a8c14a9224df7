"""report.html: one file that loads and runs nothing else, whatever text and gaps the results have."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import fewrec.report.page as page_module
from fewrec.cli import main
from fewrec.report import export_reference, load_results
from fewrec.report.leaderboard import leaderboard
from fewrec.report.page import page, write_page
from fewrec.report.plots import all_plots, render

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$x$",
    "</script><b>",
    "{{ 7 * 7 }}",
    "' onload='x",
)
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Reader(HTMLParser):
    """Collects elements, text in order, and where elements are left open."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.pieces, self.open, self.scripts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.pieces.append(data)
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append((self.open[-1], data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())

    @property
    def shown(self):
        code = [data for _, data in self.scripts]
        return " ".join("".join(piece for piece in self.pieces if piece not in code).split())


def page_of(path, interval="percentile"):
    results = load_results(path)
    frame = leaderboard(results, interval)
    return page(results, frame, render(all_plots(results, frame)))


def read(path):
    reader = Reader(page_of(path))
    assert not reader.open
    return reader


def edit_manifest(run, **changes):
    file = run.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def hostile_run(new_run, scores_of):
    """A run whose every text wants to be markup."""
    run = new_run()
    edit_manifest(
        run, name=HOSTILE[0], suite={"title": HOSTILE[1]}, command=f"fewrec run {HOSTILE[3]}",
        environment={"device": HOSTILE[0], "versions": {HOSTILE[1]: HOSTILE[3]}},
        datasets={HOSTILE[1]: {"sha256": "a", "licence": HOSTILE[0], "citation": HOSTILE[3], "homepage": HOSTILE[5],
                               "sources": {HOSTILE[4]: "c"}}},
    )  # fmt: skip
    for k in (1, 5):
        run.cell("bias", scores_of(1.0), dataset=HOSTILE[1], k_shot=k)
        for i, text in enumerate(HOSTILE):
            run.cell("mine", scores_of(0.5 + i / 10), label=text, dataset=HOSTILE[1], k_shot=k)
        run.cell("broken", status="failed", reason=HOSTILE[0], dataset=HOSTILE[1], k_shot=k)
        run.cell("absent", status="not applicable", reason=HOSTILE[1], dataset=HOSTILE[1], k_shot=k)
    return run


def test_hostile_text_is_shown_as_text_and_becomes_no_element_and_no_attribute(hostile_run):
    reader = read(hostile_run.path)
    for text in HOSTILE:
        assert text in reader.text, text
    assert not reader.all("img") and not reader.all("b")
    assert len(reader.all("script")) == 1 and len(reader.all("style")) == 1
    assert not [1 for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert not [1 for _, attributes in reader.elements if "style" in attributes]
    assert "49" not in re.split(r"\W+", reader.shown)  # no template is run


def test_hostile_text_in_plots_is_text_and_leaves_no_trace_in_the_names_of_files(hostile_run, tmp_path):
    results = load_results(hostile_run.path)
    page_file, plots = write_page(results, results.leaderboard, tmp_path / "out")
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.svg"))
    assert len(files) == len(plots) > 4
    assert all(re.fullmatch(r"out/plots/[a-z0-9][a-z0-9.-]*\.svg", file) for file in files), files
    for plot in plots:
        text = plot.read_text()
        assert "<script" not in text and "<img" not in text
    assert page_file.name == "report.html"


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(hostile_run):
    reader = read(hostile_run.path)
    (policy,) = [meta["content"] for meta in reader.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    (script,) = [data for tag, data in reader.scripts if tag == "script"]
    (style,) = [data for tag, data in reader.scripts if tag == "style"]
    for directive, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_the_page_loads_nothing(small_run):
    reader = read(small_run.path)
    for tag, attributes in reader.elements:
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value == "data:," or value.startswith("#"), (tag, name, value)
    (style,) = [data for tag, data in reader.scripts if tag == "style"]
    assert "url(" not in style and "@import" not in style


def test_links_lead_to_what_is_there_and_no_two_elements_share_an_id(small_run):
    reader = read(small_run.path)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = [attributes["href"][1:] for attributes in reader.all("a")]
    pointed += [attributes["aria-labelledby"] for _, attributes in reader.elements if "aria-labelledby" in attributes]
    assert len(pointed) > 10 and set(pointed) <= set(ids)


def test_every_plot_has_a_name_a_caption_its_finding_in_words_and_its_numbers(small_run):
    results = load_results(small_run.path)
    frame = results.leaderboard
    rendered = render(all_plots(results, frame))
    reader = Reader(page(results, frame, rendered))
    figures, charts = reader.all("figure"), [one for one in reader.all("svg") if one.get("role") == "img"]
    assert len(figures) == len(charts) == len(rendered) == len(reader.all("figcaption")) > 5
    for one, chart in zip(rendered, charts, strict=True):
        assert chart["aria-label"] and chart["aria-label"] in {other.plot.alt for other in rendered}
        assert " ".join(one.plot.alt.split()) in reader.text
        assert " ".join(one.plot.caption.split()) in reader.text
        assert all(value in reader.text for row in one.plot.rows for value in row)


def test_the_same_results_give_the_same_bytes(small_run, tmp_path):
    for name in ("one", "two"):
        results = load_results(small_run.path)
        write_page(results, leaderboard(results), tmp_path / name)
    first, second = (
        {file.relative_to(tmp_path / name): file.read_bytes() for file in sorted((tmp_path / name).rglob("*.*"))}
        for name in ("one", "two")
    )
    assert len(first) > 10 and first == second


def test_a_run_and_the_reference_made_of_it_show_the_same_figures(small_run, tmp_path):
    export_reference(small_run.path, tmp_path / "reference")

    def tables(path):
        results = load_results(path)
        frame = leaderboard(results)
        rendered = render(all_plots(results, frame))
        text = page(results, frame, rendered)
        board = re.search(r'<table id="board">.*?</table>', text, re.DOTALL).group()
        return board, [(one.plot.title, one.plot.alt, one.plot.rows) for one in rendered]

    assert tables(small_run.path) == tables(tmp_path / "reference")


def test_the_table_holds_the_figures_of_the_leaderboard(small_run):
    frame = load_results(small_run.path).leaderboard
    reader = read(small_run.path)
    for row in frame[frame["status"] == "ok"].to_dict("records"):
        assert f"{row['rmse']:.4f}" in reader.text and f"{row['rmse_low']:.3f} to {row['rmse_high']:.3f}" in reader.text
        assert {"data-v": repr(float(row["rmse"]))} in reader.all("td")
    assert "failed: ValueError: a | b second line" in reader.text
    assert "not applicable: toy has no item text" in reader.text


def one_task_one_row(run, scores_of):
    run.cell("mine", scores_of(1.0))


def only_failed(run, scores_of):
    run.cell("broken", status="failed", reason="ValueError: no")


def no_cells(run, scores_of):
    (run.path / "cells").mkdir()


def clicks(run, scores_of):
    for k in (1, 5):
        for learner, noise in (("item-popularity", 2.0), ("mine", 0.5)):
            run.cell(learner, scores_of(noise).drop(columns=["se", "ae", "ndcg5"]), k_shot=k)


def one_user(run, scores_of):  # no interval over users
    for k in (1, 5):
        for learner in ("bias", "mine", "other"):
            run.cell(learner, scores_of(1.0, episodes=2, n_users=1, pool=1), k_shot=k)


def untimed(run, scores_of):
    for learner in ("bias", "mine"):
        run.cell(learner, scores_of(0.5), timing={})


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (one_task_one_row, "mine is best, RMSE"),
        (only_failed, "No row has figures yet."),
        (no_cells, "There is no finished cell yet."),
        (clicks, "AUC against K"),
        (one_user, "RMSE against K"),
        (untimed, "RMSE"),
    ],
)
def test_a_page_is_made_of_whatever_is_there_and_shows_no_nan(new_run, scores_of, write, said):
    run = new_run()
    write(run, scores_of)
    reader = read(run.path)
    assert said in reader.text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", reader.shown)


def test_missing_intervals_are_left_out_not_written_as_nan(small_run):
    results = load_results(small_run.path)
    frame = results.leaderboard.copy()
    ends = [name for name in frame if name.endswith(("_low", "_high"))]
    frame[ends] = np.nan
    rendered = render(all_plots(results, frame))
    text = page(results, frame, rendered)
    shown = Reader(text).shown
    assert len(ends) > 4 and not re.search(r"\bnan\b", shown.lower()) and f"{frame['rmse'].min():.4f}" in shown


def test_without_matplotlib_the_tables_are_written_and_one_line_says_how_to_get_it(small_run, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(main, ["report", str(small_run.path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("error:")]
    assert "pip install 'fewrec[report]'" in line and "Traceback" not in result.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "leaderboard.md", "leaderboard.csv", "leaderboard.tex", "leaderboard.json",
    }  # fmt: skip


def test_the_command_writes_tables_page_and_plots_and_says_where(small_run, tmp_path):
    result = CliRunner().invoke(main, ["report", str(small_run.path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    plots = list((tmp_path / "out" / "plots").iterdir())
    assert {file.suffix for file in plots} == {".svg", ".png"}
    assert f"Plots: {len(plots) // 2} as SVG and PNG in {tmp_path / 'out' / 'plots'}" in result.output
    assert f"Page: {tmp_path / 'out' / 'report.html'}" in result.output


def test_no_plots_means_only_tables(small_run, tmp_path):
    result = CliRunner().invoke(main, ["report", str(small_run.path), "--out", str(tmp_path / "out"), "--no-plots"])
    assert result.exit_code == 0
    assert not (tmp_path / "out" / "plots").exists() and not (tmp_path / "out" / "report.html").exists()


def test_the_kind_of_interval_is_named(small_run):
    assert "BCa bootstrap over users" in page_of(small_run.path, "bca")
    assert "percentile bootstrap over users" in page_of(small_run.path)


def contrast(first, second):
    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])  # light, dark
def test_text_contrasts_with_every_ground_that_it_stands_on(scheme):
    style = (Path(page_module.__file__).parent / "templates" / "page.css").read_text()
    blocks = re.findall(r":root\s*\{([^}]*)\}", style)
    colors = dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6})", blocks[scheme]))
    for ground in ("page", "panel", "shade", "best"):
        for text in ("ink", "soft", "accent", "warn", "bad"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
        assert contrast(colors["focus"], colors[ground]) >= 3, ground  # what isn't text
        assert contrast(colors["strong-line"], colors[ground]) >= 3, ground


def test_a_task_is_chosen_at_first_by_values_that_exist(small_run):
    reader = read(small_run.path)
    options = [one for one in reader.all("option") if "selected" in one]
    bodies = [one for one in reader.all("tbody") if "data-k" in one]
    assert len(bodies) == 2 and [one["value"] for one in options] == ["=10"]
    assert pd.Series([one["data-k"] for one in bodies]).tolist() == ["5", "10"]
