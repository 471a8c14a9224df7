"""One call that turns a block's answers and predictions into score rows: the only way in for the runner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewrec.metrics.calibration import normal_sums
from fewrec.metrics.ranking import auc, ndcg
from fewrec.metrics.rating import clipped_error_sums, prediction_spread
from fewrec.metrics.top import top_metrics


def per_user_scores(
    group: np.ndarray,
    n_groups: int,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    low: float,
    high: float,
    ndcg_at: int | Sequence[int] | None = 5,
    top_at: int | None = None,
    errors: bool = True,
    normal: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Score each user's query; queries may have different sizes.

    ``group`` (m,) integers in 0..n_groups-1: whose query rating each is (users of all episodes of a block, numbered
    through). ``truth`` (m,) and ``prediction`` (m,) are ratings on the scale ``low..high``; predictions are clipped to
    it for the errors and never for ranking. Without ``errors`` (clicks, where a prediction is a score on no scale)
    ``low`` is the lowest gain alone. ``normal``: mean and standard deviation (m,) of the ratings' predictive
    distributions, where the learner has them.

    Returns (n_groups,) arrays: ``n``, ``se`` and ``ae`` (see ``clipped_error_sums``; left out without ``errors``),
    ``ndcg<k>`` for each k of ``ndcg_at`` (none where None) and ``auc``, all NaN where all query ratings are equal,
    ``pred_mean``, ``pred_min``, ``pred_max``, with ``top_at`` = k ``top<k>_precision``, ``top<k>_ndcg`` and
    ``top<k>_mrr`` (``fewrec.metrics.top``), and with ``normal`` ``log_density`` and ``within90`` (``normal_sums``).

    Raises ``ValueError`` for NaN or infinite predictions and for standard deviations that are not above 0 (a failure,
    never a score), for k at or above a query's size (ask ``ndcg_is_defined`` before) and for arrays that don't fit
    together.
    """
    group = np.asarray(group, dtype=np.int64)
    truth = np.asarray(truth, dtype=np.float64)
    prediction = np.asarray(prediction, dtype=np.float64)
    if not (group.ndim == 1 and group.shape == truth.shape == prediction.shape):
        raise ValueError(
            f"group, truth and prediction must be one-dimensional and of one length, "
            f"not {group.shape}, {truth.shape}, {prediction.shape}"
        )
    if len(group) and not (group.min() >= 0 and group.max() < n_groups):
        raise ValueError(f"group must lie in 0..{n_groups - 1}, but goes from {group.min()} to {group.max()}")
    bad = ~np.isfinite(prediction)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        value = prediction[first]
        raise ValueError(f"{bad.sum()} of {len(bad)} predictions are NaN or infinite (first: {value} at {first})")
    if not np.isfinite(truth).all():
        raise ValueError("a query rating is NaN or infinite")

    scores = clipped_error_sums(group, n_groups, truth, prediction, low, high)
    if not errors:
        scores = {"n": scores["n"]}
    for k in () if ndcg_at is None else (ndcg_at,) if isinstance(ndcg_at, int) else ndcg_at:
        scores[f"ndcg{k}"] = ndcg(group, n_groups, truth - low, prediction, k)
    scores["auc"] = auc(group, n_groups, truth, prediction)
    if top_at is not None:
        scores |= {f"top{top_at}_{k}": v for k, v in top_metrics(group, n_groups, truth, prediction, top_at).items()}
    scores.update(prediction_spread(group, n_groups, prediction))
    if normal is not None:
        mean, sd = (np.asarray(part, dtype=np.float64) for part in normal)
        if not mean.shape == sd.shape == truth.shape:
            raise ValueError(f"the distribution has shapes {mean.shape} and {sd.shape} for {truth.shape} ratings")
        scores |= normal_sums(group, n_groups, truth, mean, sd)
    return scores
