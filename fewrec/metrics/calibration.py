"""What a normal predictive distribution is worth: its density at the ratings, and how many its intervals hold.

Apart from errors, because the mean is not clipped here: a distribution that is cut at the scale would be another one.
"""

from __future__ import annotations

import numpy as np

from fewrec.metrics.statistics import LARGEST

CENTRAL_90 = 1.6448536269514722  # the standard normal quantile of .95: half the width of the central 90 % interval


def normal_sums(
    group: np.ndarray, n_groups: int, truth: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> dict[str, np.ndarray]:
    """Sum what each user's query ratings say of their predictive distributions N(mean, sd^2).

    ``group`` (m,) int64 in 0..n_groups-1 says whose each query rating is. ``truth``, ``mean`` (not clipped) and ``sd``
    (of a rating: noise included) are (m,) on the data set's scale. Returns (n_groups,) arrays: ``log_density`` (sum of
    log N(rating; mean, sd^2), natural logarithm, density per rating unit) and ``within90`` (int64, ratings in
    mean +- 1.6449 sd, ends included). NLPD is - sum of ``log_density`` / number of ratings (the negative log
    predictive density of Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 2.34, not
    standardised by a trivial model), coverage is the sum of ``within90`` / number of ratings.

    Raises ``ValueError`` for a mean that is NaN or infinite, for an sd that is not a finite number above 0, and where
    an sd is so small that a user's sum of log densities might be below -1e100.
    """
    bad = ~np.isfinite(mean)
    if bad.any():
        raise ValueError(f"{bad.sum()} of {len(bad)} means of the distribution are NaN or infinite")
    bad = ~(np.isfinite(sd) & (sd > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{bad.sum()} of {len(bad)} standard deviations are not finite and above 0 (first: {sd[first]} at {first})"
        )
    with np.errstate(over="ignore"):
        z = (truth - mean) / sd
        log_density = -0.5 * (z * z + np.log(2 * np.pi)) - np.log(sd)
    bad = ~(np.abs(log_density) <= LARGEST / max(len(log_density), 1))  # so that no user's sum is beyond it
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"a rating lies {abs(truth[first] - mean[first]):.3g} from its mean, which a standard deviation of "
            f"{sd[first]:.3g} gives no density (at {first})"
        )
    within = np.abs(z) <= CENTRAL_90
    return {
        "log_density": np.bincount(group, weights=log_density, minlength=n_groups),
        "within90": np.bincount(group, weights=within, minlength=n_groups).astype(np.int64),
    }
