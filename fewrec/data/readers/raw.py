"""What a reader of a card's format hands on, and the one way such files (fixed columns, no quoting) are split."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fewrec.data.validate import RawRatings
from fewrec.errors import DataError


@dataclass(frozen=True, eq=False)
class RawFiles:
    """Ratings as the files gave them, with the text of the items and the features of the users."""

    ratings: RawRatings
    item_ids: np.ndarray
    item_text: pd.DataFrame | None
    user_ids: np.ndarray | None = None
    user_features: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Fields:
    """A file split into text columns; ``where`` names the place of a row."""

    path: Path
    frame: pd.DataFrame
    first_line: int

    def where(self, row: int) -> str:
        return f"{self.path.name}:{row + self.first_line}"


def read_fields(path: Path, separator: str, width: int | None, encoding: str, header: bool = False) -> Fields:
    """Return all columns as text, quotes kept as they are; ``width`` is the number of columns if there is no header.

    Raises:
        DataError: if the file is missing, wrongly encoded, or a line has another number of columns.
    """
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            header=0 if header else None,
            names=None if header else range(width or 0),
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            encoding=encoding,
            index_col=False,
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not in the expected format ({str(error).strip()})") from None
    return Fields(path, frame, 2 if header else 1)


def int_ids(column: pd.Series) -> np.ndarray:
    """Return a column of text ids as int64 where all are whole numbers, else as text."""
    try:
        return column.astype(np.int64).to_numpy()
    except ValueError:
        return column.astype(object).to_numpy()
