"""A user's own tables, read by the names of their columns; apart from the ratings that items and users go with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fewrec.data.readers import delimited
from fewrec.data.readers.delimited import OwnTable
from fewrec.data.readers.text import align, item_text, join_genres
from fewrec.data.validate import code_ids
from fewrec.errors import DataError

# Column names that are understood, most telling first; compared without case, spaces and punctuation.
USER = ("user", "userid", "uid", "users", "reviewerid", "customerid", "memberid", "reviewer", "customer")
ITEM = ("item", "itemid", "iid", "items", "movieid", "movie", "bookid", "book", "isbn", "asin", "productid", "product",
        "newsid", "jokeid", "songid", "trackid", "artistid", "businessid", "itemcode")  # fmt: skip
RATING = ("rating", "ratings", "score", "stars", "star", "overall", "bookrating", "label", "value", "click")
TIME = ("timestamp", "time", "ts", "unixreviewtime", "datetime", "date")
TITLE = ("title", "movietitle", "booktitle", "name", "headline", "text", "joke")
YEAR = ("year", "releaseyear", "yearofpublication", "originalpublicationyear")
GENRES = ("genres", "genre", "categories", "category", "class", "tags")
DESCRIPTION = ("description", "plot", "summary", "overview", "abstract", "synopsis", "body")


def read_items(path: Path, wanted: np.ndarray) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the catalog's text in the order of ``wanted``, and what was left out or is missing."""
    table = read_table(path)
    columns = list(table.frame.columns)
    item = column_of(table, (*ITEM, "id"), "item")
    aliases = {"title": TITLE, "year": YEAR, "genres": GENRES, "description": DESCRIPTION}
    found = {role: find_column([column for column in columns if column != item], aliases[role]) for role in aliases}
    if not any((found["title"], found["description"])):
        raise _lacking(table, "title")
    if not len(table.frame):
        raise DataError(f"{path}: the file ends before its first item")
    codes, ids = code_ids(table.frame[item], "item", table.where)
    if len(ids) < len(codes):
        row = int(np.flatnonzero(pd.Series(codes).duplicated())[0])
        raise DataError(f"{table.where(row)}: item {table.frame[item].iloc[row]} comes twice; keep one line of it")
    parts = {role: _strings(table.frame, column) for role, column in found.items()}
    # RecBole writes a sequence with spaces between its parts, and says so in the header.
    between = " " if (found["genres"] or "").endswith(":token_seq") else "|"
    genres = [join_genres(g.split(between)) for g in parts["genres"]]
    years = [year.removesuffix(".0") for year in parts["year"]]
    text, missing = align(item_text(parts["title"], years, genres, parts["description"]), ids[codes], wanted)
    used = {item, *found.values()}
    notes = ["item text " + ", ".join(f"{role} = '{column}'" for role, column in found.items() if column is not None)]
    if unused := [column for column in columns if column not in used]:
        notes.append(f"{path.name}: not used: {', '.join(unused)}")
    if extra := len(ids) - (len(wanted) - missing):
        notes.append(f"{path.name}: {extra:,} items have no rating and are left out")
    if missing == len(wanted):
        raise DataError(f"{path}: not one of the rated items is in it (ids such as {wanted[0]}, there {ids[0]})")
    if missing:
        notes.append(f"{path.name}: {missing:,} rated items are not in it and have no text")
    return text, tuple(notes)


def read_table(path: Path) -> OwnTable:
    """Return all rows of a table whose header names its columns."""
    if delimited.is_parquet(path):
        return delimited.read_parquet(path)
    return delimited.read_delimited(path, *delimited.first_row(path))


def column_of(table: OwnTable, aliases: Sequence[str], what: str) -> str:
    """Return the column of a table of items or users that has one of these names; raise DataError if none has."""
    found = find_column(list(table.frame.columns), aliases)
    if found is None:
        raise _lacking(table, what)
    return found


def _lacking(table: OwnTable, what: str) -> DataError:
    place = table.where(0).rsplit(":", 1)[0] + ("" if table.delimiter is None else ":1")
    shown = ", ".join(f"'{column}'" for column in table.frame.columns[:12])
    return DataError(f"{place}: no column for the {what} among {shown} (name it '{what}')")


def _strings(frame: pd.DataFrame, column: str | None) -> list[str]:
    if column is None:
        return [""] * len(frame)
    return list(frame[column].astype(object).where(frame[column].notna(), "").astype(str))


def find_column(columns: Sequence[str], aliases: Sequence[str]) -> str | None:
    """Return the first of the columns that has one of these names, the most telling name first, or None."""
    plain = {plain_name(column): column for column in reversed(columns)}
    return next((plain[alias] for alias in aliases if alias in plain), None)


def plain_name(column: str) -> str:
    """Return a column's name without case, spaces, punctuation and RecBole's type."""
    return re.sub(r"[^a-z0-9]", "", column.split(":")[0].lower())
