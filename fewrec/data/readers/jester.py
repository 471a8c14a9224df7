"""Jester's jokes: ratings as rows or as a dense matrix, continuous from -10 to 10, and texts in HTML."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from fewrec.data.readers.raw import Layout, RawFiles, first_line, read_fields
from fewrec.data.readers.text import item_text, plain_text
from fewrec.data.validate import RawRatings
from fewrec.errors import DataError, reason_of

NOT_RATED = 99


def read(folder: Path, stem: str = "") -> RawFiles:
    """Return the rows of ``jester_ratings.dat`` (user, item, rating, two tabs between) and the texts of the jokes.

    A joke, in ``jester_items.dat``, is its number and a colon in one line, and HTML below it; it is an item's title.
    """
    ratings = read_fields(folder / "jester_ratings.dat", Layout("\t\t"), 3, {0: int, 1: int, 2: float})
    ids, text = _jokes(folder / "jester_items.dat")
    frame = ratings.frame
    return RawFiles(RawRatings(frame[0], frame[1], frame[2], None, ratings.where), ids, text)


def read_matrix(folder: Path, stem: str = "") -> RawFiles:
    """Return the ratings of all ``.csv`` in the folder: a row a user, first how many jokes are rated, 99 = not rated.

    The users of the second file follow those of the first. Users and items count from 1.

    Raises:
        DataError: if a row does not hold as many ratings as its first column says.
    """
    parts, places, n_users = [], [], 0
    for path in sorted(folder.glob("*.csv")):
        layout = Layout(",")
        width = len(first_line(path, layout))
        fields = read_fields(path, layout, width, {i: float for i in range(width)})
        matrix = fields.frame.to_numpy(np.float64)
        user, item = np.nonzero(matrix[:, 1:] != NOT_RATED)
        wrong = np.flatnonzero(np.bincount(user, minlength=len(matrix)) != matrix[:, 0])
        if len(wrong):
            row = int(wrong[0])
            said, found = matrix[row, 0], int((user == row).sum())
            raise DataError(f"{fields.where(row)}: {found} ratings, but the first column says {said:g}")
        parts.append(pd.DataFrame({"user": user + n_users + 1, "item": item + 1, "rating": matrix[user, item + 1]}))
        places.append((n_users, fields))
        n_users += len(matrix)
    if not parts:
        raise DataError(f"{folder}: no .csv in it")
    frame = pd.concat(parts, ignore_index=True)
    if not len(frame):
        raise DataError(f"{path}: no rating in it ({NOT_RATED} stands for none)")

    def where(row: int) -> str:
        user = int(frame["user"].iloc[row]) - 1
        first, fields = next(place for place in reversed(places) if place[0] <= user)
        return fields.where(user - first)

    ids = np.arange(1, frame["item"].max() + 1)
    return RawFiles(RawRatings(frame["user"], frame["item"], frame["rating"], None, where), ids, None)


def _jokes(path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    try:
        parts = re.split(r"(?m)^(\d+):\s*$", path.read_text(encoding="latin-1"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({reason_of(error)})") from None
    if len(parts) < 3:
        raise DataError(f"{path}:1: no joke begins with its number and a colon")
    titles = [plain_text(html) for html in parts[2::2]]
    blank = [""] * len(titles)
    return np.array([int(number) for number in parts[1::2]]), item_text(titles, blank, blank, blank)
