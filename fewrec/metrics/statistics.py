"""Intervals and paired tests over users, from sums per user alone; apart from metrics because they never see a rating.

Users, not ratings, are the independent units: a user's ratings share taste and mood, so whole users are resampled
(cluster bootstrap; Field and Welsh, JRSS B 2007). All rows of a table share the resamples, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fewrec.seeding import substream

REPLICATES = 2000
LARGEST = 1e100  # of a user's score, either sign: the sums of squares and cubes over all users stay finite
_DRAWS_AT_ONCE = 1 << 22  # bounds the memory of resampling to some tens of megabytes, whatever the number of users


def resampled_sums(user_sums: np.ndarray, *, seed: int = 0, replicates: int = REPLICATES) -> np.ndarray:
    """Return the column sums over resamples of the users, shape (replicates, c).

    ``user_sums`` is (users, c): what each user adds to c sums (squared errors, numbers of ratings ...). Each replicate
    draws as many users as there are, with replacement, and is the same draw for every column. The draws depend on
    ``seed``, ``replicates`` and the number of users alone. Raises ``ValueError`` without users.
    """
    user_sums = np.asarray(user_sums, dtype=np.float64)
    return np.concatenate([weights @ user_sums for weights in resampled_weights(len(user_sums), seed, replicates)])


def resampled_weights(n_users: int, seed: int = 0, replicates: int = REPLICATES) -> Iterator[np.ndarray]:
    """Yield how often each user is in each resample, (rows, n_users) float64, ``replicates`` rows in all.

    These are the resamples of ``resampled_sums``, for statistics that are no ratio of sums over users.
    """
    if n_users == 0:
        raise ValueError("there are no users to resample")
    rng = substream(seed, "bootstrap over users")
    at_once = max(1, _DRAWS_AT_ONCE // n_users)
    for begin in range(0, replicates, at_once):
        rows = min(at_once, replicates - begin)
        drawn = rng.integers(0, n_users, size=(rows, n_users))
        drawn += np.arange(rows)[:, None] * n_users
        yield np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users).astype(np.float64)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    return ratio(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, NaN where the denominator is 0 (a resample without a defined value)."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval (low, high) of each column of ``draws`` (replicates, c), each (c,).

    Undefined (NaN) draws are left out; a column without a defined draw gets NaN.
    """
    low = np.full(draws.shape[1], np.nan)
    high = low.copy()
    some = np.isfinite(draws).any(axis=0)
    if some.any():
        tail = (1 - level) / 2
        low[some], high[some] = np.nanquantile(draws[:, some], [tail, 1 - tail], axis=0)
    return low, high


def leave_one_out_sums(user_sums: np.ndarray) -> np.ndarray:
    """Return the column sums without each user in turn, shaped as ``user_sums`` (users, c): the jackknife, closed."""
    user_sums = np.asarray(user_sums, dtype=np.float64)
    return user_sums.sum(axis=0) - user_sums


def bca_interval(
    draws: np.ndarray, point: np.ndarray, jackknife: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the BCa bootstrap interval (low, high) of each statistic, each (c,).

    Bias-corrected and accelerated (Efron, JASA 1987): percentiles of ``draws`` (replicates, c) moved by the bias
    z0 = Phi^-1(share of draws below ``point`` (c,), ties count half) and by the acceleration a, the skewness of the
    statistic over ``jackknife`` (users, c), its values without each user in turn (Efron and Tibshirani, An Introduction
    to the Bootstrap, 1993, equations 14.9 to 14.15). Undefined (NaN) values are left out; a statistic that all draws
    lie above or below has no bias that could be corrected, and gets NaN, as does one without a defined draw.
    """
    from scipy.special import ndtr, ndtri

    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    defined = np.isfinite(draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = ((defined & (draws < point)).sum(axis=0) + (defined & (draws <= point)).sum(axis=0)) / 2
        bias = ndtri(below / defined.sum(axis=0))
        deviations = np.nan_to_num(_mean_of_defined(jackknife) - jackknife, nan=0.0)
        scale = (deviations**2).sum(axis=0) ** 1.5
        acceleration = np.divide((deviations**3).sum(axis=0), 6 * scale, out=np.zeros(len(scale)), where=scale > 0)
        for end, share in ((low, (1 - level) / 2), (high, (1 + level) / 2)):
            shifted = bias + ndtri(share)
            shares = ndtr(bias + shifted / (1 - acceleration * shifted))
            for column in np.flatnonzero(np.isfinite(shares)):
                end[column] = np.quantile(draws[defined[:, column], column], shares[column])
    return low, high


def two_sided_p(differences: np.ndarray, tolerance: float = 1e-12) -> np.ndarray:
    """Return the two-sided bootstrap p-value of each column of paired ``differences`` (replicates, c): is it zero?

    Twice the smaller share of resamples on either side of zero, counting the data as one resample more (Davison and
    Hinkley, Bootstrap Methods, 1997, ch. 4), so that p is never 0: the smallest is 2 / (replicates + 1). Differences
    within ``tolerance`` of zero are rounding and lie on both sides. NaN where a column has no defined draw.
    """
    defined = np.isfinite(differences)
    count = defined.sum(axis=0)
    below = (defined & (differences <= tolerance)).sum(axis=0)
    above = (defined & (differences >= -tolerance)).sum(axis=0)
    p = np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / (count + 1))
    return np.where(count > 0, p, np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """Return the p-values (c,) corrected for c comparisons by Holm's step-down rule (Scand. J. Statistics 1979).

    NaN entries are no comparison: they stay NaN and don't count.
    """
    p = np.asarray(p, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * steps)) if len(order) else 0
    return out
