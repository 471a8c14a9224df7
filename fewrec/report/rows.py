"""Reading the Parquet files of a results folder: numbers by the cell, the same from a run and from a reference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from fewrec.data.parquet import BROKEN, bounded_table, reason
from fewrec.errors import DataError
from fewrec.metrics.statistics import LARGEST
from fewrec.report.files import remedy, remedy_of_a_stranger

_UNBOUNDED = ("pred_mean", "pred_min", "pred_max")  # of predictions as a learner gave them, which are never summed
_SUMS_OF_ERRORS = ("se", "ae")
_A_ROW = 1000  # bytes of memory that a row takes while all are joined and sorted, and tables made of them


def read_rows(file: Path, whole: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of a Parquet file: ``cell`` as text, the columns ``whole`` as int64, all others as numbers.

    Raises ``DataError`` where the file can't be read, or a column is of another kind or, of whole numbers, has gaps,
    or holds a number that no score reaches (tables sum scores and their squares and cubes).
    """
    try:
        table = bounded_table(file, file.stat().st_size, a_row=_A_ROW)
        frame = table.to_pandas()
    except BROKEN as error:
        raise DataError(f"{file}: can't be read ({reason(error)}); {remedy(file)}") from None
    for name in table.column_names:
        kind = table.schema.types[table.column_names.index(name)]
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
        if not (text if name == "cell" else number):
            raise DataError(f"{file}: its column '{name}' is not as fewrec writes it; {remedy_of_a_stranger(file)}")
        if (name in whole or name == "cell") and table.column(name).null_count:
            raise DataError(f"{file}: its column '{name}' has empty places; {remedy_of_a_stranger(file)}")
        if name in whole and not pa.types.is_signed_integer(kind):
            raise DataError(f"{file}: its column '{name}' is {kind}, not whole numbers; {remedy_of_a_stranger(file)}")
    for name in (name for name in frame if frame[name].dtype.kind == "f" and name not in _UNBOUNDED):
        most = float(frame[name].abs().max())
        if most > LARGEST:
            said = f"its column '{name}' has {most:.3g}, which no score is"
            raise DataError(f"{file}: {said}; {remedy_of_a_stranger(file)}")
    for name in _SUMS_OF_ERRORS:
        if name in frame and frame[name].dtype.kind in "if" and frame[name].min() < 0:
            raise DataError(f"{file}: its column '{name}' is below 0 somewhere; {remedy_of_a_stranger(file)}")
    if "n" in frame and (frame["n"] < 1).any():
        raise DataError(f"{file}: its column 'n' has {frame['n'].min()} ratings; {remedy_of_a_stranger(file)}")
    return frame
