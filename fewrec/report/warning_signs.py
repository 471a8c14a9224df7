"""What a table must say about a row besides its figures: collapsed, copied, off-scale, or resting on few users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewrec.report.figures import AlignedScores

FEW_USERS = 100
_SAME = 1e-9
_OFF_SCALE_SHARE = 0.2  # of the users; a linear model steps over the edge for a few
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
            notes.append(f"identical to {', '.join(labels[other] for other in same)}")
        if scale is not None and len(low):
            off = ((low < scale[0] - _SAME) | (high > scale[1] + _SAME)).mean()
            if off >= _OFF_SCALE_SHARE:
                notes.append(f"predictions outside {scale[0]:g}..{scale[1]:g} for {off:.0%} of the users")
        users = aligned.users(row)
        if users < FEW_USERS:
            notes.append(f"only {users} test user{'s' * (users != 1)}")
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
