"""Writing leaderboard.md, .csv, .tex and .json beside the cells, byte-identical each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.report.figures import Interval
from fewrec.report.files import json_bytes, write_whole
from fewrec.report.latex import latex
from fewrec.report.leaderboard import TASK, leaderboard, tasks
from fewrec.report.markdown import markdown
from fewrec.report.numbers import csv_field, rounded
from fewrec.report.ranks import task_ranks
from fewrec.report.results import Results, load_results
from fewrec.report.terminal import terminal_table

__all__ = ["csv_text", "json_value", "leaderboard_files", "terminal_table", "write_leaderboard"]


def write_leaderboard(
    folder: str | Path, out: str | Path | None = None, *, interval: Interval = "percentile"
) -> pd.DataFrame:
    """Write leaderboard.csv, .json, .md and .tex from the cells in ``folder`` alone, and return the leaderboard.

    They are written into ``out``, or ``folder`` itself. The same cells give the same bytes. Raises ``DataError`` for a
    broken folder, ``FolderError`` for one that can't be written.
    """
    results = load_results(folder)
    frame = leaderboard(results, interval)
    for name, content in leaderboard_files(results, frame).items():
        write_whole(Path(out or results.path) / name, content)
    return frame


def leaderboard_files(results: Results, frame: pd.DataFrame) -> dict[str, bytes]:
    """Return what the files of ``frame``, the leaderboard of ``results``, hold, by name."""
    return {
        "leaderboard.csv": csv_text(frame).encode(),
        "leaderboard.json": json_bytes(json_value(results, frame)),
        "leaderboard.md": markdown(results, frame).encode(),
        "leaderboard.tex": latex(results, frame).encode(),
    }


def csv_text(frame: pd.DataFrame) -> str:
    """Return a leaderboard as CSV: metrics with six decimals, costs with six significant digits, empty where absent."""
    lines = [",".join(frame.columns)]
    for row in frame.itertuples(index=False, name=None):
        lines.append(",".join(csv_field(name, value) for name, value in zip(frame.columns, row, strict=True)))
    return "\n".join(lines) + "\n"


def json_value(results: Results, frame: pd.DataFrame) -> dict[str, Any]:
    """Return a leaderboard with what it was made of, as JSON values; null where absent.

    Keys of schema 1: ``suite``, ``command``, ``environment``, ``datasets``, ``splits`` (as in manifest.json),
    ``interval`` (``percentile`` or ``bca``), ``columns`` and ``rows`` (an object a row, by column), and ``ranks``: for
    each task that has them, its fields, ``labels`` and ``mean_rank`` (best first), ``groups`` (pairs of indices, both
    ends included), ``critical_difference``, ``users`` and ``p_friedman``.
    """
    records = [
        {name: rounded(name, value) for name, value in zip(frame.columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]
    parts = {name: results.manifest.get(name) for name in ("command", "environment", "datasets", "splits")}
    parts["interval"] = frame.attrs.get("interval", "percentile")
    parts["ranks"] = [ranks for task, _ in tasks(frame) if (ranks := _ranks(results, task))]
    return {"schema": 1, "suite": results.suite, **parts, "columns": list(frame.columns), "rows": records}


def _ranks(results: Results, task: tuple) -> dict[str, Any] | None:
    ranks = task_ranks(results, task)
    if ranks is None:
        return None
    return {
        **{name: rounded(name, value) for name, value in zip(TASK, task, strict=True)},
        "labels": [rounded("label", label) for label in ranks.labels],
        "mean_rank": [rounded("rank", value) for value in ranks.mean_rank],
        "groups": [list(group) for group in ranks.groups],
        "critical_difference": rounded("rank", ranks.critical_difference),
        "users": ranks.users,
        "p_friedman": rounded("p", ranks.p_friedman),
    }
