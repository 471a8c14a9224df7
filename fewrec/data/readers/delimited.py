"""A table in a user's own file (CSV, TSV, Parquet): what has to be guessed about it, and where each row stands."""

from __future__ import annotations

import csv
import io
import re
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from fewrec.data.parquet import plain_names, read_flat
from fewrec.data.readers.packed import open_bytes
from fewrec.errors import DataError, reason_of

DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", "::": "double colon", " ": "space"}
UNREADABLE = (OSError, EOFError, zlib.error)  # what reading a file raises, one packed by gzip too
_SAMPLE = 1 << 16
_A_ROW = 640  # bytes of memory that texts, codes and features of a row of a table of items or users take, by Parquet
_MISSING = ["", "NaN", "nan", "NA", "N/A", "null", "NULL", "None"]  # of numbers; an id may be called NA
_PARQUET = (".parquet", ".pq")
_ATOMIC = (".inter", ".item", ".user")  # of RecBole, which writes quotes as they are
ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".inter", *_PARQUET)


@dataclass(frozen=True, eq=False)
class OwnTable:
    """The table of one file, ids and text as text; ``header`` tells whether the file names its columns."""

    path: Path
    frame: pd.DataFrame
    header: bool
    delimiter: str | None

    def where(self, row: int) -> str:
        """Name the place of a row: the line in the file, or the row of a Parquet file (both from 1)."""
        if self.delimiter is None:
            return f"{self.path}: row {row + 1}"
        return f"{self.path}:{self._line(row)}"

    def _line(self, row: int) -> int:
        """Count lines as they stand in the file: blank ones and line breaks in quotes included. Only errors pay."""
        text = _text(self.path, self.delimiter == "::")
        quoting = _quoting(self.path)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_one(self.delimiter or ","), quoting=quoting)
        wanted, line = row + int(self.header), 1
        with suppress(csv.Error):  # a field too long for this module, not for pandas: the line before it, then
            for fields in lines:
                if fields and not (len(fields) == 1 and not fields[0].strip()):
                    if wanted == 0:
                        return line
                    wanted -= 1
                line = lines.line_num + 1
        return line


def is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _PARQUET


def first_row(path: Path, delimiter: str | None = None) -> tuple[list[str], str]:
    """Return the fields of the first line that isn't blank, and the delimiter: the given one, else the best guess.

    Raises:
        DataError: if the file is missing, a folder, empty, not UTF-8, or has one column only.
    """
    text = _text(path, False, _SAMPLE)
    lines = [line for line in text.splitlines()[:50] if line.strip()]
    if not lines:
        raise DataError(f"{path}: the file is empty")
    if re.match(r"\s*<(!doctype|html|\?xml)", lines[0], re.IGNORECASE):
        raise DataError(f"{path}:1: this is a web page, not a table; the download may have gone wrong")
    if lines[0].lstrip().startswith(("{", "[")):
        raise DataError(f"{path}:1: this is JSON, not a table; write it as CSV, one rating a line")
    if delimiter is None:
        delimiter = _guess_delimiter(lines, path)
    delimiter = {name: character for character, name in DELIMITERS.items()}.get(delimiter, delimiter)
    if delimiter not in DELIMITERS:
        raise DataError(f"--delimiter '{delimiter}' is none of {', '.join(DELIMITERS.values())}")
    fields = _split(lines[0], delimiter, path)
    if len(fields) < 2:
        raise DataError(
            f"{path}:1: one column only ('{lines[0][:40]}') with the delimiter '{delimiter}' (give another --delimiter)"
        )
    return [field.strip() for field in fields], delimiter


def read_delimited(
    path: Path, names: Sequence[str], delimiter: str, header: bool = True, numeric: Sequence[str] = ()
) -> OwnTable:
    """Return all rows under ``names``; with ``header``, the file's first line is not one of them.

    Columns in ``numeric`` are numbers where all of their values are, everything else is text ("" where empty).

    Raises:
        DataError: if a row has more columns than the header, or a byte is not UTF-8 (with the line).
    """
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise DataError(f"{path}:1: the column '{twice[0]}' comes twice")
    source: Any = path
    if delimiter == "::":
        source = io.StringIO(_text(path, True))
    elif path.suffix.lower() == ".gz":
        source = open_bytes(path)
    table = OwnTable(path, pd.DataFrame(), header, delimiter)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                source,
                sep=_one(delimiter),
                header=0 if header else None,
                names=list(names),
                dtype={name: str for name in names if name not in numeric},
                na_values={name: _MISSING for name in numeric},
                keep_default_na=False,
                quoting=_quoting(path),
                encoding=None if isinstance(source, io.StringIO) else "utf-8-sig",
                index_col=False,
                low_memory=False,
            )
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _ragged(table, error) from None
    return OwnTable(path, frame, header, delimiter)


def read_parquet(
    path: Path, columns: Sequence[str] | None = None, a_row: int = _A_ROW, ids: Sequence[str] = ()
) -> OwnTable:
    """Return all rows of a Parquet file, see ``fewrec.data.parquet.read_flat``."""
    _check_is_file(path)
    return OwnTable(path, read_flat(path, columns, a_row, ids), True, None)


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file, see ``fewrec.data.parquet.plain_names``."""
    _check_is_file(path)
    return plain_names(path)


def not_utf8(path: Path) -> DataError:
    """Return the error that names line and column of the first byte that is not UTF-8."""
    for number, line in enumerate(_bytes(path).split(b"\n"), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            at = error.start
            return DataError(f"{path}:{number}: not UTF-8 (byte 0x{line[at]:02x} at column {at + 1}); save it as UTF-8")
    return DataError(f"{path}: not UTF-8; save it as UTF-8")


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: this is a folder, not a file")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")


def _bytes(path: Path, limit: int = -1) -> bytes:
    _check_is_file(path)
    try:
        with open_bytes(path) as stream:
            return stream.read(limit)
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read ({reason_of(error)})") from None


def _text(path: Path, colons_to_tabs: bool, limit: int = -1) -> str:
    content = _bytes(path, limit)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}:1: not UTF-8 but UTF-16; save it as UTF-8")
    if content[:4] == b"PK\x03\x04":
        raise DataError(f"{path}: this is a spreadsheet or a ZIP archive, not a text file; save the table as CSV")
    if b"\0" in content[:_SAMPLE]:
        raise DataError(f"{path}:1: not a text file in UTF-8; save it as UTF-8 text (or give it the ending .parquet)")
    if limit > 0 and len(content) == limit:
        content = content[: content.rfind(b"\n") + 1] or content
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    return text.replace("::", "\t") if colons_to_tabs else text


def _guess_delimiter(lines: list[str], path: Path) -> str:
    """Return the delimiter that splits every line into the same number of fields, the most fields of all."""
    best, best_key = None, (False, 1)
    for delimiter in DELIMITERS:
        counts = [len(_split(line, delimiter, path)) for line in lines]
        key = (min(counts) == max(counts), counts[0])
        if counts[0] > 1 and key > best_key and (delimiter != " " or key[0] and best is None):
            best, best_key = delimiter, key
    if best is None:
        raise DataError(
            f"{path}:1: one column only ('{lines[0][:40]}'); columns are separated by one of "
            f"{', '.join(DELIMITERS.values())} (give --delimiter)"
        )
    return best


def _quoting(path: Path) -> Literal[0, 3]:
    name = path.name.lower().removesuffix(".gz")
    return csv.QUOTE_NONE if name.endswith(_ATOMIC) else csv.QUOTE_MINIMAL


def _split(line: str, delimiter: str, path: Path) -> list[str]:
    if delimiter == "::":
        return line.split("::")
    try:
        return next(csv.reader([line], delimiter=delimiter, quoting=_quoting(path)), [])
    except csv.Error as error:
        raise DataError(f"{path}:1: {error}") from None


def _one(delimiter: str) -> str:
    return "\t" if delimiter == "::" else delimiter


def _ragged(table: OwnTable, error: Exception) -> DataError:
    """Return the error that names the first line with more columns than the first."""
    delimiter = table.delimiter or ","
    text = _text(table.path, delimiter == "::")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_one(delimiter), quoting=_quoting(table.path))
    width, line = None, 1
    try:
        for fields in lines:
            if fields:
                width = len(fields) if width is None else width
                if len(fields) > width:
                    said = f"{len(fields)} columns, but {width} in the first line"
                    if _quoting(table.path) != csv.QUOTE_NONE:
                        said += f" (a value with a {DELIMITERS[delimiter]} in it needs quotes)"
                    return DataError(f"{table.path}:{line}: {said}")
            line = lines.line_num + 1
    except csv.Error as problem:
        return DataError(f"{table.path}:{line}: {problem}")
    opened = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if opened:
        row = int(opened[1]) - int(table.header)
        return DataError(f'{table.path}:{table._line(row)}: a quote (") is opened there, and never closed')
    return DataError(f"{table.path}: not a readable table ({str(error).strip()})")
