"""What a reader of a card's format hands on, and the one way such files (fixed columns) are split."""

from __future__ import annotations

import csv
import io
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewrec.data.readers.delimited import UNREADABLE, not_utf8
from fewrec.data.readers.packed import open_bytes
from fewrec.data.validate import RawRatings
from fewrec.errors import DataError, reason_of


@dataclass(frozen=True, eq=False)
class RawFiles:
    """Ratings as the files gave them, with the text of the items and the features of the users.

    ``user_set`` is the meta set of each of ``user_ids`` where the files are a published split (see ``Dataset``).
    ``notes`` says what was left out, one line each.
    """

    ratings: RawRatings
    item_ids: np.ndarray
    item_text: pd.DataFrame | None
    user_ids: np.ndarray | None = None
    user_features: pd.DataFrame | None = None
    user_set: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Layout:
    """How a file of a known format is written: what separates its columns, its encoding, header and quotes.

    ``separator`` may be several characters. ``quoted`` columns may stand in double quotes and then hold separators; a
    quote inside is doubled, or has the character ``escape`` before it.
    """

    separator: str
    encoding: str = "utf-8"
    header: bool = False
    quoted: bool = False
    escape: str | None = None


@dataclass(frozen=True, eq=False)
class Fields:
    """A file split into columns; ``where`` names the place of a row."""

    path: Path
    frame: pd.DataFrame
    layout: Layout

    def where(self, row: int) -> str:
        """Return "file:line", blank lines and line breaks in quotes counted. Only errors pay for the counting."""
        for number, (line, _) in enumerate(_rows(self.path, self.layout)):
            if number == row + int(self.layout.header):
                return f"{self.path.name}:{line}"
        return f"{self.path.name}:{row + 1 + int(self.layout.header)}"

    def column(self, name: str) -> pd.Series:
        """Return the column of that header as text; raise DataError if there is none."""
        if name not in self.frame.columns:
            shown = ", ".join(map(str, self.frame.columns[:12]))
            raise DataError(f"{self.path.name}:1: no column '{name}' among {shown}")
        return self.frame[name]


def read_fields(
    path: Path,
    layout: Layout,
    width: int | None = None,
    numbers: Mapping[Any, type] | None = None,
    may_end_early: bool = False,
) -> Fields:
    """Return the columns of a file, named by its header, or 0, 1, ... up to ``width`` where it has none.

    Columns in ``numbers`` (name or place -> int or float) are parsed as numbers, the others are text as it stands.
    A line with too few columns is refused unless it ``may_end_early``; the columns that it lacks are empty then.

    Raises:
        DataError: if the file is missing or wrongly encoded; with the line if it has another number of columns, or
            something else where a number should be.
    """
    numbers = dict(numbers or {})
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    fields = Fields(path, pd.DataFrame(), layout)
    try:
        frame = _parse(path, layout, width, numbers)
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _uneven(fields, width, error) from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty") from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except (ValueError, OverflowError, RuntimeWarning) as error:
        raise _no_number(path, layout, width, numbers, error) from None
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read ({reason_of(error)})") from None
    if layout.header and (lacking := [name for name in numbers if name not in frame.columns]):
        shown = ", ".join(map(str, frame.columns[:12]))
        raise DataError(f"{path.name}:1: no column '{lacking[0]}' among {shown}")
    if not may_end_early:
        _check_width(path, layout, frame)
    return Fields(path, frame, layout)


def _parse(path: Path, layout: Layout, width: int | None, numbers: Mapping[Any, type]) -> pd.DataFrame:
    types: dict = {name: np.int64 if kind is int else np.float64 for name, kind in numbers.items()}
    if not layout.header:
        types = {i: types.get(i, str) for i in range(width or 0)}
    source: Any = open_bytes(path) if path.suffix.lower() == ".gz" else path
    separator = layout.separator
    if len(separator) > 1:  # the fast parser takes one character, and none of these formats has tabs in its columns
        source, separator = io.BytesIO(_bytes(path).replace(separator.encode(), b"\t")), "\t"
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        warnings.simplefilter("error", RuntimeWarning)  # 1e150 is read as a whole number, which it overflows
        return pd.read_csv(
            source,
            sep=separator,
            header=0 if layout.header else None,
            names=None if layout.header else range(width or 0),
            dtype=defaultdict(lambda: str, types) if layout.header else types,
            keep_default_na=False,
            quoting=csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE,
            escapechar=layout.escape,
            doublequote=layout.escape is None,
            encoding="utf-8-sig" if layout.encoding == "utf-8" else layout.encoding,
            index_col=False,
        )


def first_line(path: Path, layout: Layout) -> list[str]:
    """Return the columns of the first line that isn't blank.

    Raises:
        DataError: if the file is missing or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    for _, row in _rows(path, layout):
        return row
    raise DataError(f"{path}: the file is empty")


def leave_out(ratings: RawRatings, value: float, what: str) -> tuple[RawRatings, tuple[str, ...]]:
    """Return the ratings other than ``value``, and the note that says how many of ``what`` were left out."""
    is_left = (ratings.rating != value).to_numpy()
    rows = np.flatnonzero(is_left)
    if len(rows) == len(ratings):
        return ratings, ()

    def kept(column: pd.Series) -> pd.Series:
        return column[is_left].reset_index(drop=True)

    def where(row: int) -> str:
        return ratings.where(int(rows[row]) if row < len(rows) else row)

    note = f"{len(ratings) - len(rows):,} of {len(ratings):,} rows are {what} and are left out"
    time = None if ratings.timestamp is None else kept(ratings.timestamp)
    return RawRatings(kept(ratings.user), kept(ratings.item), kept(ratings.rating), time, where), (note,)


def _bytes(path: Path) -> bytes:
    with open_bytes(path) as stream:
        return stream.read()


def _rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that isn't blank, with the line where it begins: slow, for what an error says."""
    encoding = "utf-8-sig" if layout.encoding == "utf-8" else layout.encoding
    newline = "" if layout.quoted else None
    with io.TextIOWrapper(open_bytes(path), encoding, errors="replace", newline=newline) as stream:
        if layout.quoted:
            rows = csv.reader(
                stream, delimiter=layout.separator, escapechar=layout.escape, doublequote=layout.escape is None
            )
            line = 1
            try:
                for fields in rows:
                    if any(field.strip() for field in fields):
                        yield line, fields
                    line = rows.line_num + 1
            except csv.Error as error:
                raise DataError(f"{path.name}:{line}: {error}") from None
        else:
            for line, text in enumerate(stream, 1):
                if text.strip():
                    yield line, text.rstrip("\n").split(layout.separator)


def _check_width(path: Path, layout: Layout, frame: pd.DataFrame) -> None:
    """Raise DataError at the first line with too few columns: the parser fills them up as if they were empty."""
    last = frame.iloc[:, -1]
    suspects = (last.isna() | (last == "")).to_numpy()
    if not suspects.any():
        return
    for number, (line, row) in enumerate(_rows(path, layout), -int(layout.header)):
        if 0 <= number < len(suspects) and suspects[number] and len(row) < len(frame.columns):
            raise DataError(f"{path.name}:{line}: fewer than {len(frame.columns)} columns")


def _uneven(fields: Fields, width: int | None, error: Exception) -> DataError:
    """Return the error that names the first line with more columns than there should be."""
    for line, row in _rows(fields.path, fields.layout):
        width = len(row) if width is None else width
        if len(row) > width:
            return DataError(f"{fields.path.name}:{line}: {len(row)} columns, but {width} are expected")
    return DataError(f"{fields.path}: not in the expected format ({str(error).strip()})")


def _no_number(
    path: Path, layout: Layout, width: int | None, numbers: Mapping[Any, type], error: Exception
) -> DataError:
    """Return the error that names the first line in which a column of numbers holds something else."""
    rows = _rows(path, layout)
    names: list = list(range(width or 0))
    if layout.header:
        _, names = next(rows)
    for line, row in rows:
        if len(row) < len(names):
            return DataError(f"{path.name}:{line}: fewer than {len(names)} columns")
        for name, kind in numbers.items():
            text = row[names.index(name)] if name in names else ""
            try:
                kind(text)
            except ValueError:
                shown = f"column {name + 1}" if isinstance(name, int) else name
                what = "a whole number" if kind is int else "a number"
                return DataError(f"{path.name}:{line}: {shown} '{text}' is not {what}")
    return DataError(f"{path}: not in the expected format ({str(error).strip()})")


def int_ids(column: pd.Series) -> np.ndarray:
    """Return a column of ids as int64 where all are whole numbers, else as text."""
    try:
        return column.astype(np.int64).to_numpy()
    except (ValueError, OverflowError):
        return column.astype(object).to_numpy()
