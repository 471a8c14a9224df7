"""Predictions made elsewhere: read from Parquet or CSV, and put into the order of the query that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fewrec.data.parquet import BROKEN, bounded_table, reason
from fewrec.data.validate import to_float
from fewrec.episodes.frozen import FrozenTask
from fewrec.errors import DataError, nearest, reason_of

_KEYS = ("episode", "user", "item")
_SD = "sd"  # optional
_TABLES = (".csv", ".csv.gz")


class Predictions(NamedTuple):
    """The predictions (m,) float64 of a task's query, in its order, and their standard deviations where given."""

    prediction: np.ndarray
    sd: np.ndarray | None


def read_predictions(path: str | Path, tasks: Sequence[FrozenTask]) -> list[Predictions]:
    """Return the predictions of each task.

    The file has the columns ``episode``, ``user``, ``item`` and ``prediction``, one row a query rating in any order,
    ``task``, the task's name, where there are several tasks, and perhaps ``sd``, the standard deviation of the rating,
    noise included, which says that its distribution is N(prediction, sd^2); tasks of clicks don't use it.

    Raises ``DataError`` naming the first row that is missing, doubled, unknown or no finite number, or whose ``sd`` is
    not above 0, and how many are.
    """
    path = Path(path).expanduser()
    expected = sum(len(task.query_columns["item"]) for task in tasks)
    frame = _read(path, 2 * expected + 1000, several=len(tasks) > 1)
    if len(tasks) == 1:
        which = np.zeros(len(frame), np.int64)
        if "task" in frame:
            _refuse(path, frame, (frame["task"] != tasks[0].name).to_numpy(), f"not of the task {tasks[0].name}")
    else:
        names = [task.name for task in tasks]
        which = pd.Index(names).get_indexer(pd.Index(frame["task"].astype(object)))
        if (which < 0).any():
            said = str(frame["task"].iloc[int(np.argmax(which < 0))])[:100]
            _refuse(path, frame, which < 0, f"of no task of the episodes ('{said}'{nearest(said, names)})")
    keys = {name: _whole(path, frame, name) for name in _KEYS}
    values = {
        name: np.array([_number(value) for value in frame[name].tolist()])
        for name in ("prediction", _SD)
        if name in frame
    }
    return [_in_order(path, frame, np.flatnonzero(which == i), keys, values, t) for i, t in enumerate(tasks)]


def _in_order(
    path: Path, frame: pd.DataFrame, rows: np.ndarray, keys: dict[str, np.ndarray], values: dict[str, np.ndarray],
    task: FrozenTask,
) -> Predictions:  # fmt: skip
    """Return a task's predictions in the order of its query, after checking that it has each one once."""
    query, sizes = task.query_columns, (task.record.episodes, task.record.n_users, task.record.dataset.n_items)
    outside = np.zeros(len(rows), bool)
    for name, size in zip(_KEYS, sizes, strict=True):
        outside |= (keys[name][rows] < 0) | (keys[name][rows] >= size)
    wanted = np.ravel_multi_index(tuple(query[name] for name in _KEYS), sizes)
    given = np.full(len(rows), -1)
    given[~outside] = np.ravel_multi_index(tuple(keys[name][rows][~outside] for name in _KEYS), sizes)
    _refuse(path, frame, rows[~np.isin(given, wanted)], "no query rating of the episodes")
    again = pd.Series(given).duplicated().to_numpy()
    _refuse(path, frame, rows[again], "a query rating that has a prediction already")
    missing = ~np.isin(wanted, given)
    if missing.any():
        first = int(np.argmax(missing))
        at = ", ".join(f"{name} {query[name][first]}" for name in _KEYS)
        raise DataError(
            f"{path}: no prediction for {at} of {task.name} ({int(missing.sum()):,} of {len(wanted):,} are missing)"
        )
    bad = rows[~np.isfinite(values["prediction"][rows])]
    _refuse(path, frame, bad, "no finite number (NaN is a failure, never a score)")
    if task.record.dataset.kind != "ratings":
        values = {"prediction": values["prediction"]}
    if _SD in values:
        sd = values[_SD][rows]
        bad = rows[~(np.isfinite(sd) & (sd > 0))]
        _refuse(path, frame, bad, f"its sd is {frame[_SD].iloc[bad[0]] if len(bad) else ''}, not finite and above 0")
    out = np.empty((len(values), len(wanted)))
    out[:, np.argsort(wanted)] = [column[rows[np.argsort(given)]] for column in values.values()]
    return Predictions(out[0], out[1] if _SD in values else None)


def _refuse(path: Path, frame: pd.DataFrame, rows: np.ndarray, said: str) -> None:
    """Raise ``DataError`` on the first of the rows (indices, or a mask) and their number, if there are any."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    if len(rows):
        first = {name: frame[name].iloc[int(rows[0])] for name in (*_KEYS, "prediction")}
        at = ", ".join(f"{name} {first[name]}" for name in _KEYS)
        number = "1 such row" if len(rows) == 1 else f"{len(rows):,} such rows"
        raise DataError(f"{path}: row {rows[0] + 1} ({at}, prediction {first['prediction']}): {said}; {number}")


def _number(value: Any) -> float:
    """Return a prediction as a number, NaN if it is none; Python's ``float`` keeps every digit of a text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _whole(path: Path, frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column as int64; raise ``DataError`` at the first value that is no whole number."""
    number = pd.to_numeric(frame[name], errors="coerce")
    if pd.api.types.is_signed_integer_dtype(number.dtype) and not number.isna().any():
        return number.to_numpy(np.int64)
    values = to_float(frame[name])
    bad = ~(np.abs(values) < 2**53) | (values != np.floor(values))
    _refuse(path, frame, bad, f"{name} is no whole number")
    return values.astype(np.int64)


def _read(path: Path, most: int, several: bool) -> pd.DataFrame:
    """Return the file's columns that count, as it has them; refuse files of more than ``most`` rows."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith((".parquet", ".pq")):
        frame = _read_parquet(path, most, several)
    elif name.endswith(_TABLES):
        frame = _read_csv(path, most, several)
    else:
        raise DataError(f"{path}: predictions come as .parquet or .csv")
    if len(frame) > most:
        raise DataError(f"{path}: more than {most:,} rows, at least twice as many as the query has")
    return frame


def _columns(path: Path, found: Sequence[str], several: bool) -> list[str]:
    more = [name for name in ("task", _SD) if name in found or (name == "task" and several)]
    wanted = [*_KEYS, "prediction", *more]
    for name in wanted:
        if list(found).count(name) != 1:
            shown = ", ".join(f"'{one}'" for one in list(found)[:12])
            why = " (there are several tasks: name each row's, or give --episodes the folder of one)"
            said = "no column" if name not in found else "more than one column"
            raise DataError(f"{path}: {said} '{name}' among {shown}{why if name == 'task' else ''}")
    return wanted


def _read_parquet(path: Path, most: int, several: bool) -> pd.DataFrame:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            wanted = _columns(path, schema.names, several)
            for name in wanted:
                kind = schema.field(name).type
                if name == "task":
                    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                    fits = pa.types.is_string(kind) or pa.types.is_large_string(kind)
                else:
                    fits = pa.types.is_integer(kind) or pa.types.is_floating(kind)
                if not fits:
                    raise DataError(f"{path}: column '{name}' has to hold {'text' if name == 'task' else 'numbers'}")
            if file.metadata.num_rows > most:
                raise DataError(f"{path}: {file.metadata.num_rows:,} rows, at least twice as many as the query has")
        return bounded_table(path, path.stat().st_size, wanted, a_row=200).to_pandas()  # joined with answers
    except BROKEN as error:
        raise DataError(f"{path}: not a readable Parquet file ({reason(error)}); write the predictions again") from None


def _read_csv(path: Path, most: int, several: bool) -> pd.DataFrame:
    try:
        found = list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
        wanted = _columns(path, found, several)
        return pd.read_csv(
            path, usecols=wanted, nrows=most + 1, encoding="utf-8-sig",
            dtype={"task": str, "prediction": str, _SD: str},
        )  # fmt: skip
    except (
        OSError,
        EOFError,
        UnicodeDecodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        ValueError,
    ) as error:
        empty = isinstance(error, pd.errors.EmptyDataError)
        raise DataError(f"{path}: not a readable CSV file ({'it is empty' if empty else reason_of(error)})") from None
