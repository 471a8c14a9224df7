"""Writing leaderboard.md, .csv and .json beside the cells, byte-identical each time, and showing one in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fewrec.report.files import json_bytes, write_whole
from fewrec.report.leaderboard import TRIVIAL, leaderboard, tasks
from fewrec.report.markdown import markdown
from fewrec.report.numbers import csv_field, fixed, interval, one_line, rounded, short
from fewrec.report.results import Results, load_results

if TYPE_CHECKING:
    from rich.console import Group


def write_leaderboard(folder: str | Path) -> pd.DataFrame:
    """Write leaderboard.csv, .json and .md into ``folder`` from its cells alone, and return the leaderboard.

    The same cells give the same bytes. Raises ``DataError`` for a broken folder, ``FolderError`` for one that can't be
    written.
    """
    results = load_results(folder)
    frame = leaderboard(results)
    write_whole(results.path / "leaderboard.csv", csv_text(frame).encode())
    write_whole(results.path / "leaderboard.json", json_bytes(json_value(results, frame)))
    write_whole(results.path / "leaderboard.md", markdown(results, frame).encode())
    return frame


def csv_text(frame: pd.DataFrame) -> str:
    """Return a leaderboard as CSV: metrics with six decimals, costs with six significant digits, empty where absent."""
    lines = [",".join(frame.columns)]
    for row in frame.itertuples(index=False, name=None):
        lines.append(",".join(csv_field(name, value) for name, value in zip(frame.columns, row, strict=True)))
    return "\n".join(lines) + "\n"


def json_value(results: Results, frame: pd.DataFrame) -> dict[str, Any]:
    """Return a leaderboard with what it was made of, as JSON values; null where absent."""
    records = [
        {name: rounded(name, value) for name, value in zip(frame.columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]
    parts = {name: results.manifest.get(name) for name in ("command", "environment", "datasets", "splits")}
    return {"schema": 1, "suite": results.suite, **parts, "columns": list(frame.columns), "rows": records}


def terminal_table(frame: pd.DataFrame) -> Group:
    """Return a leaderboard as a rich renderable, one table a task."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables = []
    for (dataset, protocol, _, n_users, k_shot, n_query), rows in tasks(frame):
        title = Text(one_line(f"{dataset}, {protocol}: N={n_users}, K={k_shot}, Q={n_query}"))
        table = Table(title=title, title_justify="left")
        table.add_column("learner")
        for column in ("RMSE", "- bias [95 %]", "nDCG@5", "AUC", "skill", "meta-fit s", "adapt ms"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for row in rows.to_dict("records"):
            name = Text(one_line(row["label"]), style="dim" if row["learner"] in TRIVIAL else "")
            if row["status"] != "ok":
                said = Text(one_line(f"{row['status']}: {row['reason']}"), style="red")
                table.add_row(name, *[""] * 7, said)
                continue
            table.add_row(
                name,
                fixed(row["rmse"], 4),
                Text(interval(row["diff_bias"], row["diff_bias_low"], row["diff_bias_high"], sign=True)),
                fixed(row["ndcg5"], 4),
                fixed(row["auc"], 4),
                fixed(row["skill"], 3, sign=True),
                short(row["meta_fit_s"]),
                short(row["adapt_ms_p50"]),
                Text(one_line(row["warning"] or ""), style="yellow"),
            )
        tables.append(table)
    return Group(*tables)
