"""How a comparison of two runs is shown: a terminal, Markdown, CSV and JSON; apart from what is compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from fewrec.report.comparison.compare import Comparison
from fewrec.report.comparison.score_difference import metric_name
from fewrec.report.leaderboard import tasks
from fewrec.report.numbers import csv_field, fixed, markdown_text, one_line, p_text, rounded

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

_STYLES = {"B better": "green", "B worse": "red", "same bytes": "dim", "no difference shown": ""}
_KINDS = {
    "environment": "Environment", "run": "Run", "data": "Data", "split": "Splits", "code": "Code of learners",
    "weights": "Weights",
}  # fmt: skip
_DROPPED_FIRST = (  # how heads begin
    "memory", "adapt", "meta-fit", "MAE", "AUC B −", "nDCG", "NLPD", "RMSE B", "RMSE A", "AUC B", "AUC A", "[95",
)  # fmt: skip
_LABEL_WIDTH = 24  # at most so much of a label is kept in one line where the room is short
_AT_MOST = 12  # labels, hashes ... of a list that are named


def summary(comparison: Comparison) -> str:
    """Return one line: how many rows were compared, with which verdicts, and how many could not be."""
    counts = comparison.rows["verdict"].value_counts() if len(comparison.rows) else {}
    parts = [f"{counts[verdict]} {verdict}" for verdict in _STYLES if verdict in counts]
    said = f"{len(comparison.rows)} rows compared" + (f": {', '.join(parts)}" if parts else "")
    return f"{said}; {len(comparison.not_comparable)} can't be compared."


# what the sections say, in plain text


def _cells(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of a task's table, by head."""
    records = rows.to_dict("records")
    ndcg = sorted(name.removesuffix("_diff") for name in rows if name.startswith("ndcg") and name.endswith("_diff"))
    primary = "rmse" if "rmse_diff" in rows and rows["rmse_diff"].notna().any() else "auc"
    upper = primary.upper()

    def column(name: str, decimals: int, sign: bool = False) -> list[str]:
        return [fixed(row.get(name), decimals, sign) for row in records]

    ends = [[fixed(row.get(f"{primary}_diff_{end}"), 4, sign=True) for end in ("low", "high")] for row in records]
    columns = {
        "learner": [_label(row) for row in records],
        f"{upper} A": column(f"{primary}_a", 4),
        f"{upper} B": column(f"{primary}_b", 4),
        "B − A": column(f"{primary}_diff", 4, sign=True),
        "[95 %]": [f"[{low}, {high}]" if low and high else "" for low, high in ends],
        "p": [
            p_text(row["p_holm"]).removeprefix("p ").removeprefix("= ") if pd.notna(row["p_holm"]) else ""
            for row in records
        ],
        "verdict": [row["verdict"] for row in records],
        "MAE B − A": column("mae_diff", 4, sign=True),
        **{f"{metric_name(name)} B − A": column(f"{name}_diff", 4, sign=True) for name in ndcg[:1]},
        "AUC B − A": column("auc_diff", 4, sign=True) if primary == "rmse" else [""] * len(records),
        "NLPD B − A": column("nlpd_diff", 4, sign=True),
        "meta-fit ×": column("meta_fit_s_ratio", 2),
        "adapt ×": column("adapt_ms_ratio", 2),
        "memory ×": column("peak_mb_ratio", 2),
    }
    return {head: cells for head, cells in columns.items() if any(cells)}


def _label(row: dict[str, Any]) -> str:
    return one_line(row["label"] if row["label"] == row["label_b"] else f"{row['label']} → {row['label_b']}")


def _title(task: tuple) -> str:
    dataset, protocol, _, n_users, k_shot, n_query = task
    return one_line(f"{dataset}, {protocol}: N={n_users}, K={k_shot}, Q={n_query}")


def _beneath(rows: pd.DataFrame) -> Iterator[str]:
    """Yield what the table of a task does not show: notes and options, rows that share one together."""
    having: dict[str, list[str]] = defaultdict(list)
    for row in rows.to_dict("records"):
        for note in filter(None, row["note"].split("; ")):
            having[note].append(_label(row))
        if row["configuration"]:
            having[f"options: {row['configuration']}"].append(_label(row))
    for note, labels in having.items():
        yield f"{'all rows' if len(labels) == len(rows) > 1 else _some(labels)}: {note}"


def _around(comparison: Comparison) -> Iterator[str]:
    differing = comparison.environment[comparison.environment["differs"]]
    for kind, title in _KINDS.items():
        of_kind = differing[differing["kind"] == kind]
        if len(of_kind):
            changes = [f"{name}: {_value(a)} -> {_value(b)}" for name, a, b in
                       zip(of_kind["name"], of_kind["a"], of_kind["b"], strict=True)]  # fmt: skip
            yield f"{title}: {_some(changes, '; ')}"
    same = [title.lower() for kind, title in _KINDS.items()
            if kind != "run" and kind in set(comparison.environment["kind"]) - set(differing["kind"])]  # fmt: skip
    if same:
        yield f"The same, where both have it: {', '.join(same)}."
    if comparison.caution:
        yield f"Caution: {comparison.caution}, so their ratios don't compare learners or versions."


def _value(value: Any) -> str:
    text = "not recorded" if value is None else str(value)
    return text[:12] if len(text) == 64 and " " not in text else text


def _not_comparable(comparison: Comparison) -> Iterator[str]:
    frame = comparison.not_comparable
    for reason, rows in frame.groupby("reason", sort=False):
        records = rows.to_dict("records")
        places: dict[str, list[str]] = defaultdict(list)
        for row in records:
            k_shots = places[f"{row['dataset']}, {row['protocol']}"]
            k_shots += [str(row["k_shot"])] * (str(row["k_shot"]) not in k_shots)
        where = [f"{place}, K={', '.join(k_shots)}" for place, k_shots in places.items()]
        labels = list(dict.fromkeys(_label(row) for row in records))
        many = f"{len(rows)} row{'s' * (len(rows) > 1)}"
        yield f"{many}: {reason}. {_some(labels)} in {_some(where, '; ')}"


def _some(texts: list[str], comma: str = ", ") -> str:
    more = len(texts) - _AT_MOST
    return comma.join(texts[:_AT_MOST]) + (f"{comma}and {more} more" if more > 0 else "")


_LEGEND = (
    "B − A on the episodes that both have, with 95 % intervals over users; p: two-sided, corrected by Holm over all "
    "rows that aren't the same bytes; × is B / A."
)


# the formats


class TerminalComparison:
    """A comparison for ``Console.print``: a table a task, fitted to the width, and the sections below."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables, what differs around them, what can't be compared, and the summary."""
        from rich.text import Text

        yield Text(one_line(f"A: {self.comparison.a}"))
        yield Text(one_line(f"B: {self.comparison.b}"))
        yield Text("")
        left_out: dict[str, None] = {}
        for task, rows in tasks(self.comparison.rows) if len(self.comparison.rows) else ():
            yield Text(_title(task), style="bold")
            table, dropped = _fitting(rows, options.max_width, console, options)
            left_out |= dropped
            yield table
            for line in _beneath(rows):
                yield Text(one_line(line), style="dim")
            yield Text("")
        if len(self.comparison.rows):
            yield Text(_LEGEND + (f" No room for: {', '.join(left_out)}." if left_out else ""), style="dim")
            yield Text("")
        yield Text("What differs around the scores", style="bold")
        for line in _around(self.comparison):
            yield Text(one_line(line), style="yellow" if line.startswith("Caution") else "")
        refused = list(_not_comparable(self.comparison))
        if refused:
            yield Text("")
            yield Text("What can't be compared", style="bold")
            for line in refused:
                yield Text(one_line(f"- {line}"))
        yield Text("")
        yield Text(summary(self.comparison), style="bold")


def _fitting(
    rows: pd.DataFrame, width: int, console: Console, options: ConsoleOptions
) -> tuple[Table, dict[str, None]]:
    """Return a task's table with as many columns as the width has room for, and the heads of those left out."""
    from rich.measure import Measurement

    columns = _cells(rows)
    longer = max(max(map(len, columns["learner"])) - _LABEL_WIDTH, 0)  # a longer label is folded, a number never
    table, left_out = _table(rows, columns), dict[str, None]()
    for dropped in _DROPPED_FIRST:
        if Measurement.get(console, options.update(max_width=10_000), table).maximum - longer <= width:
            break
        left_out |= dict.fromkeys(head for head in columns if head.startswith(dropped))
        columns = {head: cells for head, cells in columns.items() if head not in left_out}
        table = _table(rows, columns)
    return table, left_out


def _table(rows: pd.DataFrame, columns: dict[str, list[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for head in columns:
        text = head in ("learner", "verdict")
        table.add_column(head, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for verdict, *cells in zip(rows["verdict"], *columns.values(), strict=True):
        table.add_row(*map(Text, cells), style=_STYLES[verdict])
    return table


def markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown, every text of the runs escaped."""
    lines = ["# Comparison", "", f"- A: {markdown_text(comparison.a)}", f"- B: {markdown_text(comparison.b)}", ""]
    lines += [summary(comparison), ""]
    for task, rows in tasks(comparison.rows) if len(comparison.rows) else ():
        columns = _cells(rows)
        lines += [f"## {markdown_text(_title(task))}", "", f"| {' | '.join(map(markdown_text, columns))} |"]
        lines.append("|" + "|".join(" --- " if head in ("learner", "verdict") else " ---: " for head in columns) + "|")
        lines += [f"| {' | '.join(map(markdown_text, cells))} |" for cells in zip(*columns.values(), strict=True)]
        lines += ["", *(f"- {markdown_text(line)}" for line in _beneath(rows)), ""]
    if len(comparison.rows):
        lines += [_LEGEND, ""]
    lines += [
        "## What differs around the scores",
        "",
        *(f"- {markdown_text(line)}" for line in _around(comparison)),
        "",
    ]
    refused = list(_not_comparable(comparison))
    if refused:
        lines += ["## What can't be compared", "", *(f"- {markdown_text(line)}" for line in refused), ""]
    return "\n".join(lines)


def csv_text(comparison: Comparison) -> str:
    """Return all rows as CSV: those that were compared, then those that can't be, with the reason as their note."""
    refused = comparison.not_comparable.rename(columns={"reason": "note"}).assign(verdict="can't be compared")
    columns = list(comparison.rows.columns)
    columns += [name for name in ("note",) if name not in columns]
    lines = [",".join(columns)]
    for frame in (comparison.rows, refused):
        for row in frame.to_dict("records"):
            lines.append(",".join(csv_field(name, row.get(name)) for name in columns))
    return "\n".join(lines) + "\n"


def json_value(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values, frames as lists of objects; null where absent."""

    def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
        return [{name: _json(name, value) for name, value in row.items()} for row in frame.to_dict("records")]

    return {
        "schema": 1, "a": comparison.a, "b": comparison.b, "summary": summary(comparison),
        "costs_comparable": comparison.costs_comparable, "caution": comparison.caution,
        "rows": records(comparison.rows), "environment": records(comparison.environment),
        "not_comparable": records(comparison.not_comparable),
    }  # fmt: skip


def _json(name: str, value: Any) -> Any:
    return value if isinstance(value, bool) else rounded(name, value)
