"""Amazon Reviews by category: the JSON lines of 2018 and of 2023, reviews in one file and products in another."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import json as arrow_json

from fewrec.data.readers.delimited import UNREADABLE, not_utf8
from fewrec.data.readers.packed import open_bytes
from fewrec.data.readers.raw import RawFiles
from fewrec.data.readers.text import item_text, join_genres, plain_text
from fewrec.data.validate import RawRatings
from fewrec.errors import DataError, reason_of

_BLOCK = 1 << 24  # bytes parsed at once; the longest line, a review or a product, has to fit
_NULL = re.compile(rb"(?:^|[}\n])\s*null")


def read_2018(folder: Path, stem: str = "") -> RawFiles:
    """Return the reviews of ``<Category>_5.json.gz`` (or without ``_5``), the texts of ``meta_<Category>.json.gz``."""
    reviews, products = _files(folder, ".json")
    names = {"reviewerID": pa.string(), "asin": pa.string(), "overall": pa.float64(), "unixReviewTime": pa.int64()}
    return _read(reviews, names, products, "asin", "category")


def read_2023(folder: Path, stem: str = "") -> RawFiles:
    """Return the reviews of ``<Category>.jsonl.gz`` and the texts of ``meta_<Category>.jsonl.gz``.

    An item is a ``parent_asin``: the colours and sizes of a product are one item. Times are milliseconds in the file.
    """
    reviews, products = _files(folder, ".jsonl")
    names = {"user_id": pa.string(), "parent_asin": pa.string(), "rating": pa.float64(), "timestamp": pa.int64()}
    return _read(reviews, names, products, "parent_asin", "categories")


def _files(folder: Path, ending: str) -> tuple[Path, Path]:
    """Return the file of reviews and the file of products, packed or not, wherever they lie in the folder."""
    found = sorted(
        path for form in (ending, f"{ending}.gz") for path in folder.rglob(f"*{form}") if path.name[0] != "."
    )
    products = [path for path in found if path.name.startswith("meta_")]
    reviews = [path for path in found if path not in products]
    if len(reviews) != 1 or len(products) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{folder}: one file of reviews and one meta_ file are expected, {ending} or .gz; found {names}"
        )
    return reviews[0], products[0]


def _read(reviews: Path, names: dict[str, pa.DataType], products: Path, item: str, genres: str) -> RawFiles:
    options = arrow_json.ParseOptions(explicit_schema=pa.schema(names.items()), unexpected_field_behavior="ignore")
    try:
        with open_bytes(reviews) as stream:
            watched = _Watched(stream, lambda: _first_bad_line(reviews, names))
            table = arrow_json.read_json(watched, arrow_json.ReadOptions(block_size=_BLOCK), options)
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise _first_bad_line(reviews, names) or DataError(f"{reviews}: not JSON lines ({reason})") from None
    except UNREADABLE as error:
        raise DataError(f"{reviews}: can't be read ({reason_of(error)})") from None

    def where(row: int) -> str:
        lines = (number for number, line in _lines(reviews) if line.strip())
        return f"{reviews.name}:{next((n for i, n in enumerate(lines) if i == row), row + 1)}"

    user, asin, rating, time = (table.column(name) for name in names)
    try:
        for column in (user, asin):
            column.validate(full=True)  # the parser takes any bytes for text
    except pa.ArrowInvalid:
        raise not_utf8(reviews) from None
    rated = asin.dictionary_encode().unify_dictionaries()
    wanted = set(rated.chunk(0).dictionary.to_pylist()) if rated.num_chunks else set()
    frame = RawRatings(
        user.dictionary_encode().to_pandas(), rated.to_pandas(), rating.to_pandas(), time.to_pandas(), where
    )
    return RawFiles(frame, *_products(products, wanted, item, genres))


def _products(path: Path, wanted: set[str], item: str, genres: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Return ids and texts of the products in ``wanted``: most of a category have no review in its 5-core."""
    ids, titles, kinds, descriptions = [], [], [], []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            key = entry[item]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{path.name}:{number}: not a JSON object with a field {item}") from None
        if isinstance(key, str) and key in wanted:
            ids.append(key)
            titles.append(_title(entry.get("title")))
            kinds.append(_kinds(entry.get(genres)))
            descriptions.append(_joined(entry.get("description")))
    return np.array(ids, dtype=object), item_text(titles, [""] * len(ids), kinds, descriptions)


def _title(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "" if "getTime" in text else plain_text(text)  # a script of the page instead of the title


def _kinds(value: Any) -> str:
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    kept = [plain_text(name) for name in names if isinstance(name, str) and "<" not in name]
    return join_genres(list(dict.fromkeys(kept)))


def _joined(value: Any) -> str:
    parts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return " ".join(filter(None, (plain_text(part) for part in parts if isinstance(part, str))))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open_bytes(path) as stream:
            yield from enumerate(stream, 1)
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read ({reason_of(error)})") from None


class _Watched(io.RawIOBase):
    """A stream that is looked at before Arrow's parser sees it: a line that is ``null`` makes that one crash."""

    def __init__(self, stream: Any, first_bad_line: Callable[[], DataError | None]) -> None:
        self._stream, self._first_bad_line = stream, first_bad_line
        self._tail: bytes | None = b" "

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = bytes(self._stream.read(None if size < 0 else size))
        # The word may stand in a text, too; only a look at the lines, which is slow, can tell.
        if self._tail is not None and _NULL.search(self._tail + block):
            if error := self._first_bad_line():
                raise error
            self._tail = None
        if self._tail is not None:
            self._tail = (b" " + block)[-16:]
        return block


def _first_bad_line(path: Path, names: dict[str, pa.DataType]) -> DataError | None:
    """Return the error that names the first line that is no JSON object, or has a field of another kind, if any."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as problem:
            return DataError(f"{path.name}:{number}: not JSON ({problem})")
        if not isinstance(entry, dict):
            return DataError(f"{path.name}:{number}: not a JSON object")
        for name, kind in names.items():
            value = entry.get(name)
            allowed = str if kind == pa.string() else int if kind == pa.int64() else (int, float)
            if value is not None and (not isinstance(value, allowed) or isinstance(value, bool)):
                return DataError(f"{path.name}:{number}: {name} {json.dumps(value)} is not a {kind}")
    return None
