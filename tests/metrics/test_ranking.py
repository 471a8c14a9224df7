"""Ranking metrics against scikit-learn and against brute force, on random queries with ties."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from fewrec.metrics import auc, ndcg, ndcg_is_defined, per_user_scores, ranking


def ragged_queries(seed, n_groups=60, smallest=6, largest=15, levels=5, ties=True):
    rng = np.random.default_rng(seed)
    size = rng.integers(smallest, largest + 1, n_groups)
    group = np.repeat(np.arange(n_groups), size)
    truth = rng.integers(1, levels + 1, len(group)).astype(float)
    prediction = rng.integers(0, 6, len(group)) / 3 if ties else rng.normal(size=len(group))
    shuffle = rng.permutation(len(group))
    return group[shuffle], n_groups, truth[shuffle], prediction[shuffle]


def pair_share(truth, prediction):
    points, pairs = 0.0, 0
    for a, b in itertools.combinations(range(len(truth)), 2):
        if truth[a] == truth[b]:
            continue
        if truth[a] < truth[b]:
            a, b = b, a
        pairs += 1
        points += 1.0 if prediction[a] > prediction[b] else 0.5 if prediction[a] == prediction[b] else 0.0
    return points / pairs if pairs else np.nan


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_ndcg_equals_that_of_scikit_learn_which_averages_over_ties(k, ties):
    group, n_groups, truth, prediction = ragged_queries(k, ties=ties)
    ours = ndcg(group, n_groups, truth - 1, prediction, k)
    mine = [group == g for g in range(n_groups)]
    theirs = [ndcg_score([truth[m] - 1], [prediction[m]], k=k, ignore_ties=False) for m in mine]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_ndcg_of_ties_is_the_mean_over_all_orders():
    truth = np.array([5.0, 1.0, 3.0, 4.0])
    prediction = np.array([2.0, 2.0, 2.0, 1.0])
    discount = 1 / np.log2(np.arange(2, 4))
    orders = [truth[list(order)][:2] - 1 for order in itertools.permutations(range(3))]
    expected = np.mean([order @ discount for order in orders]) / (np.array([4.0, 3.0]) @ discount)
    assert ndcg(np.zeros(4, int), 1, truth - 1, prediction, 2)[0] == pytest.approx(expected, abs=1e-12)


def test_auc_equals_the_area_under_the_roc_curve_for_binary_truth():
    group, n_groups, truth, prediction = ragged_queries(7, levels=2)
    ours = auc(group, n_groups, truth, prediction)
    for g in range(n_groups):
        mine = group == g
        if len(np.unique(truth[mine])) == 1:
            assert np.isnan(ours[g])
        else:
            assert ours[g] == pytest.approx(roc_auc_score(truth[mine] == 2, prediction[mine]), abs=1e-12)


def test_auc_of_graded_ratings_counts_pairs():
    group, n_groups, truth, prediction = ragged_queries(8)
    expected = [pair_share(truth[group == g], prediction[group == g]) for g in range(n_groups)]
    np.testing.assert_allclose(auc(group, n_groups, truth, prediction), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_auc_does_not_depend_on_how_many_pairs_are_held_at_once(monkeypatch, at_once):
    group, n_groups, truth, prediction = ragged_queries(9)
    whole = auc(group, n_groups, truth, prediction)
    monkeypatch.setattr(ranking, "_PAIRS_AT_ONCE", at_once)
    np.testing.assert_array_equal(auc(group, n_groups, truth, prediction), whole)


def test_a_user_whose_query_ratings_are_all_equal_is_left_out():
    scores = per_user_scores(
        np.repeat([0, 1], 6), 2, np.r_[np.full(6, 4.0), 1, 2, 3, 4, 5, 5], np.arange(12.0), low=1, high=5
    )
    assert np.isnan(scores["ndcg5"][0]) and np.isnan(scores["auc"][0])
    assert np.isfinite(scores["ndcg5"][1]) and scores["auc"][1] == 1.0


def test_each_of_several_k_is_scored_as_it_would_be_alone():
    group, n_groups, truth, prediction = ragged_queries(seed=4)
    both = per_user_scores(group, n_groups, truth, prediction, low=1, high=5, ndcg_at=[1, 3])
    assert "ndcg5" not in both
    for k in (1, 3):
        alone = per_user_scores(group, n_groups, truth, prediction, low=1, high=5, ndcg_at=k)
        np.testing.assert_array_equal(both[f"ndcg{k}"], alone[f"ndcg{k}"])


def test_ndcg_refuses_k_at_the_query_size():
    group, truth = np.zeros(5, int), np.arange(5.0)
    assert not ndcg_is_defined(5, 5) and ndcg_is_defined(5, 6) and not ndcg_is_defined(None, 6)
    with pytest.raises(ValueError, match="queries of more than 5 ratings; the smallest has 5"):
        ndcg(group, 1, truth, truth, 5)


def test_query_order_does_not_change_the_ranking_metrics():
    group, n_groups, truth, prediction = ragged_queries(10)
    again = np.random.default_rng(0).permutation(len(group))
    np.testing.assert_array_equal(
        auc(group, n_groups, truth, prediction), auc(group[again], n_groups, truth[again], prediction[again])
    )
    np.testing.assert_allclose(
        ndcg(group, n_groups, truth - 1, prediction, 5),
        ndcg(group[again], n_groups, truth[again] - 1, prediction[again], 5),
        rtol=0,
        atol=1e-12,
    )


def test_monotone_transformation_beyond_the_scale_does_not_change_ranking():
    group, n_groups, truth, prediction = ragged_queries(11, ties=False)
    plain = per_user_scores(group, n_groups, truth, prediction, low=1, high=5)
    moved = per_user_scores(group, n_groups, truth, 100 + 1000 * prediction, low=1, high=5)
    np.testing.assert_array_equal(plain["auc"], moved["auc"])
    np.testing.assert_allclose(plain["ndcg5"], moved["ndcg5"], rtol=0, atol=1e-12)
