"""AUC over the rows of all users against scikit-learn, on the data and on samples in which users come again."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fewrec.metrics import pair_counts, pooled, pooled_auc, resampled_sums, resampled_weights, without_rounding


def rows_of(seed, n_groups=9, n=200, levels=2):
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
    return group, rng.integers(0, levels, n).astype(float), rng.integers(0, 30, n) / 7


@pytest.mark.parametrize("at_once", [1 << 22, 1000])
def test_auc_of_all_rows_is_that_of_scikit_learn(monkeypatch, at_once):
    monkeypatch.setattr(pooled, "_AT_ONCE", at_once)
    for seed in range(5):
        group, truth, prediction = rows_of(seed)
        right, pairs = pair_counts(group, 9, truth, prediction)
        assert pairs.sum() == (truth == 1).sum() * (truth == 0).sum()
        found = pooled_auc(right, pairs, np.ones((1, 9)))
        assert found == pytest.approx([roc_auc_score(truth, prediction)], abs=1e-12)


def test_a_user_who_is_drawn_twice_counts_as_two():
    group, truth, prediction = rows_of(7)
    right, pairs = pair_counts(group, 9, truth, prediction)
    for weights in next(resampled_weights(9, seed=1, replicates=20)):
        rows = np.concatenate([np.flatnonzero(group == u) for u in np.repeat(np.arange(9), weights.astype(int))])
        expected = roc_auc_score(truth[rows], prediction[rows])
        assert pooled_auc(right, pairs, weights[None]) == pytest.approx([expected], abs=1e-12)


def test_more_than_two_levels_and_a_single_level():
    group, truth, prediction = rows_of(3, levels=4)
    right, pairs = pair_counts(group, 9, truth, prediction)
    better = truth[:, None] > truth[None]
    points = (prediction[:, None] > prediction[None]) + 0.5 * (prediction[:, None] == prediction[None])
    assert right[2, 5] == (better * points)[group == 2][:, group == 5].sum()
    assert pooled_auc(right, pairs, np.ones((1, 9)))[0] == pytest.approx((better * points).sum() / better.sum())
    nothing = pair_counts(group, 9, np.ones(len(group)), prediction)
    assert np.isnan(pooled_auc(*nothing, np.ones((1, 9)))).all()


def test_means_that_differ_by_rounding_are_ties_and_others_are_not():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (500, 10)).astype(float)
    noisy = (rows - 0.557).cumsum(1)[:, -1] / 16 + 0.557
    assert len(np.unique(noisy)) > 11 == len(np.unique(without_rounding(noisy)))
    np.testing.assert_allclose(without_rounding(noisy), noisy, rtol=0, atol=1e-9)
    kept = rng.normal(size=100) * 1e-6
    np.testing.assert_array_equal(without_rounding(kept), kept)
    assert len(without_rounding(np.empty(0))) == 0 and (without_rounding(np.ones(3)) == 1).all()


def test_the_resamples_are_those_of_sums():
    sums = np.random.default_rng(0).normal(size=(12, 3))
    drawn = np.concatenate([weights @ sums for weights in resampled_weights(12, 5, 300)])
    np.testing.assert_array_equal(drawn, resampled_sums(sums, seed=5, replicates=300))
