"""Two versions of one cell's score rows: the same bits or not, where they part, and what that does to each metric.

Apart because ``fewrec verify`` (a cell and its re-run) and ``fewrec compare`` (two runs) ask the same question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

KEYS = ["episode", "user"]
ADDED = ("log_density", "within90")  # records of earlier versions lack them


@dataclass(frozen=True)
class ScoreDifference:
    """How ``new`` score rows differ from ``old`` ones of the same cell.

    ``rows``: in words, what differs in the (episode, user) rows or in the columns themselves, "" where nothing does.
    ``first``: in words, the first score that differs. ``largest``: each differing column's largest absolute difference.
    ``metrics``: the cell's RMSE, MAE, NLPD, nDCG@k and AUC as (old, new), as far as both are defined.
    ``unrecorded``: columns of ``ADDED`` that only ``new`` has; they are not compared and no difference.
    """

    rows: str
    first: str
    largest: dict[str, float]
    metrics: dict[str, tuple[float, float]]
    unrecorded: tuple[str, ...] = ()

    @property
    def same_bytes(self) -> bool:
        """Whether rows, columns, order and every bit of every score agree."""
        return not self.rows and not self.first


def same_bits(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return where two float64 arrays of one shape hold the same bits; all NaN count as the same."""
    old, new = (np.ascontiguousarray(part, dtype=np.float64) for part in (old, new))
    return (old.view(np.uint64) == new.view(np.uint64)) | (np.isnan(old) & np.isnan(new))


def score_columns(scores: pd.DataFrame) -> list[str]:
    """Return the columns of a cell's rows that hold a score; those that only other cells of the table have are out."""
    return [name for name in scores.columns if name not in ("cell", *KEYS) and scores[name].notna().any()]


def score_difference(old: pd.DataFrame, new: pd.DataFrame) -> ScoreDifference:
    """Compare the score rows of one cell: ``old`` as recorded, ``new`` as made again, one row an (episode, user)."""
    old, new = (part.sort_values(KEYS, kind="stable", ignore_index=True) for part in (old, new))
    metrics = _both(pooled_metrics(old), pooled_metrics(new))
    columns, others = score_columns(old), score_columns(new)
    unrecorded = tuple(name for name in ADDED if name in others and name not in columns)
    others = [name for name in others if name not in unrecorded]
    if set(columns) != set(others):
        only = [f"'{name}' is only in the record" for name in columns if name not in others]
        only += [f"'{name}' is not in the record" for name in others if name not in columns]
        return ScoreDifference(f"columns: {', '.join(only)}", "", {}, metrics, unrecorded)
    rows = _row_difference(old, new)
    if rows:
        return ScoreDifference(rows, "", {}, metrics, unrecorded)
    largest, places = {}, []
    for name in columns:
        was, now = old[name].to_numpy(np.float64, na_value=np.nan), new[name].to_numpy(np.float64, na_value=np.nan)
        differs = ~same_bits(was, now)
        if differs.any():
            gaps = np.abs(was - now)[differs]
            largest[name] = float(np.nanmax(gaps)) if np.isfinite(gaps).any() else float("nan")
            places.append((int(np.flatnonzero(differs)[0]), name))
    if not places:
        return ScoreDifference("", "", {}, metrics, unrecorded)
    row, name = min(places, key=lambda place: (place[0], columns.index(place[1])))
    where = f"{name} of episode {old['episode'][row]}, user {old['user'][row]}"
    first = f"{where}: {float(old[name][row])!r} -> {float(new[name][row])!r}"
    return ScoreDifference("", first, largest, metrics, unrecorded)


def _row_difference(old: pd.DataFrame, new: pd.DataFrame) -> str:
    if len(old) == len(new) and (old[KEYS].to_numpy() == new[KEYS].to_numpy()).all():
        return ""
    was, now = (set(map(tuple, part[KEYS].to_numpy().tolist())) for part in (old, new))
    lost, more = sorted(was - now), sorted(now - was)
    said = f"{len(old)} rows of (episode, user) -> {len(new)}"
    if lost:
        said += f"; {len(lost)} are gone, first episode {lost[0][0]}, user {lost[0][1]}"
    if more:
        said += f"; {len(more)} are new, first episode {more[0][0]}, user {more[0][1]}"
    return said if lost or more else f"{said}; some occur twice"


def pooled_metrics(scores: pd.DataFrame) -> dict[str, float]:
    """Return the RMSE, MAE and NLPD over all query ratings of some score rows, and the means over users of nDCG@k and
    AUC.

    What no row defines is left out.
    """
    out = {}
    for metric, column in (("rmse", "se"), ("mae", "ae"), ("nlpd", "log_density")):
        if column in scores and scores[column].notna().any():
            rated = scores[scores[column].notna()]
            mean = rated[column].sum() / rated["n"].sum()
            out[metric] = float({"rmse": np.sqrt, "nlpd": np.negative}.get(metric, float)(mean))
    for name in scores.columns:
        if (name.startswith("ndcg") or name == "auc") and scores[name].notna().any():
            out[name] = float(scores[name].mean())
    return out


def metric_name(metric: str) -> str:
    """Return what people call a metric's column: RMSE, nDCG@5."""
    return f"nDCG@{metric[4:]}" if metric.startswith("ndcg") else metric.upper()


def _both(old: dict[str, float], new: dict[str, float]) -> dict[str, tuple[float, float]]:
    return {name: (old[name], new[name]) for name in old if name in new}
