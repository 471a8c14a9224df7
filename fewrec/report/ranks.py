"""Average ranks of a task's rows over its users, and which rows they don't tell apart; figures.py has errors instead.

Each test user is a "data set" in the sense of Demšar (JMLR 7, 2006): rows are ranked by the user's own mean squared
error (of clicks: by 1 - AUC), and mean ranks are compared by Friedman's test and the Nemenyi test (his section 3.2.2).
"""

from __future__ import annotations

import string
import warnings
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from fewrec.metrics.statistics import ratio
from fewrec.report.figures import LEVEL, AlignedScores
from fewrec.report.results import Results

_SAME = 9  # decimals: errors that agree to 1e-9 are tied, whatever the order in which they were added up


@dataclass(frozen=True)
class RankFigures:
    """Mean ranks of a task's rows, best first.

    ``labels`` and ``mean_rank`` (k,): the rows that cover every (seed, episode, user) of the task. ``groups``: maximal
    ranges (i, j), both ends included, of rows whose mean ranks differ by less than ``critical_difference``; a row that
    differs from all others is a range of its own, (i, i). ``users``: on how many the ranks rest. ``p_friedman``: of the
    hypothesis that all rows rank alike.
    """

    labels: tuple[str, ...]
    mean_rank: np.ndarray
    critical_difference: float
    groups: tuple[tuple[int, int], ...]
    users: int
    p_friedman: float

    @property
    def letters(self) -> tuple[str, ...]:
        """One text a row: a letter for each group that it is in, so that rows that share one are not told apart."""
        names = [_letter(number) for number in range(len(self.groups))]
        return tuple(
            "".join(name for name, (first, last) in zip(names, self.groups, strict=True) if first <= row <= last)
            for row in range(len(self.labels))
        )


def task_ranks(results: Results, task: tuple) -> RankFigures | None:
    """Return the mean ranks of a task's rows; ``task`` is the tuple that ``leaderboard.tasks`` yields.

    Ranks are by mean squared error, or by 1 - AUC where the task is of clicks. None with fewer than 3 rows or 2 users.
    Several forms of a table ask for the same ones, so they are kept as long as ``results`` are.
    """
    kept = _kept.setdefault(results, {})
    if task not in kept:
        kept[task] = _ranks_of(results, task)
    return kept[task]


_kept: WeakKeyDictionary[Results, dict[tuple, RankFigures | None]] = WeakKeyDictionary()


def _ranks_of(results: Results, task: tuple) -> RankFigures | None:
    by_row = results.of_task(task).groupby(["learner", "label"], sort=False)
    rows = [
        (label, of_row)
        for (_, label), of_row in sorted(by_row, key=lambda pair: pair[0])
        if (of_row["status"] == "ok").all()
    ]
    if not rows:
        return None
    ranked = rank_rows(
        AlignedScores.of_cells(results.scores, [of_row for _, of_row in rows]), [name for name, _ in rows]
    )
    return ranked[0] if ranked else None


def rank_rows(aligned: AlignedScores, labels: list[str]) -> tuple[RankFigures, np.ndarray] | None:
    """Return the mean ranks of the rows of ``aligned`` and which row of it each one is, best first; or None."""
    from scipy.stats import friedmanchisquare, rankdata

    errors = _user_errors(aligned)
    rows = np.flatnonzero(aligned.present.all(axis=1) & np.isfinite(errors).any(axis=0))
    errors = errors[:, rows]
    errors = np.round(errors[np.isfinite(errors).all(axis=1)], _SAME)
    users, k = errors.shape
    if k < 3 or users < 2:
        return None
    mean = rankdata(errors, axis=1).mean(axis=0)
    order = np.array(sorted(range(k), key=lambda row: (mean[row], labels[rows[row]])))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # rows that tie for every user have no chi-square
        p = float(friedmanchisquare(*errors.T).pvalue)
    difference = critical_difference(k, users)
    figures = RankFigures(
        tuple(labels[row] for row in rows[order]),
        mean[order],
        difference,
        groups_within(mean[order], difference),
        users,
        p if np.isfinite(p) else 1.0,
    )
    return figures, rows[order]


def critical_difference(k: int, users: int, level: float = LEVEL) -> float:
    """Return by how much two of k mean ranks over ``users`` must differ: q sqrt(k (k + 1) / (6 users)).

    The Nemenyi test, Demšar's equation in section 3.2.2; q is the studentized range's quantile over sqrt(2).
    """
    return nemenyi_quantile(k, level) * float(np.sqrt(k * (k + 1) / (6 * users)))


@lru_cache(maxsize=256)
def nemenyi_quantile(k: int, level: float = LEVEL) -> float:
    """Return the critical value q of the two-tailed Nemenyi test for k rows (Demšar, table 5a)."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - level, k, np.inf) / np.sqrt(2))


def groups_within(sorted_ranks: np.ndarray, difference: float) -> tuple[tuple[int, int], ...]:
    """Return the maximal ranges (i, j) of ``sorted_ranks`` (ascending) within less than ``difference``."""
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(sorted_ranks):
        last = int(np.searchsorted(sorted_ranks, rank + difference, side="left")) - 1
        last = max(last, first)
        if not groups or last > groups[-1][1]:
            groups.append((first, last))
    return tuple(groups)


def _user_errors(aligned: AlignedScores) -> np.ndarray:
    """Return each user's mean squared error, or 1 - AUC where no row has squared errors, (users, rows)."""
    error, n = aligned.get("se"), aligned.get("n")
    if not aligned.rated:
        error, n = 1 - aligned.get("auc"), np.ones(aligned.present.shape)
    n = np.where(np.isfinite(error), n, 0)
    return ratio(aligned.user_sums(error), aligned.user_sums(n))


def _letter(number: int) -> str:
    letters = string.ascii_lowercase + string.ascii_uppercase
    again, place = divmod(number, len(letters))
    return letters[place] + (str(again + 1) if again else "")
