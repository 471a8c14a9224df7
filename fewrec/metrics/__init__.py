"""Metrics and statistics as pure functions of NumPy arrays, apart from the runner so that tables need no torch."""

from fewrec.metrics.calibration import normal_sums
from fewrec.metrics.pooled import pair_counts, pooled_auc, without_rounding
from fewrec.metrics.ranking import auc, ndcg, ndcg_is_defined
from fewrec.metrics.rating import clipped_error_sums, prediction_spread
from fewrec.metrics.scores import per_user_scores
from fewrec.metrics.statistics import (
    bca_interval,
    holm,
    leave_one_out_sums,
    percentile_interval,
    ratio,
    resampled_sums,
    resampled_weights,
    two_sided_p,
)

__all__ = [
    "auc",
    "bca_interval",
    "clipped_error_sums",
    "holm",
    "leave_one_out_sums",
    "ndcg",
    "ndcg_is_defined",
    "pair_counts",
    "per_user_scores",
    "normal_sums",
    "percentile_interval",
    "pooled_auc",
    "prediction_spread",
    "ratio",
    "resampled_sums",
    "resampled_weights",
    "two_sided_p",
    "without_rounding",
]
