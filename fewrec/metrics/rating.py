"""Errors of predicted ratings per user, with the one rule of clipping; apart from ranking, which never clips."""

from __future__ import annotations

import numpy as np


def clipped_error_sums(
    group: np.ndarray, n_groups: int, truth: np.ndarray, prediction: np.ndarray, low: float, high: float
) -> dict[str, np.ndarray]:
    """Sum the errors of each user's query; predictions are clipped to the scale ``low..high`` first.

    ``group`` (m,) int64 in 0..n_groups-1 says whose each query rating is; ``truth`` and ``prediction`` are (m,) on the
    data set's scale. Returns (n_groups,) arrays: ``n`` (int64, query ratings), ``se`` (sum of squared errors, squared
    rating units), ``ae`` (sum of absolute errors, rating units).
    """
    error = np.clip(prediction, low, high) - truth
    return {
        "n": np.bincount(group, minlength=n_groups).astype(np.int64),
        "se": np.bincount(group, weights=error * error, minlength=n_groups),
        "ae": np.bincount(group, weights=np.abs(error), minlength=n_groups),
    }


def prediction_spread(group: np.ndarray, n_groups: int, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean, lowest and highest unclipped prediction of each user: what shows a collapsed learner.

    ``group`` (m,) int64, ``prediction`` (m,) float64; returns (n_groups,) arrays ``pred_mean``, ``pred_min``,
    ``pred_max``, NaN for a user without query ratings.
    """
    count = np.bincount(group, minlength=n_groups)
    total = np.bincount(group, weights=prediction, minlength=n_groups)
    lowest = np.full(n_groups, np.inf)
    highest = np.full(n_groups, -np.inf)
    np.minimum.at(lowest, group, prediction)
    np.maximum.at(highest, group, prediction)
    empty = count == 0
    lowest[empty] = highest[empty] = np.nan
    mean = total / np.where(empty, np.nan, count)
    # the mean of equal numbers may fall beside them by rounding; a constant must look like one
    return {"pred_mean": np.clip(mean, lowest, highest), "pred_min": lowest, "pred_max": highest}
