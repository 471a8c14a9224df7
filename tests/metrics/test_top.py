"""The k highest-rated items as the relevant ones: against enumeration of all ways to break ties, and by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewrec.metrics.top import top_metrics

NAMES = ("precision", "ndcg", "mrr")


def orders(values):
    """Yield every order of the items by value, highest first, that breaks ties in some way."""
    ties = {}
    for item, value in enumerate(values):
        ties.setdefault(-value, []).append(item)
    for parts in itertools.product(*(itertools.permutations(ties[value]) for value in sorted(ties))):
        yield [item for part in parts for item in part]


def enumerated(truth, prediction, k):
    """Return the means of the three figures over all pairs of orders."""
    found = []
    for by_truth in orders(truth):
        relevant = set(by_truth[:k])
        for shown in orders(prediction):
            hits = [item in relevant for item in shown[:k]]
            discount = 1 / np.log2(np.arange(2, k + 2))
            found.append((np.mean(hits), (hits * discount).sum() / discount.sum(),
                          1 / (hits.index(True) + 1) if any(hits) else 0.0))  # fmt: skip
    return np.mean(found, axis=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_figures_are_the_means_over_all_ways_to_break_ties(data):
    n = data.draw(st.integers(2, 6))
    k = data.draw(st.integers(1, n - 1))
    few = st.integers(0, 2)
    truth = data.draw(st.lists(few, min_size=n, max_size=n).filter(lambda values: len(set(values)) > 1))
    prediction = data.draw(st.lists(few, min_size=n, max_size=n))
    found = top_metrics(np.zeros(n, np.int64), 1, np.array(truth, float), np.array(prediction, float), k)
    np.testing.assert_allclose([found[name][0] for name in NAMES], enumerated(truth, prediction, k), atol=1e-12)


def test_several_users_are_scored_apart_and_undefined_ones_have_no_figure():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat([0, 1, 3], [6, 7, 6]))
    truth, prediction = rng.integers(1, 4, len(group)).astype(float), rng.integers(0, 3, len(group)).astype(float)
    truth[group == 3] = 2.0
    found = top_metrics(group, 4, truth, prediction, 3)
    for user in (0, 1):
        expected = enumerated(truth[group == user], prediction[group == user], 3)
        np.testing.assert_allclose([found[name][user] for name in NAMES], expected, atol=1e-12)
    assert all(np.isnan(found[name][[2, 3]]).all() for name in NAMES)


def test_by_hand():
    truth, prediction = np.array([5.0, 4, 3, 2, 1, 1]), np.array([1.0, 3, 2, 0, 5, -1])  # shown: 4, 1, 2, 0, ...
    found = top_metrics(np.zeros(6, np.int64), 1, truth, prediction, 2)
    assert found["precision"][0] == 0.5 and found["mrr"][0] == 0.5
    assert found["ndcg"][0] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_a_constant_gets_what_chance_gives():
    truth = np.array([5.0, 5, 4, 4, 4, 3, 3, 2, 1, 1])
    found = top_metrics(np.zeros(10, np.int64), 1, truth, np.full(10, 3.5), 5)
    assert found["precision"][0] == pytest.approx(0.5) and found["ndcg"][0] == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 4, 5])
def test_k_at_or_above_the_query_is_refused(k):
    with pytest.raises(ValueError, match="queries of more than"):
        top_metrics(np.zeros(4, np.int64), 1, np.arange(4.0), np.arange(4.0), k)
