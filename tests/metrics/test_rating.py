"""Rating errors per user: clipping, ragged queries, and refusals."""

import time

import numpy as np
import pytest

from fewrec.metrics import per_user_scores


def test_errors_are_those_of_predictions_clipped_to_the_scale():
    group = np.array([0, 1, 0, 1, 1])
    truth = np.array([5.0, 1.0, 2.0, 3.0, 4.0])
    prediction = np.array([9.0, -3.0, 2.5, 3.0, 2.0])
    scores = per_user_scores(group, 2, truth, prediction, low=1, high=5, ndcg_at=None)
    assert scores["n"].tolist() == [2, 3]
    assert scores["se"].tolist() == [0.25, 4.0]
    assert scores["ae"].tolist() == [0.5, 2.0]
    assert "ndcg5" not in scores


def test_the_spread_is_that_of_unclipped_predictions():
    scores = per_user_scores(
        np.array([1, 0, 1, 1]), 3, np.full(4, 3.0), np.array([9.0, 2.0, -3.0, 3.0]), low=1, high=5, ndcg_at=None
    )
    assert scores["pred_min"][:2].tolist() == [2.0, -3.0]
    assert scores["pred_max"][:2].tolist() == [2.0, 9.0]
    assert scores["pred_mean"][:2].tolist() == [2.0, 3.0]
    assert all(np.isnan(scores[name][2]) for name in ("pred_mean", "pred_min", "pred_max", "auc"))
    assert scores["n"][2] == 0


def test_a_constant_prediction_has_exactly_no_spread():
    scores = per_user_scores(np.zeros(7, int), 1, np.arange(7.0), np.full(7, 0.1), low=0, high=6)
    assert scores["pred_min"] == scores["pred_mean"] == scores["pred_max"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_a_number_is_a_failure(bad):
    with pytest.raises(ValueError, match="1 of 6 predictions are NaN or infinite"):
        per_user_scores(np.zeros(6, int), 1, np.arange(6.0), np.r_[np.ones(5), bad], low=0, high=5)


def test_arrays_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="one length"):
        per_user_scores(np.zeros(6, int), 1, np.arange(6.0), np.ones(5), low=0, high=5)
    with pytest.raises(ValueError, match="must lie in 0..0"):
        per_user_scores(np.r_[np.zeros(5, int), 1], 1, np.arange(6.0), np.ones(6), low=0, high=5)


def test_fifty_thousand_users_are_scored_in_seconds():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(50_000), 10)
    truth = rng.integers(1, 6, len(group)).astype(float)
    start = time.perf_counter()
    per_user_scores(group, 50_000, truth, rng.normal(size=len(group)), low=1, high=5)
    assert time.perf_counter() - start < 5  # a Python loop over users takes half a minute


def test_a_block_without_users_has_empty_scores():
    scores = per_user_scores(np.zeros(0, int), 0, np.zeros(0), np.zeros(0), low=1, high=5)
    assert all(len(column) == 0 for column in scores.values())
