"""A user's own table of user features: numbers and categories, one row a user, in the order of the rated users."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fewrec.data.readers.delimited import OwnTable
from fewrec.data.validate import code_ids, same_kind, to_float
from fewrec.errors import DataError

MAX_CATEGORIES = 100  # each becomes a column; a column with more of them (names, postcodes) tells users apart, no more


def user_features(table: OwnTable, user: str, wanted: np.ndarray) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a frame with one row for each id in ``wanted``, and what was left out or is missing, one note each.

    A column whose values are all numbers is one of numbers (NaN where unknown), any other one of categories ("" where
    unknown). ``user`` is the column of ids.

    Raises:
        DataError: for a user that comes twice, for a table without a usable column, and if no rated user is in it.
    """
    if not len(table.frame):
        raise DataError(f"{table.path}: the file ends before its first user")
    codes, ids = code_ids(table.frame[user], "user", table.where)
    if len(ids) < len(codes):
        row = int(np.flatnonzero(pd.Series(codes).duplicated())[0])
        raise DataError(f"{table.where(row)}: user {table.frame[user].iloc[row]} comes twice; keep one line of it")
    known, wanted = same_kind(ids[codes], wanted)
    rows = pd.Index(known).get_indexer(wanted)
    missing = int((rows < 0).sum())
    if missing == len(wanted):
        raise DataError(
            f"{table.path}: not one of the users with ratings is in it (ids such as {wanted[0]}, there {ids[0]})"
        )
    features, notes = {}, []
    for column in table.frame.columns:
        if column == user:
            continue
        name, values = column.split(":")[0], table.frame[column].replace("", np.nan)
        number = pd.Series(to_float(values))
        if number.notna().any() and (number.notna() == values.notna()).all():
            features[name] = number
        elif values.nunique() > MAX_CATEGORIES:
            notes.append(f"{table.path.name}: not used: {name} ({values.nunique():,} categories)")
        else:
            features[name] = values.astype(object).where(values.notna(), "")
    if not features:
        raise DataError(f"{table.path}: no column of numbers or of at most {MAX_CATEGORIES} categories beside '{user}'")
    frame = pd.DataFrame(features).take(np.maximum(rows, 0)).reset_index(drop=True)
    if missing:
        absent = rows < 0
        for name in frame.columns:
            frame.loc[absent, name] = np.nan if frame[name].dtype == np.float64 else ""
        notes.append(f"{table.path.name}: {missing:,} users with ratings are not in it")
    return frame, (f"user features {', '.join(features)}", *notes)
