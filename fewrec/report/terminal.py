"""The leaderboard in a terminal: as many columns as its width has room for, numbers never broken; apart from files.

What does not fit is left out column by column, the least important first, and the last line says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from fewrec.report.leaderboard import TRIVIAL, is_best, is_tie, tasks
from fewrec.report.measure import AUC, measure_of
from fewrec.report.naming import grouped_signs
from fewrec.report.numbers import fixed, one_line, short
from fewrec.report.optional import CALIBRATION, Optional, optional_columns

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

Cell = Callable[[dict[str, Any]], str]


def _ends(name: str, decimals: int, sign: bool = False) -> Cell:
    def cell(row: dict[str, Any]) -> str:
        low, high = (fixed(row[f"{name}_{end}"], decimals, sign) for end in ("low", "high"))
        return f"[{low}, {high}]" if low and high else ""

    return cell


Columns = tuple[tuple[str, str, Cell], ...]  # the leaderboard's column, its head, how a row's cell is written

_SHARED: Columns = (
    ("skill", "skill", lambda row: fixed(row["skill"], 3, sign=True)),
    ("rank", "rank", lambda row: fixed(row["rank"], 2)),
    ("rank_group", "", lambda row: row["rank_group"]),
    ("nlpd", "NLPD", lambda row: fixed(row["nlpd"], 4)),
    ("nlpd_low", "[95 %]", _ends("nlpd", 3)),
    ("coverage90", "90 % cover", lambda row: fixed(row["coverage90"], 4)),
    ("coverage90_low", "[95 %]", _ends("coverage90", 3)),
    ("meta_fit_s", "meta-fit s", lambda row: short(row["meta_fit_s"])),
    ("adapt_ms_p50", "adapt ms", lambda row: short(row["adapt_ms_p50"])),
    ("predict_ms", "predict ms", lambda row: short(row["predict_ms"])),
    ("episodes_per_s", "episodes/s", lambda row: short(row["episodes_per_s"])),
    ("tuning", "tuning", lambda row: one_line(row["tuning"])),
)
_OF_RATINGS: Columns = (
    ("rmse", "RMSE", lambda row: fixed(row["rmse"], 4) + (" ≈" if is_tie(row) else "  ")),
    ("rmse_low", "[95 %]", _ends("rmse", 3)),
    ("diff_bias", "− bias", lambda row: fixed(row["diff_bias"], 4, sign=True)),
    ("diff_bias_low", "[95 %]", _ends("diff_bias", 4, sign=True)),
    ("mae", "MAE", lambda row: fixed(row["mae"], 4)),
    ("ndcg5", "nDCG@5", lambda row: fixed(row["ndcg5"], 4)),
    ("auc", "AUC", lambda row: fixed(row["auc"], 4)),
    *_SHARED,
)
_OF_CLICKS: Columns = (
    ("auc", "AUC", lambda row: fixed(row["auc"], 4) + (" ≈" if is_tie(row) else "  ")),
    ("auc_low", "[95 %]", _ends("auc", 3)),
    ("diff_popularity", "AUC − popularity", lambda row: fixed(row["diff_popularity"], 4, sign=True)),
    ("diff_popularity_low", "[95 %]", _ends("diff_popularity", 4, sign=True)),
    ("ndcg5", "nDCG@5", lambda row: fixed(row["ndcg5"], 4)),
    *_SHARED,
)
_DROPPED_FIRST = (
    "update_ms_p95", "coverage90_low", "nlpd_low", "episodes_per_s", "predict_ms", "mae", "rmse_low", "auc_low",
    "coverage90", "nlpd", "skill", "meta_fit_s", "rank_group", "rank", "tuning", "adapt_ms_p50", "auc", "ndcg5",
    "diff_bias_low", "diff_popularity_low", "diff_bias", "diff_popularity",
)  # fmt: skip
_DROPPED_NAMES = {
    "rmse_low": "intervals of RMSE", "diff_bias_low": "intervals of − bias", "rank_group": "groups of ranks",
    "nlpd_low": "intervals of NLPD", "coverage90_low": "intervals of 90 % cover",
    "auc_low": "intervals of AUC", "diff_popularity_low": "intervals of AUC − popularity",
}  # fmt: skip
_LABEL_WIDTH = 18  # at most so much of a label is kept in one line where the room is short


def terminal_table(frame: pd.DataFrame) -> TerminalLeaderboard:
    """Return a leaderboard as a rich renderable, one table a task, which fits itself to the console's width."""
    return TerminalLeaderboard(frame)


class TerminalLeaderboard:
    """What ``terminal_table`` returns; ``Console.print`` knows what to do with it."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables of all tasks and, last, what their marks mean."""
        from rich.text import Text

        left_out: set[str] = set()
        for task, rows in tasks(self.frame):
            scored, others = rows[rows["status"] == "ok"], rows[rows["status"] != "ok"]
            dataset, protocol, _, n_users, k_shot, n_query = task
            title = f"{dataset}, {protocol}: N={n_users}, K={k_shot}, Q={n_query}"
            yield Text(one_line(title) + _counts(scored), style="bold")
            if len(scored):
                table, dropped = _fitting(scored, options.max_width, console, options)
                left_out |= dropped
                yield table
            yield from _beneath(scored, others)
            yield Text("")
        if not len(self.frame):
            yield Text("There is no finished cell yet.")
        else:
            yield Text(_legend(self.frame, left_out), style="dim")


def _fitting(scored: pd.DataFrame, width: int, console: Console, options: ConsoleOptions) -> tuple[Table, set[str]]:
    """Return the table of the columns that fit into ``width``, and the heads of those that don't."""
    from rich.measure import Measurement

    rows = scored.to_dict("records")
    plain = scored["tuning"].isin(["", "default"]).all()
    measure = measure_of(scored)
    columns = {
        name: (head, [cell(row) for row in rows])
        for name, head, cell in (*(_OF_CLICKS if measure is AUC else _OF_RATINGS), *_optional(scored))
        if name in scored
        and scored[name].notna().any()
        and not (name == "tuning" and plain)
        and scored[name].ne("").any()
    }
    longest = max(len(one_line(row["label"])) for row in rows)
    shortened = max(longest - _LABEL_WIDTH, 0)  # a longer label is folded, a number never
    dropped: set[str] = set()
    table = _table(rows, columns)
    for name in _DROPPED_FIRST:
        if Measurement.get(console, options.update(max_width=10_000), table).maximum - shortened <= width:
            break
        if name in columns and name != measure.column:
            head = columns.pop(name)[0]
            dropped.add(_DROPPED_NAMES.get(name, head))
            table = _table(rows, columns)
    return table, dropped


def _optional(scored: pd.DataFrame) -> Columns:
    others = [column for column in optional_columns(scored) if column.name not in CALIBRATION]  # they stand further up
    return tuple((column.name, column.head, _written(column)) for column in others)


def _written(column: Optional) -> Cell:
    return lambda row: fixed(row[column.name], 4) if column.metric else short(row[column.name])


def _table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, list[str]]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("learner", overflow="fold")
    for name, (head, _) in columns.items():
        table.add_column(head, justify="left" if name in ("tuning", "rank_group") else "right", no_wrap=True)
    for row, *cells in zip(rows, *(cells for _, cells in columns.values()), strict=True):
        table.add_row(_label(row), *map(Text, cells), style="bold" if is_best(row) else "")
    return table


def _label(row: dict[str, Any]) -> Text:
    from rich.text import Text

    return Text(one_line(row["label"]), style="italic dim" if row["learner"] in TRIVIAL else "")


def _beneath(scored: pd.DataFrame, others: pd.DataFrame) -> list[Text]:
    """Return the lines under a table: warnings, then rows without figures, those that share a reason in one line."""
    from rich.text import Text

    lines = [Text(one_line(f"! {said}: {labels}"), style="yellow") for said, labels in grouped_signs(scored)]
    for (status, reason), of_reason in others.groupby(["status", "reason"], sort=False):
        said = f"{', '.join(of_reason['label'])}: {status}: {reason}"
        lines.append(Text(one_line(said), style="dim" if status == "not applicable" else "red"))
    return lines


def _counts(scored: pd.DataFrame) -> str:
    users = sorted(set(scored["users"].dropna()))
    return f" ({' or '.join(f'{count:,}' for count in users)} test users)" if users else ""


def _legend(frame: pd.DataFrame, left_out: set[str]) -> str:
    parts = []
    if frame["tie"].eq(1).any():
        parts.append("≈ not told apart from the best row (Holm-corrected p at least .05).")
    if frame["rank"].notna().any() and not left_out & {"rank", "groups of ranks"}:
        parts.append("Ranks that share a letter are not told apart (Nemenyi, .05).")
    if left_out:
        parts.append(f"No room for: {', '.join(sorted(left_out))}.")
    return " ".join(parts)
