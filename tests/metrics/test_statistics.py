"""The bootstrap against SciPy and closed forms, paired tests, and Holm's correction by a hand example."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from fewrec.metrics import statistics
from fewrec.metrics.statistics import holm, percentile_interval, ratio, resampled_sums, two_sided_p


def test_the_interval_of_a_ratio_agrees_with_that_of_scipy():
    rng = np.random.default_rng(0)
    n = rng.integers(5, 20, 120).astype(float)
    se = n * rng.gamma(2.0, 0.5, 120)
    draws = resampled_sums(np.column_stack([se, n]), seed=1, replicates=6000)
    ours = np.array(percentile_interval(np.sqrt(ratio(draws[:, :1], draws[:, 1:])))).ravel()
    theirs = bootstrap(
        (se, n),
        lambda s, m, axis=-1: np.sqrt(s.sum(axis=axis) / m.sum(axis=axis)),
        paired=True,
        vectorized=True,
        n_resamples=6000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], rtol=0, atol=0.05 * width)


def test_the_spread_of_a_resampled_mean_has_its_closed_form():
    value = np.random.default_rng(3).normal(size=400)
    mean = resampled_sums(value[:, None], replicates=8000)[:, 0] / 400
    expected = value.std() / np.sqrt(400)
    assert mean.std() == pytest.approx(expected, rel=0.03)
    low, high = percentile_interval(mean[:, None])
    assert high[0] - low[0] == pytest.approx(2 * norm.ppf(0.975) * expected, rel=0.05)


def test_ninety_five_of_a_hundred_intervals_hold_the_true_mean():
    rng = np.random.default_rng(4)
    data = rng.exponential(size=(300, 100))  # 100 samples of 300 users, true mean 1
    low, high = percentile_interval(resampled_sums(data, replicates=1000) / 300)
    assert 88 <= ((low < 1) & (high > 1)).sum() <= 99


def test_every_replicate_draws_as_many_users_as_there_are():
    counts = resampled_sums(np.ones((37, 1)), replicates=50)
    assert (counts == 37).all()


def test_all_columns_share_the_draws_so_that_differences_are_paired():
    rng = np.random.default_rng(5)
    a = rng.normal(size=(80, 1))
    draws = resampled_sums(np.hstack([a, a + 0.25]), replicates=100)
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 80 * 0.25, rtol=0, atol=1e-9)


def test_the_draws_depend_on_the_seed_and_not_on_the_other_columns():
    rng = np.random.default_rng(6)
    sums = rng.normal(size=(50, 3))
    np.testing.assert_allclose(resampled_sums(sums)[:, :1], resampled_sums(sums[:, :1]), rtol=0, atol=1e-12)
    assert not np.allclose(resampled_sums(sums, seed=0), resampled_sums(sums, seed=1))


def test_many_users_are_resampled_in_slices(monkeypatch):
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 100)
    counts = resampled_sums(np.ones((60, 1)), replicates=11)
    assert counts.shape == (11, 1) and (counts == 60).all()


def test_undefined_draws_are_left_out_of_an_interval():
    draws = np.column_stack([np.r_[np.nan, np.linspace(0, 1, 101)], np.full(102, np.nan)])
    low, high = percentile_interval(draws)
    assert (low[0], high[0]) == (pytest.approx(0.025), pytest.approx(0.975))
    assert np.isnan(low[1]) and np.isnan(high[1])
    assert np.isnan(ratio(np.array([0.0]), np.array([0.0]))[0])


def test_the_p_value_of_a_shifted_difference_is_that_of_the_normal_test():
    rng = np.random.default_rng(7)
    value = rng.normal(size=400)
    value += 2.0 * value.std() / np.sqrt(400) - value.mean()  # exactly two standard errors from zero
    p = two_sided_p(resampled_sums(value[:, None], replicates=20_000) / 400)[0]
    assert p == pytest.approx(2 * norm.sf(2.0), rel=0.15)


def test_the_p_value_is_never_zero_and_one_for_identical_rows():
    assert two_sided_p(np.ones((1999, 1)))[0] == pytest.approx(2 / 2000)
    assert two_sided_p(np.full((1999, 1), 1e-17))[0] == 1.0
    assert np.isnan(two_sided_p(np.full((10, 1), np.nan))[0])


def test_p_values_are_calibrated_where_there_is_no_difference():
    data = np.random.default_rng(8).normal(size=(200, 400))
    p = two_sided_p(resampled_sums(data, replicates=1000))
    assert 0.02 < (p < 0.05).mean() < 0.09


def test_holm_by_hand():
    # sorted .005 .01 .03 .04: times 4, 3, 2, 1 = .02 .03 .06 .04, never below the one before: .02 .03 .06 .06
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02], atol=1e-15)


def test_holm_leaves_out_what_is_no_comparison_and_stops_at_one():
    np.testing.assert_allclose(holm(np.array([0.8, np.nan, 0.6])), [1.0, np.nan, 1.0])
    assert holm(np.array([])).shape == (0,)
