"""What a table must say about a row besides its figures: collapsed, copied, off-scale, on few users, tuned on the test.

Apart from the figures because none of this changes one; each sign is a few plain words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fewrec.report.figures import AlignedScores
from fewrec.report.naming import IDENTICAL
from fewrec.seeding import canonical_json

FEW_USERS = 100
_SAME = 1e-9
_ON_TEST = "meta-test used for tuning"
_UNDEFINED_SHARE = 0.05  # of the (episode, user) rows
_OFF_SCALE_SHARE = 0.2  # of the users; a linear model steps over the edge for a few
_COVERAGE = (0.80, 0.97)  # of central 90 % intervals; outside of it they are called too narrow or too wide
_PREDICTION_COLUMNS = ("se", "ae", "auc", "pred_mean", "pred_min", "pred_max")


def prediction_warnings(
    aligned: AlignedScores, labels: Sequence[str], scale: tuple[float, float] | None
) -> list[list[str]]:
    """Return each row's warnings that its predictions give rise to; ``scale`` is (lowest, highest rating) if known."""
    out: list[list[str]] = [[] for _ in labels]
    lowest, highest, present = aligned.get("pred_min"), aligned.get("pred_max"), aligned.present
    for row, notes in enumerate(out):
        low, high = lowest[row, present[row]], highest[row, present[row]]
        if len(low) and high.max() - low.min() <= _SAME:
            notes.append("constant predictions")
        elif len(low) and (high - low).max() <= _SAME:
            notes.append("one constant for each user")
        same = identical_rows(aligned, row)
        if same:
            notes.append(f"{IDENTICAL}{', '.join(labels[other] for other in same)}")
        if scale is not None and len(low):
            off = ((low < scale[0] - _SAME) | (high > scale[1] + _SAME)).mean()
            if off >= _OFF_SCALE_SHARE:
                notes.append(f"predictions outside {scale[0]:g}..{scale[1]:g} for {100 * off:.0f} % of the users")
        notes += undefined_metrics(aligned, row)
        notes += miscalibration(aligned, row)
        users = aligned.users(row)
        if users < FEW_USERS:
            notes.append(f"only {users} test user{'s' * (users != 1)}")
    return out


def undefined_metrics(aligned: AlignedScores, row: int) -> list[str]:
    """Return which ranking metrics have no value for more than 5 % of the row's users, each user counted an episode.

    A metric that no user of the row has was not computed (a query too short for nDCG@k), unless it is AUC.
    """
    shares: dict[float, list[str]] = {}
    for name in sorted(aligned.values):
        if name == "auc" or name.startswith("ndcg"):
            defined = np.isfinite(aligned.values[name][row, aligned.present[row]])
            if len(defined) and (defined.any() or name == "auc") and (~defined).mean() > _UNDEFINED_SHARE:
                shown = "AUC" if name == "auc" else f"nDCG@{name.removeprefix('ndcg')}"
                shares.setdefault(float((~defined).mean()), []).append(shown)
    return [f"{' and '.join(names)} undefined for {100 * share:.0f} % of the users" for share, names in shares.items()]


def miscalibration(aligned: AlignedScores, row: int) -> list[str]:
    """Return whether the row's central 90 % intervals hold less than 80 % or more than 97 % of the query ratings."""
    within = aligned.get("within90")[row]
    held = np.isfinite(within)
    if not held.any():
        return []
    share = within[held].sum() / aligned.get("n")[row, held].sum()
    if _COVERAGE[0] <= share <= _COVERAGE[1]:
        return []
    kind = "narrow" if share < _COVERAGE[0] else "wide"
    return [f"intervals too {kind}: those of 90 % hold {100 * share:.1f} % of the ratings"]


def tuning_warnings(of_rows: Sequence[pd.DataFrame], primary: Sequence[float]) -> list[list[str]]:
    """Return each row's warnings that its options were chosen by the ratings that it is judged on.

    ``of_rows``: the cells of each row of a task, all with figures; ``primary`` (rows,): the figure that says which of
    them is the better one, the lower the better. A row is suspect (a) if it was tuned on this data set with other
    seeds, because the users that a split tests may be those that another split validates on; (b) if its options were
    set by hand and it is the best of several configurations of its learner in this table; (c) if other configurations
    stood in its place before. A tuned row is not suspect for (b) and (c): it was chosen on meta-validation.
    """
    out: list[list[str]] = [[] for _ in of_rows]
    learners = [of_row["learner"].iloc[0] for of_row in of_rows]
    configurations = [canonical_json(of_row["config"].iloc[0]) for of_row in of_rows]
    for row, (notes, cells) in enumerate(zip(out, of_rows, strict=True)):
        kinds = {tuning.get("kind") for tuning in cells["tuning"] if isinstance(tuning, dict)}
        if "tuned" in kinds:
            seeds = [
                int(seed)
                for seed, dataset, tuning in zip(cells["seed"], cells["dataset"], cells["tuning"], strict=True)
                if isinstance(tuning, dict) and tuning.get("dataset") == dataset and seed not in tuning.get("seeds", [])
            ]
            if seeds:
                named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}"
                notes.append(f"{_ON_TEST}: test users of {named} may be among those that it was tuned on")
            continue
        same = [other for other, learner in enumerate(learners) if learner == learners[row]]
        several = len({configurations[other] for other in same})
        if "set" in kinds and several > 1 and row == min(same, key=lambda other: primary[other]):
            notes.append(
                f"{_ON_TEST}: set by hand, and the best of {several} configurations of {learners[row]} in this table"
            )
        others = int(cells["other_configurations"].max())
        if others:
            notes.append(
                f"{_ON_TEST}: {others} other configuration{'s' * (others > 1)} of this row "
                f"{'were' if others > 1 else 'was'} tested before"
            )
    return out


def identical_rows(aligned: AlignedScores, row: int) -> list[int]:
    """Return the other rows with the same keys whose errors and predictions equal those of ``row`` to 1e-9."""
    same = (aligned.present == aligned.present[row]).all(axis=1)
    for name in _PREDICTION_COLUMNS:
        if name in aligned.values:
            mine, theirs = aligned.values[name][row], aligned.values[name]
            both_absent = np.isnan(theirs) & np.isnan(mine)
            with np.errstate(invalid="ignore"):
                same &= (both_absent | (np.abs(theirs - mine) <= _SAME)).all(axis=1)
    return [int(other) for other in np.flatnonzero(same) if other != row]
