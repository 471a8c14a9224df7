"""Columns that a leaderboard has only where some row fills them; apart because all forms of a table add the same ones.

They are nDCG at other k than 5 (suites with ``ndcg_at``), the figures of the k highest-rated query items (suites with
``top_at``), AUC over the rows of all users (windows in time), the calibration of learners that have a distribution, and
the latency of an update (the online protocol).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

_NDCG = re.compile(r"ndcg(\d+)")
POOLED = "auc_all"
_TOP = re.compile(r"top(\d+)_(precision|ndcg|mrr)")
_NAMES = {"precision": "P", "ndcg": "nDCG", "mrr": "MRR"}
UPDATES = ("update_ms_p50", "update_ms_p95")
CALIBRATION = ("nlpd", "coverage90")


@dataclass(frozen=True)
class Optional:
    """A column, its head, and whether it is a metric (four decimals and an interval) or a cost; ``ascending``: low is
    good."""

    name: str
    head: str
    metric: bool
    meaning: str
    ascending: bool

    @property
    def head_with_ends(self) -> str:
        """The head where intervals are in the same cells; that of the top-k figures has never said so."""
        return f"{self.head} [95 %]" if self.name in CALIBRATION else self.head


def top_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the figures of the k highest-rated items among ``columns``, by k, precision first."""
    found = [(int(match[1]), list(_NAMES).index(match[2]), name) for name in columns if (match := _TOP.fullmatch(name))]
    return tuple(name for *_, name in sorted(found))


def optional_columns(frame: pd.DataFrame) -> list[Optional]:
    """Return the optional columns that have a value anywhere in ``frame``."""
    out = []
    meaning = "mean over users, each over the user's own query, ties by expectation"
    for at in sorted(int(match[1]) for name in frame.columns if (match := _NDCG.fullmatch(name))):
        if at != 5:  # which every table has a place for
            out.append(Optional(f"ndcg{at}", f"nDCG@{at}", True, meaning, False))
    for name in top_names(frame.columns):
        k, kind = _TOP.fullmatch(name).groups()  # type: ignore[union-attr]  # top_names matched it
        meaning = f"mean over users, relevant are the {k} highest-rated items of the query, ties by expectation"
        out.append(Optional(name, f"top-{k} {_NAMES[kind]}@{k}", True, meaning, False))
    meaning = "share of all pairs of unequal query rows, of whatever users, in the right order; mean over seeds"
    out.append(Optional(POOLED, "AUC, all rows", True, meaning, False))
    meaning = (
        "mean over all query ratings of − log N(rating; mean, sd²), mean not clipped, for learners that predict a "
        "distribution; lower is better"
    )
    out.append(Optional(CALIBRATION[0], "NLPD", True, meaning, True))
    meaning = (
        "share of the query ratings in the central 90 % intervals, mean ± 1.645 sd, of the same distributions; near .9 "
        "is right, below it they are too narrow, above it too wide"
    )
    out.append(Optional(CALIBRATION[1], "90 % cover", True, meaning, False))
    meaning = "median milliseconds to learn one more rating of each user of an episode, one episode at a time"
    out.append(Optional(UPDATES[0], "update ms", False, meaning, True))
    out.append(Optional(UPDATES[1], "update ms p95", False, meaning.replace("median", "95th percentile of the"), True))
    return [column for column in out if column.name in frame and frame[column.name].notna().any()]
