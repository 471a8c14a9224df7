"""Figures of two runs' rows on the episodes that both have: paired differences with intervals over users, and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fewrec.metrics.statistics import holm, percentile_interval, ratio, resampled_sums, two_sided_p
from fewrec.report.comparison.score_difference import same_bits

ALPHA = 0.05
_FIGURES = ("rmse", "mae", "nlpd")  # over all query ratings, before nDCG@k and AUC


@dataclass(frozen=True, eq=False)
class PairedScores:
    """Score rows of one table row in two runs, on common (seed, episode, user) keys in the same order.

    ``user`` (m,) is whose each is; ``a`` and ``b`` hold each run's score columns, (m,) each, by the same names.
    """

    user: np.ndarray
    a: dict[str, np.ndarray]
    b: dict[str, np.ndarray]

    @property
    def same_bytes(self) -> bool:
        """Whether every score of both runs has the same bits."""
        return all(same_bits(self.a[name], self.b[name]).all() for name in self.a)

    def user_sums(self) -> tuple[list[str], np.ndarray]:
        """Return the metrics and what each user adds to a's and b's numerator and denominator, (users, 4 x metrics)."""
        columns: dict[str, list[np.ndarray]] = {}
        for name, values in self.a.items():
            metric = {"se": "rmse", "ae": "mae", "log_density": "nlpd"}.get(name, name)
            if metric not in _FIGURES and metric != "auc" and not metric.startswith("ndcg"):
                continue
            both = np.isfinite(values) & np.isfinite(self.b[name])
            weights = (self.a["n"], self.b["n"]) if metric in _FIGURES else (np.ones(len(both)),) * 2
            sign = -1 if metric == "nlpd" else 1
            parts = (sign * values, weights[0], sign * self.b[name], weights[1])
            columns[metric] = [np.where(both, part, 0.0) for part in parts]
        order = [name for name in _FIGURES if name in columns] + sorted(set(columns) - {*_FIGURES}, reverse=True)
        users, code = np.unique(self.user, return_inverse=True)
        sums = [np.bincount(code.ravel(), part, len(users)) for name in order for part in columns[name]]
        return order, np.stack(sums, axis=1)


def paired_figures(pairs: Sequence[PairedScores]) -> pd.DataFrame:
    """Return the figures of each pair, one row a pair, in their order.

    For each metric that a pair has: ``<metric>_a``, ``<metric>_b``, ``<metric>_diff`` (B - A) and its 95 % percentile
    interval clustered by user (``_diff_low``, ``_diff_high``), which one user alone can't have. ``users``, ``keys``
    ((seed, episode, user) rows), ``p``: two-sided, of the difference in RMSE (AUC where there is none), and ``p_holm``:
    corrected by Holm for all pairs that aren't the same bytes. ``verdict``: ``same bytes``, ``B better``, ``B worse``
    (``p_holm`` below .05) or ``no difference shown``.
    """
    sums = [pair.user_sums() for pair in pairs]
    by_users = defaultdict(list)  # the draws depend on the number of users alone
    for i, (_, one) in enumerate(sums):
        by_users[len(one)].append(i)
    drawn: dict[int, np.ndarray] = {}
    for users, members in by_users.items():
        if users > 1:
            draws = resampled_sums(np.hstack([sums[i][1] for i in members]))
            drawn |= dict(zip(members, np.split(draws, np.cumsum([sums[i][1].shape[1] for i in members])[:-1], axis=1),
                              strict=True))  # fmt: skip
    rows = [_row(pair, *sums[i], drawn.get(i)) for i, pair in enumerate(pairs)]
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    same = frame["verdict"].eq("same bytes").to_numpy()
    frame["p_holm"] = holm(np.where(same, np.nan, frame["p"]))
    shown = frame["p_holm"].lt(ALPHA) & ~same
    frame.loc[shown & frame["gain"].gt(0), "verdict"] = "B better"
    frame.loc[shown & frame["gain"].lt(0), "verdict"] = "B worse"
    return frame.drop(columns="gain")


def _row(pair: PairedScores, metrics: list[str], sums: np.ndarray, draws: np.ndarray | None) -> dict[str, object]:
    row: dict[str, object] = {"users": len(sums), "keys": len(pair.user), "p": np.nan, "gain": np.nan}
    row["verdict"] = "same bytes" if pair.same_bytes else "no difference shown"
    tested = False
    for i, metric in enumerate(metrics):
        part = slice(4 * i, 4 * i + 4)
        a, b = _both(sums[:, part].sum(axis=0)[None], metric)
        difference = float(b[0] - a[0])
        row |= {f"{metric}_a": float(a[0]), f"{metric}_b": float(b[0]), f"{metric}_diff": difference}
        row |= {f"{metric}_diff_low": np.nan, f"{metric}_diff_high": np.nan}
        primary = metric in ("rmse", "auc") and not tested and np.isfinite(difference)
        if primary:
            tested = True
            row["gain"] = difference if metric == "auc" else -difference
        if draws is None:
            continue
        low, high = _both(draws[:, part], metric)
        spread = (high - low)[:, None]
        low, high = percentile_interval(spread)
        row |= {f"{metric}_diff_low": float(low[0]), f"{metric}_diff_high": float(high[0])}
        if primary:
            row["p"] = float(two_sided_p(spread)[0])
    return row


def _both(sums: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a metric of A and of B from (m, 4) sums: numerator and denominator of each."""
    a, b = ratio(sums[:, 0], sums[:, 1]), ratio(sums[:, 2], sums[:, 3])
    return (np.sqrt(a), np.sqrt(b)) if metric == "rmse" else (a, b)
