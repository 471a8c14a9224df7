"""Running clicks: rows without squared errors, the kind in the manifest, a table by AUC, negatives from an option."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from click.testing import CliRunner

import fewrec
from fewrec.cli import main
from fewrec.data.own import load_own
from fewrec.runner.records import cell_figures

LEARNERS = ["item-popularity", "bias", "user-mean"]


def test_score_rows_of_clicks_have_no_squared_errors_and_the_manifest_says_the_kind(tiny_suite, click_data, tmp_path):
    out = tmp_path / "out"
    results = fewrec.run(str(tiny_suite), data=click_data, out=out, learners=LEARNERS, seeds=[0], shots=[2])
    assert json.loads((out / "manifest.json").read_text())["datasets"]["tiny"]["kind"] == "clicks"
    assert set(results.cells["kind"]) == {"clicks"} and not {"se", "ae"} & set(results.scores.columns)
    frame = results.leaderboard
    assert frame["auc"].is_monotonic_decreasing and frame[["rmse", "mae", "diff_bias"]].isna().all(axis=None)
    baseline = frame.set_index("label").loc["item-popularity", "auc"]
    np.testing.assert_allclose(frame["skill"].astype(float), 1 - (1 - frame["auc"]) / (1 - baseline), atol=1e-12)
    for folder in (out / "cells").iterdir():
        assert {"rmse", "mae"}.isdisjoint(cell_figures(folder)) and "auc" in cell_figures(folder)


def test_the_same_data_as_ratings_have_errors_and_say_so(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=out, learners=["bias"], seeds=[0], shots=[2])
    assert json.loads((out / "manifest.json").read_text())["datasets"]["tiny"]["kind"] == "ratings"
    assert results.scores[["se", "ae"]].notna().all(axis=None) and results.leaderboard["rmse"].notna().all()
    (folder,) = (out / "cells").iterdir()
    assert {"rmse", "mae", "auc"} <= set(cell_figures(folder))


def test_a_log_of_clicks_alone_runs_from_the_command_line_with_negatives(tiny_suite, click_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = click_data.table
    rows = pd.DataFrame({"user": table.user, "item": table.item, "click": table.rating})
    rows[rows["click"] == 1].astype(int).to_csv("log.csv", index=False)
    arguments = ["run", str(tiny_suite), "--data", "log.csv", "--learner", "item-popularity,bias", "--shots", "2",
                 "--seed", "0", "--threads", "1", "--out", "out"]  # fmt: skip
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code != 0 and "--negatives R" in refused.output
    done = CliRunner().invoke(main, [*arguments, "--negatives", "2"])
    assert done.exit_code == 0, done.output
    assert "2 for each click" in done.output and "AUC" in done.stdout and "RMSE" not in done.stdout
    manifest = json.loads(Path("out/manifest.json").read_text())["datasets"]["log"]
    assert manifest["kind"] == "clicks" and any("seed 0" in note for note in manifest["notes"])


def test_news_clicks_give_a_table_by_auc(tiny_suite, tmp_path, test_data):
    data = load_own(test_data / "bing-news-dkn" / "ratings.csv.gz", duplicates="last")
    assert data.kind == "clicks"
    results = fewrec.run(str(tiny_suite), data=data, out=tmp_path / "out", learners=LEARNERS, seeds=[0], shots=[2])
    frame = results.leaderboard.set_index("label")
    assert frame["rmse"].isna().all() and frame["auc"].between(0, 1).all() and frame.loc["user-mean", "auc"] == 0.5
    assert "one constant for each user" in frame.loc["user-mean", "warning"]
