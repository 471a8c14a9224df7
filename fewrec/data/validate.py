"""From raw columns to a rating table: ids become codes, and each row that can't be right is named; for every reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fewrec.data.table import RatingTable, Scale
from fewrec.errors import DataError, shown

_MILLISECONDS = 1e11  # a time stamp above this, in seconds, would be after the year 5138


@dataclass(frozen=True, eq=False)
class RawRatings:
    """Columns as a file gave them, all of shape (n,): ids of any kind, ``rating`` as numbers or text.

    ``where`` tells the place of row *i* the way an error names it: ``my.csv:17``.
    """

    user: pd.Series
    item: pd.Series
    rating: pd.Series
    timestamp: pd.Series | None
    where: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.rating)


@dataclass(frozen=True, eq=False)
class Coded:
    """A rating table with the ids behind its codes: row *u* of ``user_ids`` for user code *u*, items likewise."""

    table: RatingTable
    user_ids: np.ndarray
    item_ids: np.ndarray
    notes: tuple[str, ...] = ()


def code_ratings(raw: RawRatings, scale: Scale, duplicates: str = "error") -> Coded:
    """Check every row and return the integer-coded table; codes follow the order of ids, numeric ids by number.

    ``duplicates``: ``error`` refuses a (user, item) pair that comes twice, ``last`` keeps the latest by time (by order
    in the file where there is no time or a tie), ``mean`` keeps the latest with the mean of the ratings.

    Raises:
        DataError: one line that names the first bad row and the option that would accept it.
    """
    rating = numeric_ratings(raw)
    user, user_ids = code_ids(raw.user, "user", raw.where)
    item, item_ids = code_ids(raw.item, "item", raw.where)
    check_scale(rating, scale, raw.where)
    time, notes = seconds(raw.timestamp, raw.where)
    pair = user * np.int64(len(item_ids)) + item
    rows, rating = _one_row_a_pair(pair, rating, time, duplicates, raw, "last" if scale.of_clicks else "last or mean")
    if rows is not None:
        notes = (*notes, f"{len(user) - len(rows):,} repeated ratings of the same user and item: {duplicates} kept")
        user, item, time = user[rows], item[rows], None if time is None else time[rows]
    return Coded(RatingTable(user, item, rating, time, len(user_ids), len(item_ids)), user_ids, item_ids, notes)


def numeric_ratings(raw: RawRatings) -> np.ndarray:
    """Return the ratings as float64 (n,); raise DataError at the first that is missing, infinite or no number."""
    if len(raw) == 0:
        raise DataError(f"{raw.where(0)}: the file ends before its first rating")
    values = raw.rating
    if values.dtype == bool:
        values = values.astype(float)
    number = to_float(values)
    bad = ~np.isfinite(number)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{raw.where(row)}: {_why_no_rating(values.iloc[row])}")
    return number


def _why_no_rating(value: Any) -> str:
    if pd.isna(value) or not str(value).strip():
        return "rating is missing (empty or NaN)"
    text = str(value).strip()
    if np.isinf(_float(text)):
        return f"rating {shown(text)} is not a finite number"
    comma = f" (write {text.replace(',', '.')}, with a point)" if re.fullmatch(r"-?\d+,\d+", text) else ""
    return f"rating {shown(text)} is not a number{comma}"


def to_float(column: pd.Series) -> np.ndarray:
    """Return a column as float64 (n,), NaN where it is no number, infinite where it is too large for one."""
    try:
        return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except OverflowError:  # hundreds of digits, which pandas keeps as Python's numbers
        return np.array([_float(value) for value in column])


def _float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # what is none is told by the error
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan


def code_ids(ids: pd.Series, role: str, where: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (n,) int64 and the ids by code: int64 and in numeric order if all are whole numbers, else text.

    ``7``, ``7.0`` and ``" 7"`` are the same id; ``07`` is text, and makes the whole column text.
    """
    codes, found = pd.factorize(ids)  # a missing id has the code -1
    if (codes < 0).any():
        raise DataError(f"{where(int(np.argmax(codes < 0)))}: {role} is missing")
    unique = _plain_ids(pd.Series(found))
    if unique.dtype != np.int64 and (unique == "").any():
        raise DataError(f"{where(int(np.argmax(np.isin(codes, np.flatnonzero(unique == '')))))}: {role} is missing")
    order, ordered = np.unique(unique, return_inverse=True)
    return ordered.astype(np.int64)[codes], order


def same_kind(ids: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of ids as they are, or both as text if they are numbers in one file and text in the other."""
    if ids.dtype == others.dtype:
        return ids, others
    # Not astype(str): NumPy would give each id the room of the longest.
    return np.array([str(one) for one in ids], object), np.array([str(one) for one in others], object)


def _plain_ids(found: pd.Series) -> np.ndarray:
    if pd.api.types.is_integer_dtype(found.dtype):
        return found.to_numpy(np.int64)
    text = found.astype(str).str.strip()
    if text.str.fullmatch(r"(?:0|-?[1-9][0-9]{0,17})(?:\.0+)?").all():
        return text.str.replace(r"\.0+$", "", regex=True).astype(np.int64).to_numpy()
    return text.to_numpy(object)


def check_scale(rating: np.ndarray, scale: Scale, where: Callable[[int], str]) -> None:
    """Raise DataError at the first rating outside the scale or off its steps."""
    bad = (rating < scale.low) | (rating > scale.high)
    if bad.any():
        row = int(np.argmax(bad))
        other = guess_scale(rating, including=scale)
        raise DataError(
            f"{where(row)}: rating {rating[row]:g} is outside the scale {scale.low:g}..{scale.high:g} "
            f"(give --scale {other.low:g} {other.high:g} if it is right)"
        )
    if scale.step:
        with np.errstate(over="ignore", invalid="ignore"):
            steps = (rating - scale.low) / scale.step
            bad = np.abs(steps - np.round(steps)) > 1e-6
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{where(row)}: rating {rating[row]:g} is not on the scale's steps of {scale.step:g}")


def guess_scale(rating: np.ndarray, including: Scale | None = None) -> Scale:
    """Return the well-known scale that holds all ratings (0/1, 1-5, 0-5, 0.5-5, 1-10, 0-10), else lowest to highest.

    ``including`` is a scale that the guess must contain too.
    """
    low, high = float(rating.min()), float(rating.max())
    if including is not None:
        low, high = min(low, including.low), max(high, including.high)
    step = scale_step(rating, 0.0)
    known = (
        (Scale(0, 1, 1), Scale(1, 5, 1), Scale(0, 5, 1), Scale(1, 10, 1), Scale(0, 10, 1))
        if step == 1
        else (Scale(0.5, 5, 0.5), Scale(0, 5, 0.5), Scale(1, 10, 0.5), Scale(0, 10, 0.5))
    )
    if step:
        for scale in known:
            if scale.low <= low and high <= scale.high:
                return Scale(float(scale.low), float(scale.high), float(scale.step or 0))
    return Scale(low, high, step)


def scale_step(rating: np.ndarray, low: float) -> float | None:
    """Return 1 or 0.5 if all ratings lie at such steps above ``low``, else None: continuous."""
    for step in (1.0, 0.5):
        with np.errstate(over="ignore", invalid="ignore"):  # of ratings near the end of what a number holds
            steps = (rating - low) / step
            on_steps = np.abs(steps - np.round(steps)) < 1e-9
        if on_steps.all():
            return step
    return None


def seconds(column: pd.Series | None, where: Callable[[int], str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return time stamps as int64 seconds, or None (and a note) where some are missing; dates and milliseconds work.

    Raises:
        DataError: at the first time stamp that is neither a number nor a date.
    """
    if column is None:
        return None, ()
    missing = column.isna()
    if missing.any():
        share = f"{int(missing.sum()):,} of {len(column):,}"
        return None, (f"time stamps: {share} rows have none, so none is used",)
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        if pd.api.types.is_integer_dtype(column.dtype) and len(column):  # whole numbers need no copy as float64
            whole = column.to_numpy(np.int64)
            return (whole // 1000 if np.median(whole) > _MILLISECONDS else whole), ()
        number = to_float(column)
        if np.isfinite(number).all():
            scaled = number / 1000 if np.median(number) > _MILLISECONDS else number
            if (far := np.abs(scaled) >= 2**63).any():
                row = int(np.argmax(far))
                raise DataError(f"{where(row)}: timestamp '{column.iloc[row]}' is too large for seconds since 1970")
            return np.floor(scaled).astype(np.int64), ()
        # ISO dates alone: 3/4/2005 is two different days, by who reads it.
        dates = pd.to_datetime(column.astype(str), format="ISO8601", errors="coerce", utc=True)
        if dates.isna().any():
            row = int(np.argmax(dates.isna().to_numpy()))
            given = shown(str(column.iloc[row]))
            raise DataError(f"{where(row)}: timestamp {given} is neither seconds since 1970 nor a date like 2005-03-31")
        column = dates
    if getattr(column.dt, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return column.to_numpy("datetime64[s]").astype(np.int64), ()


def _one_row_a_pair(
    pair: np.ndarray, rating: np.ndarray, time: np.ndarray | None, duplicates: str, raw: RawRatings, others: str
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the rows to keep (None: all) and their ratings; ``others`` are the policies that a refusal names."""
    order = np.argsort(pair, kind="stable")
    in_order = pair[order]
    repeated = in_order[1:] == in_order[:-1]
    if not repeated.any():
        return None, rating
    if duplicates == "error":
        again = order[1:][repeated]
        row = int(again.min())
        first = int(order[np.searchsorted(in_order, pair[row])])
        user, item = raw.user.iloc[row], raw.item.iloc[row]
        raise DataError(
            f"{raw.where(row)}: user {user} and item {item} come twice, first at {raw.where(first)} "
            f"(give --duplicates {others})"
        )
    if duplicates not in ("last", "mean"):
        raise DataError(f"--duplicates '{duplicates}' is none of error, last, mean")
    if time is not None:
        order = np.lexsort((np.arange(len(pair)), time, pair))
    is_last = np.append(pair[order][1:] != pair[order][:-1], True)
    last = order[is_last]
    if duplicates == "mean":
        group = np.cumsum(np.append(0, is_last[:-1]))
        rating = rating.copy()
        rating[last] = np.bincount(group, rating[order]) / np.bincount(group)
    rows = np.sort(last)
    return rows, rating[rows]
