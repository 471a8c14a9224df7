"""One user's ratings, from a small file or a mapping to item codes; all bad lines are named, before any training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewrec.data.own_tables import ITEM, RATING, TITLE, USER
from fewrec.data.readers import delimited
from fewrec.data.table import Scale
from fewrec.errors import DataError
from fewrec.recommender.titles import TitleIndex, UnknownTitle
from fewrec.report.numbers import one_line, unguarded

_SHOWN = 10  # bad lines that an error names
_ITEM = (*ITEM, "film", "id")


@dataclass(frozen=True, eq=False)
class UserRatings:
    """The ratings of one user: ``item`` (k,) catalog codes, all different, ``rating`` (k,) on the data set's scale."""

    item: np.ndarray
    rating: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def none(cls) -> UserRatings:
        return cls(np.empty(0, np.int64), np.empty(0))

    def joined(self, more: UserRatings) -> UserRatings:
        """Return these ratings and ``more`` behind them; of an item that is in both, ``more`` has the say."""
        kept = ~np.isin(self.item, more.item)
        item, rating = (self.item[kept], more.item), (self.rating[kept], more.rating)
        return UserRatings(np.concatenate(item), np.concatenate(rating))


def read_ratings(source: str | Path | Mapping[Any, float], titles: TitleIndex, scale: Scale) -> UserRatings:
    """Return a user's ratings from a file of ``item,rating`` or a mapping from item id or title to rating.

    A file is CSV, TSV or Parquet, with a header (``item`` or ``title``, and ``rating``; other columns are left out) or
    without one (item, rating). A column called ``title`` holds titles, one called ``item_id`` ids, others either.

    Raises:
        DataError: one line a bad row, the first ten, with its place and what to write instead.
    """
    if isinstance(source, Mapping):
        rows = [(str(item), str(rating)) for item, rating in source.items()]
        return _checked("ratings", rows, lambda row: f"ratings[{rows[row][0]!r}]", titles, scale, kind="item")
    path = Path(source).expanduser()
    table, item, rating = _read(path)
    rows = list(zip(_texts(table, item), _texts(table, rating), strict=True))
    if not rows:
        raise DataError(f"{path}: the file ends before its first rating")
    return _checked(str(path), rows, table.where, titles, scale, _plain(item))


def _read(path: Path) -> tuple[delimited.OwnTable, str, str]:
    """Return the table and its columns of items and of ratings."""
    if delimited.is_parquet(path):
        table = delimited.read_parquet(path)
        names = list(table.frame.columns)
    else:
        try:
            first, delimiter = delimited.first_row(path)
            known = [field for field in first if _plain(field) in (*_ITEM, *TITLE, *RATING)]
            header = len(known) >= (2 if delimiter == " " else 1)  # "Star Wars" is no header, though "star" is one
            if not header and not (len(first) == 2 and _is_number(first[1])):
                shown = one_line(delimiter.join(first))[:60]
                raise DataError(
                    f"{path}:1: '{shown}' is neither a header nor an item and a rating; begin the file with a line "
                    "item,rating"
                )
            names = first if header else ["item", "rating"]
            table = delimited.read_delimited(path, names, delimiter, header)
        except DataError as error:
            if ragged := re.fullmatch(r"(.*:\d+: \d+ columns, but \d+ in the first line).*", str(error)):
                raise DataError(f'{ragged[1]}; put titles with a comma in quotes: "Matrix, The",5') from None
            raise
    found = {}
    for role, aliases in (("item", (*_ITEM, *TITLE)), ("rating", RATING), ("user", USER)):
        plain = {_plain(name): name for name in reversed(names)}
        found[role] = next((plain[alias] for alias in aliases if alias in plain), None)
    item, rating, user = found["item"], found["rating"], found["user"]
    if item is None or rating is None:
        lacking = "items (name it item or title)" if item is None else "ratings (name it rating)"
        shown = ", ".join(f"'{one_line(name)}'" for name in names[:8])
        raise DataError(f"{path}:1: no column for the {lacking} among {shown}")
    if user is not None and table.frame[user].nunique() > 1:
        raise DataError(f"{path}: ratings by {table.frame[user].nunique()} users; keep those of the one to advise")
    return table, item, rating


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+([.,]\d+)?\s*", text) is not None


def _texts(table: delimited.OwnTable, column: str) -> list[str]:
    values = table.frame[column].astype(object)
    return [str(value) for value in values.where(values.notna(), "")]


def _checked(
    name: str,
    rows: Sequence[tuple[str, str]],
    where: Callable[[int], str],
    titles: TitleIndex,
    scale: Scale,
    kind: str,
) -> UserRatings:
    problems: list[tuple[int, str]] = []
    items, ratings, first = [], [], dict[int, int]()
    ids, called = kind not in TITLE, not kind.endswith("itemid")
    for row, (text, number) in enumerate(rows):
        if not text.strip():
            problems.append((row, "the item is missing"))
            continue
        try:
            text = unguarded(text)  # a title or an id that was copied from fewrec's own CSV
            item = titles.match(re.sub(r"^(\d+)\.0$", r"\1", text), ids=ids, titles=called)
        except UnknownTitle as error:
            problems.append((row, str(error)))
            continue
        rating, problem = _rating(number, scale)
        if problem:
            problems.append((row, problem))
        elif item in first:
            problems.append((row, f"'{titles.shown(item)}' comes twice, first at {where(first[item])}; keep one"))
        else:
            first[item] = row
            items.append(item)
            ratings.append(rating)
    if problems:
        lines = [f"{where(row)}: {problem}" for row, problem in problems[:_SHOWN]]
        if len(problems) == 1:
            raise DataError(lines[0])
        more = f", the first {_SHOWN}" if len(problems) > _SHOWN else ""
        raise DataError(f"{name}: {len(problems)} of {len(rows)} ratings can't be used{more}:", *lines)
    return UserRatings(np.array(items, np.int64), np.array(ratings, np.float64))


def _rating(text: str, scale: Scale) -> tuple[float, str]:
    """Return the rating and what is wrong with it ("" if nothing)."""
    shown = one_line(text)
    if not shown:
        return 0.0, "the rating is missing"
    try:
        rating = float(shown)
    except ValueError:
        comma = f" (write {shown.replace(',', '.')})" if re.fullmatch(r"\d+,\d+", shown) else ""
        return 0.0, f"rating '{shown}' is not a number{comma}"
    if not scale.low <= rating <= scale.high:
        return 0.0, f"rating {shown} is outside the scale {scale.low:g}..{scale.high:g} of the data set"
    if scale.step:
        steps = (rating - scale.low) / scale.step
        if abs(steps - round(steps)) > 1e-6:
            low = scale.low + int(steps) * scale.step
            return 0.0, f"rating {shown} is between the scale's steps; write {low:g} or {low + scale.step:g}"
    return rating, ""
