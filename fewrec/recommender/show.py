"""Recommendations, questions and found titles as a table for the terminal, JSON or CSV; titles are untrusted text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from fewrec.recommender.advice import Recommendations
from fewrec.recommender.questions import Questions
from fewrec.recommender.titles import TitleIndex
from fewrec.report.files import json_bytes
from fewrec.report.numbers import csv_field, fixed, one_line

FOUND = ("item", "title", "year", "genres", "ratings")
_NUMBERS = {"#", "was", "predicted", "ratings", "item", "information", "known by", "expected"}


def found_rows(titles: TitleIndex, items: Sequence[int]) -> list[dict[str, Any]]:
    """Return what is shown of items that were looked for."""
    return [
        {"item": titles.ids[i], "title": titles.title(i), "year": titles.years[i], "genres": titles.genres[i],
         "ratings": int(titles.count[i])}
        for i in items
    ]  # fmt: skip


def rows_of(found: Recommendations | Questions) -> list[dict[str, Any]]:
    """Return one dictionary an item, as JSON values; ``moved_by`` of a recommendation: its ratings, strongest first."""
    rows: list[dict[str, Any]] = [
        {str(key): _plain(value) for key, value in values.items()} for values in found.frame.to_dict("records")
    ]
    if isinstance(found, Questions):
        return rows
    by_rank = {rank: part for rank, part in found.moved.groupby("rank")}
    for row in rows:
        part = by_rank.get(row["rank"], found.moved.iloc[:0])
        row["moved_by"] = [
            {"item": _plain(m.rated_item), "title": one_line(m.rated_title), "rating": _plain(m.rating),
             "change": _plain(m.change)}
            for m in part.itertuples()
        ]  # fmt: skip
    return rows


def as_json(found: Recommendations | Questions) -> str:
    """Return everything but the timings: the same input gives the same text."""
    value: dict[str, Any] = {"learner": found.learner, "dataset": found.dataset, "ratings_known": found.k_shot}
    if isinstance(found, Recommendations):
        value["interval_level"] = found.level if found.frame["low"].notna().any() else None
    value |= {"notes": list(found.notes), "items": rows_of(found)}
    return json_bytes(value).decode().rstrip("\n")


def as_csv(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV in which no text is a formula."""
    lines = [",".join(columns)]
    for row in rows:
        cells = dict(row)
        if "moved_by" in row:
            cells["moved_by"] = "; ".join(f"{title} {change}" for change, title in _moved(row["moved_by"], 5))
        lines.append(",".join(csv_field(column, cells.get(column)) for column in columns))
    return "\n".join(lines)


def csv_columns(found: Recommendations | Questions) -> list[str]:
    return [*found.frame.columns, *(["moved_by"] if isinstance(found, Recommendations) else [])]


def as_table(found: Recommendations | Questions, width: int = 200) -> Table:
    """Return the table for a terminal of ``width`` columns; what is empty, or the least urgent, is left out."""
    return _questions(found, width) if isinstance(found, Questions) else _recommendations(found, width)


def _questions(found: Questions, width: int) -> Table:
    rows = rows_of(found)
    columns = {"#": [str(row["rank"]) for row in rows], "title": [_titled(row) for row in rows]}
    if width >= 100:
        columns["genres"] = [row["genres"] for row in rows]
    columns["information"] = [fixed(row["information"], 4) for row in rows]
    columns["known by"] = [f"{row['known']:.0%}" for row in rows]
    if found.popular:
        columns["expected"] = [fixed(row["expected"], 4) for row in rows]
    columns["item"] = [one_line(row["item"]) for row in rows]
    return _table(columns)


def _recommendations(found: Recommendations, width: int) -> Table:
    frame = found.frame
    columns: dict[str, list[str]] = {"#": [str(rank) for rank in frame["rank"]]}
    if "rank_before" in frame:
        columns["was"] = [str(rank) for rank in frame["rank_before"]]
    rows = rows_of(found)
    columns["title"] = [_titled(row) for row in rows]
    if width >= 120:
        columns["genres"] = [row["genres"] for row in rows]
    columns["predicted"] = [fixed(row["predicted"], 2) for row in rows]
    if frame["low"].notna().any():
        columns[f"{found.level:.0%} interval"] = [f"{fixed(row['low'], 1)} - {fixed(row['high'], 1)}" for row in rows]
    columns["ratings"] = [f"{row['ratings']:,}" for row in rows]
    if width >= 100:
        columns["item"] = [one_line(row["item"]) for row in rows]
    columns["moved most by"] = ["\n".join(" ".join(part) for part in _moved(row["moved_by"], 2)) for row in rows]
    return _table(columns)


def found_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table of items that were looked for."""
    return _table({column: [str(row[column]) for row in rows] for column in FOUND})


def _table(columns: dict[str, list[str]]) -> Table:
    columns = {name: values for name, values in columns.items() if any(values)}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name, justify="right" if name in _NUMBERS else "left", no_wrap=name in _NUMBERS or "interval" in name
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text("\n".join(one_line(line) for line in cell.split("\n"))) for cell in row))
    return table


def _titled(row: dict[str, Any]) -> str:
    return f"{row['title']} ({row['year']})" if row["year"] else row["title"]


def _moved(moved: Sequence[dict[str, Any]], decimals: int) -> list[tuple[str, str]]:
    """Return ("+0.12", "Alien (1979)") of each rating, without what is nothing in so many decimals."""
    parts = [(fixed(m["change"], decimals, sign=True), m["title"]) for m in moved]
    return [(change, title) for change, title in parts if float(change or 0)]


def _plain(value: Any) -> Any:
    """Return a value of a frame as JSON has it: no NumPy types, None for NaN, seven significant digits."""
    if pd.isna(value):
        return None
    if isinstance(value, str):
        return one_line(value)
    number = value.item() if hasattr(value, "item") else value
    return float(f"{number:.7g}") + 0.0 if isinstance(number, float) else number
