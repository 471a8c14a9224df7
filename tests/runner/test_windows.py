"""Running windows in time: score rows by user, AUC over all rows in the table, resuming, references, verifying."""

import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import fewrec
from fewrec.data.likes import likes_of
from fewrec.data.own import load_own
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.errors import FolderError, SuiteError
from fewrec.metrics.statistics import resampled_weights
from fewrec.report.comparison.integrity import check_integrity
from fewrec.report.export import export_reference
from fewrec.report.markdown import markdown
from fewrec.report.pooled import _of_row, pooled_figures
from fewrec.report.results import load_results
from fewrec.runner.cell import CellSpec
from fewrec.runner.frozen import export_suite
from fewrec.runner.score import score
from fewrec.runner.splits import split_of
from fewrec.runner.suite import parse_suite
from fewrec.runner.verify import verify

SUITE = """
title = "windows"
datasets = ["tiny"]
states = ["user-cold"]
n_users = 1
shots = 5
n_query = 1
seeds = [0, 1]
episodes = 80
block = 40
learners = ["user-mean", "bias", "item-popularity", "random"]

[protocol]
order = "time"
history = 5
likes_above = 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Ratings in a file of one's own, in no order, with ties of time."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        [(u, i) for u in range(40) for i in rng.choice(30, 15, replace=False)], columns=["user", "item"]
    )
    rows["rating"] = rng.integers(1, 6, len(rows))
    rows["timestamp"] = rng.integers(0, 20, len(rows))
    path = tmp_path_factory.mktemp("own") / "tiny.csv"
    rows.sample(frac=1, random_state=0).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def data(file):
    return load_own(file)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "windows.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def run(data, suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return fewrec.run(str(suite), data=data, out=out, progress=False)


def answers_of(results, data, cell):
    """Return (user, rating, prediction) of each window of a cell, from the sampler and from the stored predictions."""
    record = next(m for m in results.metadata if m["spec_hash"] == cell)
    spec = CellSpec.from_canonical(record["spec"])
    likes = likes_of(data, 3)
    sampler = EpisodeSampler.of(split_of(spec, {"tiny": likes}), spec.protocol)
    drawn = sampler.sample(0, spec.episodes, n_users=1, k_shot=5, n_query=1)
    files = sorted((results.path / "cells" / cell).glob("predictions-*.parquet"))
    prediction = pd.concat([pd.read_parquet(file) for file in files])["prediction"].to_numpy()
    return drawn.answers.table_user.numpy(), drawn.answers.rating.numpy(), prediction.round(9)


def test_the_table_has_auc_by_user_and_over_all_rows_as_scikit_learn_counts_them(run, data):
    frame = run.leaderboard.set_index("label")
    for label, of_row in run.cells.groupby("label"):
        pooled, by_user = [], []
        for cell in of_row["cell"]:
            user, truth, prediction = answers_of(run, data, cell)
            pooled.append(roc_auc_score(truth, prediction))
            own = run.scores[run.scores["cell"] == cell].set_index("user")
            assert sorted(own.index) == np.unique(user).tolist() and own["n"].sum() == 80
            for one in np.unique(user):
                rows = user == one
                both = len(np.unique(truth[rows])) == 2
                expected = roc_auc_score(truth[rows], prediction[rows]) if both else np.nan
                assert own.loc[one, "auc"] == pytest.approx(expected, abs=1e-12, nan_ok=True)
                by_user.append(expected)
        assert frame.loc[label, "auc_all"] == pytest.approx(np.mean(pooled), abs=1e-12)
        assert frame.loc[label, "auc"] == pytest.approx(np.nanmean(by_user), abs=1e-12)
    assert frame["rmse"].isna().all() and set(run.cells["kind"]) == {"clicks"}


def test_intervals_over_all_rows_are_those_of_resampled_users(run, data):
    cells = run.cells.sort_values("label")
    rows = [cells[cells["label"] == label] for label in ("bias", "user-mean")]
    found = pooled_figures(run.pairs, rows, against=1)
    users = np.unique(run.pairs["user"])
    weights = np.concatenate(list(resampled_weights(len(users), 0, 2000)))[:60]
    drawn = []
    for of_row in rows:
        samples = []
        for cell in of_row["cell"]:
            user, truth, prediction = answers_of(run, data, cell)
            each = [np.flatnonzero(user == one) for one in users]
            taken = [np.concatenate([np.tile(e, int(n)) for e, n in zip(each, w, strict=True)]) for w in weights]
            samples.append([roc_auc_score(truth[rows], prediction[rows]) for rows in taken])
        drawn.append(np.mean(samples, axis=0))
    by_cell = dict(iter(run.pairs.groupby("cell", sort=False)))
    for of_row, expected in zip(rows, drawn, strict=True):
        np.testing.assert_allclose(_of_row(by_cell, of_row, users, weights), expected, atol=1e-12)
    assert found.loc[1, "diff_all"] == 0 and found.loc[1, ["diff_all_low", "diff_all_high"]].eq(0).all()
    assert found.loc[0, "diff_all"] == pytest.approx(found.loc[0, "auc_all"] - found.loc[1, "auc_all"])
    low, value, high = found.loc[0, ["auc_all_low", "auc_all", "auc_all_high"]]
    assert low < value < high
    bca = pooled_figures(run.pairs, rows, interval="bca")
    assert (bca["auc_all_low"] < bca["auc_all"]).all() and "diff_all" not in bca


def test_user_mean_orders_as_the_share_of_likes_in_the_history(run, data):
    cell = run.cells.set_index("label").loc["user-mean", "cell"].iloc[0]
    user, truth, prediction = answers_of(run, data, cell)
    record = next(m for m in run.metadata if m["spec_hash"] == cell)
    spec = CellSpec.from_canonical(record["spec"])
    likes = likes_of(data, 3)
    sampler = EpisodeSampler.of(split_of(spec, {"tiny": likes}), spec.protocol)
    share = sampler.sample(0, 80, n_users=1, k_shot=5, n_query=1).support.rating.numpy().reshape(80, 5).mean(1)
    assert roc_auc_score(truth, prediction) == pytest.approx(roc_auc_score(truth, share), abs=1e-12)


def test_a_reference_has_the_table_of_its_run_and_no_prediction(run, tmp_path):
    export_reference(run.path, tmp_path / "reference")
    again = load_results(tmp_path / "reference")
    pd.testing.assert_frame_equal(again.leaderboard, run.leaderboard)
    text = markdown(again, again.leaderboard)
    assert "AUC, all rows" in text and "| share of all pairs" not in text and "likes: ratings above 3" in text
    assert check_integrity(again).problems == []
    pairs = pd.read_parquet(tmp_path / "reference" / "pairs.parquet")
    assert set(pairs.columns) == {"cell", "user", "other", "pairs", "right"}
    pairs.iloc[1:].to_parquet(tmp_path / "reference" / "pairs.parquet", index=False)
    assert "counts by pair of users" in str(check_integrity(load_results(tmp_path / "reference")).problems)
    broken = again.scores[again.scores["user"] != again.scores["user"].iloc[0]]
    broken.to_parquet(tmp_path / "reference" / "scores.parquet", index=False)
    assert set(load_results(tmp_path / "reference").cells["status"]) == {"incomplete"}


def test_a_run_that_lost_a_block_gives_the_same_bytes(run, data, suite, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(run.path, out)
    cell = run.cells.set_index("label").loc["bias", "cell"].iloc[0]
    for name in ("cell.json", "by-user.parquet", "pairs.parquet", "block-0001.parquet", "predictions-0001.parquet"):
        (out / "cells" / cell / name).unlink()
    again = fewrec.run(str(suite), data=data, out=out, progress=False)
    for name in ("by-user.parquet", "pairs.parquet"):
        assert (out / "cells" / cell / name).read_bytes() == (run.path / "cells" / cell / name).read_bytes()
    pd.testing.assert_frame_equal(again.scores, run.scores)


def test_cells_of_windows_and_of_likes_are_verified(run, file):
    found = verify(run.path, count=2, own={"data": str(file)})
    assert found.agrees and len(found.cells) == 2


def test_ratings_in_windows_have_errors_and_both_aucs(data, suite, tmp_path):
    text = SUITE.replace("likes_above = 3\n", "")
    (tmp_path / "rated.toml").write_text(text)
    results = fewrec.run(str(tmp_path / "rated.toml"), data=data, out=tmp_path / "out", learners=["bias"], seeds=[0],
                         progress=False)  # fmt: skip
    row = results.leaderboard.iloc[0]
    assert row["rmse"] > 0 and 0 < row["auc_all"] < 1 and row["episodes"] == 80


def test_too_many_episodes_are_said_before_the_run(data, suite, tmp_path):
    with pytest.raises(SuiteError, match="100000 episodes, but there are 80 windows of meta-test"):
        fewrec.run(str(suite), data=data, out=tmp_path / "out", episodes=100_000, progress=False)


def test_windows_are_not_exported_and_likes_are(data, suite, tmp_path):
    with pytest.raises(SuiteError, match="protocol.history: windows in time can't be exported"):
        export_suite(str(suite), tmp_path / "frozen", data=data)
    (tmp_path / "likes.toml").write_text(
        SUITE.replace("history = 5\n", "")
        .replace("n_query = 1", "n_query = 4")
        .replace("episodes = 80", "episodes = 6")
    )
    plain = str(tmp_path / "likes.toml")
    record = export_suite(plain, tmp_path / "frozen", data=data, seeds=[0])
    (name,) = record.tasks
    answers, query = (pd.read_parquet(tmp_path / "frozen" / name / f"{f}.parquet") for f in ("answers", "query"))
    assert set(answers["rating"]) == {0.0, 1.0}
    query.assign(prediction=np.arange(len(query)) % 3).to_parquet(tmp_path / "mine.parquet")
    scored = score(tmp_path / "mine.parquet", tmp_path / "frozen", out=tmp_path / "scored")
    ran = fewrec.run(plain, data=data, out=tmp_path / "out", learners=["bias"], seeds=[0], progress=False)
    frame = scored.leaderboard.set_index("label")
    assert set(scored.cells["kind"]) == {"clicks"}
    assert frame.loc["bias", "auc"] == pytest.approx(ran.leaderboard["auc"].iloc[0], abs=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('states = ["user-cold"]', 'states = ["user-cold", "warm"]', 'it needs states = "user-cold"'),
        ("n_users = 1", "n_users = 5", "it needs n_users = 1"),
        ("n_query = 1", "n_query = 2", "it needs n_query = 1"),
        ("shots = 5", "shots = 6", "history = 5: K and k_max can't be above it"),
        ("shots = 5", 'shots = "rest"', 'K is a number up to 5, not "rest"'),
        ("block = 40", "block = 40\ntop_at = 5", "it needs no top_at"),
        ("block = 40", 'block = 40\nmeta_datasets = ["ml-1m"]', "it needs no meta_datasets"),
        ('order = "time"\n', "", 'needs order = "time"'),
    ],
)
def test_a_suite_of_windows_that_asks_for_more_is_refused(old, new, said):
    with pytest.raises(SuiteError, match=said):
        parse_suite(SUITE.replace(old, new), "windows.toml")


def test_other_likes_than_the_folders_are_refused(run, data, suite):
    with pytest.raises(FolderError, match="were made with other ratings"):
        fewrec.run(str(suite), data=data, out=run.path, conditions={"likes_above": 2}, progress=False)
