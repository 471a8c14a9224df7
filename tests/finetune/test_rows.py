"""The trivial rows are fewrec's learners, and the errors are those that anybody would compute by hand."""

import numpy as np
import pandas as pd
import pytest

from fewrec.data.table import RatingTable, Scale
from fewrec.finetune.pairs import read_pairs
from fewrec.finetune.rows import TRIVIAL, Row, scored, trivial_rows


def test_the_trivial_rows_are_what_their_formulas_say(here, ratings):
    train, test = ratings
    rows = {row.label: row.prediction for row in trivial_rows(read_pairs("train.csv", "test.csv"), 0)}
    assert tuple(rows) == TRIVIAL
    mu = train["score"].mean()
    assert np.allclose(rows["global-mean"], mu)
    for name, key, s in (("user-mean", "user", 6), ("item-mean", "item", 5)):
        group = train.groupby(key)["score"].agg(["sum", "count"])
        shrunk = (group["sum"] + s * mu) / (group["count"] + s)
        assert np.allclose(rows[name], test[key].map(shrunk).fillna(mu))


def test_bias_solves_the_ridge_equations_of_items_and_then_of_each_user(here, ratings):
    train, test = ratings
    user, item = (pd.get_dummies(train[key]).astype(float) for key in ("user", "item"))
    design = np.column_stack([np.ones(len(train)), user, item])
    ridge = np.diag([0.0] + [10.0] * user.shape[1] + [5.0] * item.shape[1])
    solved = np.linalg.solve(design.T @ design + ridge, design.T @ train["score"])
    base = pd.Series(solved[0] + solved[1 + user.shape[1] :], item.columns)
    rest = (train["score"] - train["item"].map(base)).groupby(train["user"]).agg(["sum", "count"])
    expected = test["item"].map(base) + test["user"].map(rest["sum"] / (rest["count"] + 6))
    rows = {row.label: row.prediction for row in trivial_rows(read_pairs("train.csv", "test.csv"), 0)}
    assert np.allclose(rows["bias"], expected)


def test_errors_are_of_clipped_predictions_and_intervals_contain_them():
    rng = np.random.default_rng(0)
    user, rating = rng.integers(0, 40, 300), rng.integers(1, 6, 300).astype(float)
    test = RatingTable(user, np.zeros(300), rating, None, 60, 1)  # of 60 users, 20 have no test rating
    rows = [Row("bias", np.full(300, 3.0), 0, 0, True), Row("model", rating + rng.normal(0, 3, 300), 1, 2)]
    found = {row["label"]: row for row in scored(rows, test, Scale(1, 5, 1))}
    error = np.clip(rows[1].prediction, 1, 5) - rating
    assert found["model"]["mse"] == pytest.approx((error**2).mean(), abs=1e-6)
    assert found["model"]["mae"] == pytest.approx(np.abs(error).mean(), abs=1e-6)
    assert found["model"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-6)
    assert found["model"]["diff_bias"] == pytest.approx(found["model"]["rmse"] - found["bias"]["rmse"], abs=2e-6)
    for name in ("mse", "mae", "rmse", "diff_bias"):
        assert found["model"][f"{name}_low"] < found["model"][name] < found["model"][f"{name}_high"]
    assert found["bias"]["diff_bias_low"] == found["bias"]["diff_bias_high"] == 0
    assert [row["label"] for row in scored(rows, test, Scale(1, 5, 1))] == sorted(found, key=lambda n: found[n]["rmse"])


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(100):
        user = np.repeat(np.arange(60), 5)
        error = np.repeat(rng.normal(0, 0.5, 60), 5) + rng.normal(0, 0.5, 300)  # errors of one user go together
        test = RatingTable(user, np.zeros(300), np.zeros(300), None, 60, 1)
        row = scored([Row("bias", error, 0, 0)], test, Scale(-9, 9))[0]
        inside += row["mse_low"] <= 0.5 <= row["mse_high"]
    assert 86 <= inside <= 99
