"""The bootstrap against SciPy and closed forms, paired tests, and Holm's correction by a hand example."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, permutation_test, ttest_rel

from fewrec.metrics import statistics
from fewrec.metrics.statistics import (
    bca_interval,
    holm,
    leave_one_out_sums,
    percentile_interval,
    ratio,
    resampled_sums,
    two_sided_p,
)


def users_of(rng, users=120):
    """Return each user's sums of squared errors of two rows and number of ratings, (users, 3), unequal and skewed."""
    n = rng.integers(5, 40, users).astype(float)
    taste = rng.gamma(0.7, 1.0, users)
    return np.column_stack([n * taste * rng.gamma(5, 0.2, users), n * taste * rng.gamma(5, 0.22, users), n])


def rmse(sums):
    return np.sqrt(sums[..., :1] / sums[..., 2:])


def rmse_difference(sums):
    return np.sqrt(sums[..., :1] / sums[..., 2:]) - np.sqrt(sums[..., 1:2] / sums[..., 2:])


def mean_error(sums):
    return sums[..., :1] / sums[..., 2:]


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("statistic", [rmse, rmse_difference, mean_error])
def test_intervals_of_user_level_ratios_agree_with_those_of_scipy(statistic, method):
    sums = users_of(np.random.default_rng(0))
    draws = statistic(resampled_sums(sums, seed=1, replicates=20_000))
    if method == "BCa":
        ours = bca_interval(draws, statistic(sums.sum(axis=0)), statistic(leave_one_out_sums(sums)))
    else:
        ours = percentile_interval(draws)
    theirs = bootstrap(
        tuple(sums.T),
        lambda *columns, axis=-1: statistic(np.stack([c.sum(axis=axis) for c in columns], axis=-1))[..., 0],
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        batch=2000,
        method=method,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose(np.ravel(ours), [theirs.low, theirs.high], rtol=0, atol=0.03 * width)


def test_bca_moves_the_interval_of_a_skewed_statistic_and_is_the_percentile_one_where_there_is_no_skew():
    sums = users_of(np.random.default_rng(0))
    draws = mean_error(resampled_sums(sums, replicates=5000))
    percentile = np.ravel(percentile_interval(draws))
    moved = (
        np.ravel(bca_interval(draws, mean_error(sums.sum(axis=0)), mean_error(leave_one_out_sums(sums)))) - percentile
    )
    assert (moved > 0.03 * (percentile[1] - percentile[0])).all()  # errors have a long tail above
    symmetric = np.linspace(-1, 1, 2001)[:, None]
    even = np.array([[-1.0], [1.0], [-0.5], [0.5]])
    np.testing.assert_allclose(
        bca_interval(symmetric, np.zeros(1), even), percentile_interval(symmetric), rtol=0, atol=1e-12
    )


def test_bca_by_hand():
    # a quarter of the draws lies below the point, so z0 = -0.6745; jackknife 0, 0, 3: a = sum d^3 / (6 (sum d^2)^1.5)
    draws, jackknife = np.arange(1.0, 101.0)[:, None], np.array([[0.0], [0.0], [3.0]])
    z0, a = norm.ppf(0.25), (1 + 1 - 8) / (6 * (1 + 1 + 4) ** 1.5)
    expected = [norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in norm.ppf([0.025, 0.975])]
    low, high = bca_interval(draws, np.array([25.5]), jackknife)
    np.testing.assert_allclose([low[0], high[0]], np.quantile(draws, expected), rtol=0, atol=1e-9)


def test_bca_of_a_difference_that_is_zero_in_every_sample_is_zero():
    low, high = bca_interval(np.zeros((100, 1)), np.zeros(1), np.zeros((7, 1)))
    assert (low[0], high[0]) == (0, 0)


def test_bca_leaves_undefined_values_out_and_is_nan_without_a_bias_to_correct():
    draws = np.column_stack([np.r_[np.nan, np.linspace(0, 1, 101)], np.full(102, np.nan), np.linspace(0, 1, 102)])
    jackknife = np.column_stack([[np.nan, 0.4, 0.6], [np.nan] * 3, [0.4, 0.5, 0.6]])
    low, high = bca_interval(draws, np.array([0.5, 0.5, 5.0]), jackknife)
    assert (low[0], high[0]) == (pytest.approx(0.025), pytest.approx(0.975))
    assert np.isnan(low[1:]).all() and np.isnan(high[1:]).all()


def test_the_jackknife_of_sums_is_that_of_leaving_users_out_one_by_one():
    sums = users_of(np.random.default_rng(1), users=9)
    plain = [np.delete(sums, user, axis=0).sum(axis=0) for user in range(9)]
    np.testing.assert_allclose(leave_one_out_sums(sums), plain, rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.08, 0.15])
def test_the_p_value_agrees_with_the_t_test_and_the_permutation_test_where_users_have_as_many_ratings(shift):
    rng = np.random.default_rng(11)
    one = rng.gamma(3.0, 0.3, 300)
    other = one + shift * one.std() + rng.normal(scale=0.9 * one.std(), size=300)
    p = two_sided_p(resampled_sums((one - other)[:, None], replicates=20_000))[0]
    assert p == pytest.approx(ttest_rel(one, other).pvalue, abs=0.02)
    permuted = permutation_test(
        (one, other),
        lambda x, y, axis=-1: x.mean(axis=axis) - y.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000,
        batch=1000,
        rng=np.random.default_rng(12),
    )
    monte_carlo = 2 * np.sqrt(
        p / 2 * (1 - p / 2) * (1 / 20_000 + 1 / 10_000)
    )  # standard error of the two p's difference
    assert p == pytest.approx(permuted.pvalue, abs=3 * monte_carlo + 0.003)


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
