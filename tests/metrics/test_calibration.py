"""Log densities and intervals against scipy and a plain loop, ragged queries, and refusals."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from fewrec.metrics import normal_sums, per_user_scores
from fewrec.metrics.calibration import CENTRAL_90


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 7, 200)
    group[group == 4] = 5  # a user without query ratings
    truth = rng.integers(1, 6, 200).astype(float)
    return group, truth, rng.normal(3, 2, 200), rng.uniform(0.2, 2, 200)


def test_sums_are_those_of_scipy_in_a_plain_loop(drawn):
    group, truth, mean, sd = drawn
    expected, within = [0.0] * 7, [0] * 7
    for g, r, m, s in zip(*drawn, strict=True):
        expected[g] += norm.logpdf(r, m, s)
        low, high = norm.interval(0.9, m, s)
        within[g] += low <= r <= high
    sums = normal_sums(group, 7, truth, mean, sd)
    np.testing.assert_allclose(sums["log_density"], expected, rtol=1e-12)
    assert sums["within90"].tolist() == within and sums["within90"].dtype == np.int64
    assert sums["log_density"][4] == 0 and sums["within90"][4] == 0
    assert norm.ppf(0.95) == pytest.approx(CENTRAL_90, abs=1e-15)


def test_intervals_of_the_right_distribution_hold_nine_tenths_and_its_density_is_the_entropy():
    rng = np.random.default_rng(1)
    mean, sd = rng.normal(3, 1, 40_000), rng.uniform(0.5, 1.5, 40_000)
    sums = normal_sums(np.zeros(40_000, int), 1, rng.normal(mean, sd), mean, sd)
    assert sums["within90"][0] / 40_000 == pytest.approx(0.9, abs=0.006)
    entropy = np.mean(0.5 * np.log(2 * np.pi * np.e * sd**2))
    assert -sums["log_density"][0] / 40_000 == pytest.approx(entropy, abs=0.02)


def test_the_ends_of_an_interval_belong_to_it():
    sums = normal_sums(np.array([0, 0, 0]), 1, np.array([CENTRAL_90, -CENTRAL_90, 1.645]), np.zeros(3), np.ones(3))
    assert sums["within90"].tolist() == [2]


def test_means_are_not_clipped_and_other_scores_stay_the_same_bits(drawn):
    group, truth, mean, sd = drawn
    plain = per_user_scores(group, 7, truth, mean, low=1, high=5, ndcg_at=None)
    scores = per_user_scores(group, 7, truth, mean, low=1, high=5, ndcg_at=None, normal=(mean, sd))
    assert list(scores) == [*plain, "log_density", "within90"]
    for name, values in plain.items():
        np.testing.assert_array_equal(scores[name], values)
    far = per_user_scores(np.array([0]), 1, np.array([5.0]), np.array([9.0]), low=1, high=5, ndcg_at=None,
                          normal=(np.array([9.0]), np.array([1.0])))  # fmt: skip
    assert far["se"][0] == 0 and far["log_density"][0] == pytest.approx(-8 - 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_deviation_that_is_not_above_0_is_a_failure_with_its_place(drawn, bad):
    group, truth, mean, sd = drawn
    sd[[3, 9]] = bad
    with pytest.raises(ValueError, match=rf"2 of 200 standard deviations are not finite and above 0 \(first: {bad} at"):
        normal_sums(group, 7, truth, mean, sd)


def test_other_distributions_that_cannot_be_scored_are_failures_too(drawn):
    group, truth, mean, sd = drawn
    with pytest.raises(ValueError, match="1 of 200 means of the distribution are NaN or infinite"):
        normal_sums(group, 7, truth, np.where(np.arange(200) == 2, np.nan, mean), sd)
    for tiny in ("1e-200", "1e-60", "1e-49"):  # infinite in float64, -1e119, and -1e98, of which 200 may be too much
        with pytest.raises(ValueError, match=f"a standard deviation of {tiny} gives no density"):
            normal_sums(group, 7, truth, mean, np.full(200, float(tiny)))
    with pytest.raises(ValueError, match=r"shapes \(200,\) and \(199,\) for \(200,\) ratings"):
        per_user_scores(group, 7, truth, mean, low=1, high=5, normal=(mean, sd[:199]))
