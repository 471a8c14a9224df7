"""Columns that only some suites fill: figures of the highest-rated items, latency of updates."""

import numpy as np
import pytest

from fewrec.report.latex import latex
from fewrec.report.leaderboard import COLUMNS
from fewrec.report.markdown import markdown
from fewrec.report.optional import optional_columns, top_names
from fewrec.report.page_table import shown_columns
from fewrec.report.results import load_results
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
