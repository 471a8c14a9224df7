"""Columns that only some rows fill: figures of the highest-rated items, calibration, latency of updates."""

import io

import numpy as np
import pytest
from rich.console import Console

import fewrec
from fewrec.metrics.statistics import percentile_interval, resampled_sums
from fewrec.report.comparison.text import markdown as comparison_markdown
from fewrec.report.latex import latex
from fewrec.report.leaderboard import COLUMNS
from fewrec.report.markdown import markdown
from fewrec.report.optional import optional_columns, top_names
from fewrec.report.page_table import shown_columns, table_groups
from fewrec.report.render import csv_text, json_value
from fewrec.report.results import load_results
from fewrec.report.row_text import row_lines
from fewrec.report.terminal import terminal_table
from tests.report.conftest import TIMING, drawn_scores


@pytest.fixture
def results(new_run):
    run = new_run("top")
    rng = np.random.default_rng(0)
    for learner, noise in (("bias", 1.0), ("gp", 0.5)):
        frame = drawn_scores(noise)
        for name in ("top5_precision", "top5_ndcg", "top5_mrr"):
            frame[name] = rng.random(len(frame))
        run.cell(learner, frame, top_at=5, timing={**TIMING, "update_ms": [1.0, 2.0, 3.0, 40.0]})
    return load_results(run.path)


def test_means_over_users_with_intervals_and_quantiles_of_updates(results):
    table = results.leaderboard.set_index("label")
    scores = results.scores.merge(results.cells[["cell", "label"]], on="cell")
    for name in ("top5_precision", "top5_ndcg", "top5_mrr"):
        mean = scores[scores["label"] == "gp"][name].mean()
        assert table.loc["gp", name] == pytest.approx(mean)
        assert table.loc["gp", f"{name}_low"] < mean < table.loc["gp", f"{name}_high"]
    assert table.loc["gp", "update_ms_p50"] == 2.5
    assert table.loc["gp", "update_ms_p95"] == pytest.approx(np.quantile([1, 2, 3, 40], 0.95))


def test_every_form_of_the_table_shows_them(results):
    frame = results.leaderboard
    heads = ["top-5 P@5", "top-5 nDCG@5", "top-5 MRR@5", "update ms", "update ms p95"]
    assert [column.head for column in optional_columns(frame)] == heads
    text = markdown(results, frame)
    value = frame.set_index("label").loc["gp", "top5_precision"]
    assert f"| {value:.4f} [" in text and "| 2.50 |" in text
    assert "relevant are the 5 highest-rated items of the query" in text
    assert {column.head for column in shown_columns(frame)} >= set(heads)
    assert latex(results, frame)


def test_ndcg_at_several_k_is_a_column_each_and_that_at_5_is_empty(new_run):
    run = new_run("two")
    frame = drawn_scores(1.0).rename(columns={"ndcg5": "ndcg3"}).assign(ndcg10=0.25)
    run.cell("bias", frame, ndcg_at=[3, 10])
    results = load_results(run.path)
    (row,) = results.leaderboard.to_dict("records")
    assert np.isnan(row["ndcg5"]) and row["ndcg3"] == pytest.approx(frame["ndcg3"].mean()) and row["ndcg10"] == 0.25
    assert row["ndcg3_low"] < row["ndcg3"] < row["ndcg3_high"]
    assert [column.head for column in optional_columns(results.leaderboard)] == ["nDCG@3", "nDCG@10"]
    assert f"| {row['ndcg3']:.4f} [" in markdown(results, results.leaderboard)


def test_tables_without_them_have_no_column_more(new_run):
    run = new_run("plain")
    run.cell("bias", drawn_scores(1.0))
    results = load_results(run.path)
    assert optional_columns(results.leaderboard) == []
    assert [name for name in results.leaderboard.columns if name not in COLUMNS] == []


def test_names_are_in_order_of_k_and_of_kind():
    names = ["top10_mrr", "top5_ndcg", "auc", "top5_precision", "topple"]
    assert top_names(names) == ("top5_precision", "top5_ndcg", "top10_mrr")


def test_published_rows_are_shown_with_their_source_and_a_suite_without_them_has_no_such_table(results):
    assert "Published figures" not in markdown(results, results.leaderboard)
    rows = [{"label": "A|B", "figures": {"P@5": 0.5345}, "source": "Doe 2020, table 2"},
            {"label": "C", "figures": {"MRR@5": 0.25}, "source": "Doe 2020"}]  # fmt: skip
    results.manifest["suite"] = {"title": "a suite", "published": rows}
    text = markdown(results, results.leaderboard)
    assert "| row | P@5 | MRR@5 | source |" in text
    other = {"256 windows": 0.72, "16 windows": 0.67, "AUC": 0.5}
    results.manifest["suite"]["published"] = [{"label": "x", "figures": other, "source": ""}]
    assert "| row | 16 windows | 256 windows | AUC | source |" in markdown(results, results.leaderboard)
    assert r"| A\|B | 0.5345 |  | Doe 2020, table 2 |" in text and "| C |  | 0.25 | Doe 2020 |" in text


def test_users_whom_limits_exclude_have_too_few_or_too_many_ratings(new_run):
    for name, limits, why in (("free", None, "too few ratings"), ("cut", [13, 100], "too few or too many ratings")):
        run = new_run(name)
        protocol = {"state": "user-cold", "k_max": 5} | ({"episode_ratings": limits} if limits else {})
        run.cell("bias", drawn_scores(1.0), protocol=protocol)
        results = load_results(run.path)
        assert f"3 excluded ({why})" in markdown(results, results.leaderboard)


# calibration


def calibrated(frame, density=-1.4, within=9, seed=0):
    """Return score rows with a log density of ``density`` a rating or so, and so many ratings in each interval."""
    noise = np.random.default_rng(seed).normal(size=len(frame))
    return frame.assign(log_density=frame["n"] * (density + 0.1 * noise), within90=within)


@pytest.fixture
def some_calibrated(new_run):
    """A task in which one row of three has a distribution, and a task without any."""
    run = new_run("calibrated")
    for k in (5, 10):
        run.cell("bias", drawn_scores(1.0), k_shot=k)
    run.cell("mf", drawn_scores(0.95), k_shot=5)
    for seed in (0, 1):
        run.cell("gp", calibrated(drawn_scores(0.9, seed=seed), seed=seed), k_shot=5, seed=seed)
    return load_results(run.path)


def test_calibration_is_over_all_ratings_with_intervals_over_users(some_calibrated):
    table = some_calibrated.leaderboard.set_index(["k_shot", "label"])
    scores = some_calibrated.scores[some_calibrated.scores["log_density"].notna()]
    row = table.loc[(5, "gp")]
    assert row["nlpd"] == pytest.approx(-scores["log_density"].sum() / scores["n"].sum())
    assert row["coverage90"] == pytest.approx(0.9)
    users = scores.groupby("user")[["log_density", "n"]].sum()  # the draws are those of the users of the table
    everyone = np.unique(some_calibrated.scores.loc[some_calibrated.scores["cell"].isin(
        some_calibrated.cells.loc[some_calibrated.cells["k_shot"] == 5, "cell"]), "user"])  # fmt: skip
    draws = resampled_sums(users.reindex(everyone, fill_value=0).to_numpy())
    low, high = percentile_interval(-draws[:, :1] / draws[:, 1:])
    assert (row["nlpd_low"], row["nlpd_high"]) == pytest.approx((low[0], high[0]))
    names = [f"{name}{end}" for name in ("nlpd", "coverage90") for end in ("", "_low", "_high")]
    assert table.drop(index=(5, "gp"))[names].isna().all(axis=None)
    assert [name for name in some_calibrated.leaderboard.columns if name not in COLUMNS] == names


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_every_form_shows_calibration_in_the_tasks_that_have_it_with_empty_cells_elsewhere(some_calibrated, kind):
    from fewrec.report.leaderboard import leaderboard

    frame = leaderboard(some_calibrated, kind)
    row = frame.set_index("label").loc["gp"]
    nlpd, cover = f"{row['nlpd']:.4f}", f"{row['coverage90']:.4f}"
    ends = f"[{row['nlpd_low']:.3f}, {row['nlpd_high']:.3f}]"
    with_it, without = markdown(some_calibrated, frame).split("K=10, Q=10")
    (head,) = [line for line in with_it.splitlines() if line.startswith("| learner | RMSE")]
    lines = {line.split(" |")[0].strip("|* "): line.split("|") for line in with_it.splitlines() if line[:1] == "|"}
    place = head.split("|").index(" NLPD [95 %] ")
    assert head.split("|")[place + 1] == " 90 % cover [95 %] " and " meta-fit s " in head.split("|")[place + 2]
    assert lines["gp"][place] == f" {nlpd} {ends} " and lines["gp"][place + 1].startswith(f" {cover} [")
    assert lines["mf"][place : place + 2] == ["  ", "  "]
    assert "NLPD" not in without.split("## Columns")[0] and "**NLPD**: mean over all" in without

    tables = latex(some_calibrated, frame).split("\\begin{table*}")
    assert "& skill & NLPD & cover & meta-fit s & adapt ms \\\\" in tables[1] and f"& {nlpd} & 0.900 &" in tables[1]
    assert "NLPD" not in tables[2] and "& predict ms" in tables[2]

    shown = io.StringIO()
    Console(file=shown, width=250, color_system=None).print(terminal_table(frame))
    with_it, without = shown.getvalue().split("K=10, Q=10")
    assert f"{nlpd}  {ends}" in with_it and cover in with_it and "NLPD" not in without
    narrow = io.StringIO()
    Console(file=narrow, width=80, color_system=None).print(terminal_table(frame))
    assert "skill" in narrow.getvalue() and "90 % cover, " in narrow.getvalue().split("No room for")[1]

    columns = shown_columns(frame)
    heads = [column.head for column in columns]
    assert heads.index("90 % cover") == heads.index("NLPD") + 1 == heads.index("meta-fit s") - 1
    assert columns[heads.index("NLPD")].ascending
    cells = [row["cells"][heads.index("NLPD")] for group in table_groups(some_calibrated, frame, columns)
             for row in group["rows"] if row["label"] == "gp"]  # fmt: skip
    assert [cell["text"] for cell in cells] == [nlpd] and cells[0]["small"].startswith(f"{row['nlpd_low']:.3f} to ")

    header, *csv = csv_text(frame).splitlines()
    assert header.endswith("nlpd,nlpd_low,nlpd_high,coverage90,coverage90_low,coverage90_high")
    assert sum(line.endswith(",,,,,,") for line in csv) == 3
    values = [one["nlpd"] for one in json_value(some_calibrated, frame)["rows"]]
    assert sorted(values, key=lambda v: v is None) == [round(row["nlpd"], 6), None, None, None]
    (line,) = row_lines(frame, "gp")
    assert f"NLPD {nlpd} {ends}, 90 % cover {cover} [" in line


def test_a_negative_nlpd_is_written_with_its_sign(new_run):
    run = new_run("sharp")
    run.cell("bias", drawn_scores(1.0))
    run.cell("gp", calibrated(drawn_scores(0.9), density=0.7))
    results = load_results(run.path)
    value = results.leaderboard.set_index("label").loc["gp", "nlpd"]
    assert value < 0 and f"| {value:.4f} [" in markdown(results, results.leaderboard)
    assert f"${value:.4f}$" in latex(results, results.leaderboard)


def test_cells_of_another_version_beside_new_ones_are_pooled_over_those_that_have_it(new_run):
    run = new_run("mixed")
    run.cell("bias", drawn_scores(1.0))
    run.cell("gp", calibrated(drawn_scores(0.9)), seed=0)
    run.cell("gp", drawn_scores(0.9, seed=1), seed=1)
    row = load_results(run.path).leaderboard.set_index("label").loc["gp"]
    assert row["coverage90"] == pytest.approx(0.9) and row["seeds"] == 2


def test_comparing_shows_the_difference_in_nlpd_where_both_have_it(new_run):
    for name, density in (("old", -1.4), ("new", -1.3), ("older", None)):
        run = new_run(name)
        scores = drawn_scores(0.9)
        run.cell("gp", scores if density is None else calibrated(scores, density=density))
        run.cell("bias", drawn_scores(1.0))
    old, new, older = (new_run(name).path for name in ("old", "new", "older"))
    rows = fewrec.compare(old, new).rows.set_index("label")
    assert rows.loc["gp", "nlpd_diff"] == pytest.approx(-0.1)
    assert rows.loc["gp", "nlpd_diff_low"] <= rows.loc["gp", "nlpd_diff"] <= rows.loc["gp", "nlpd_diff_high"]
    assert np.isnan(rows.loc["bias", "nlpd_diff"]) and rows.loc["bias", "verdict"] == "same bytes"
    assert "NLPD B − A" in comparison_markdown(fewrec.compare(old, new))
    plain = fewrec.compare(older, new)
    assert "nlpd_diff" not in plain.rows and set(plain.rows["verdict"]) == {"same bytes"}
