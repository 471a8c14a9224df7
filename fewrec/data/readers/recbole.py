"""RecBole's atomic files: ``.inter``, ``.item`` and ``.user``, tab-separated, with ``name:type`` column headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fewrec.data.readers.movielens_100k import GENRES
from fewrec.data.readers.raw import Fields, Layout, RawFiles, int_ids, read_fields
from fewrec.data.readers.text import item_text, join_genres
from fewrec.data.validate import RawRatings, to_float
from fewrec.errors import DataError

_LAYOUT = Layout("\t", header=True)


def read(folder: Path, name: str) -> RawFiles:
    """Return ratings, item text and user features of ``{name}.inter``, ``{name}.item`` and ``{name}.user``.

    Genres (column ``class``) are separated by spaces; they come out in the order of MovieLens where it knows them all.
    """
    ratings = read_fields(folder / f"{name}.inter", _LAYOUT)
    items = read_fields(folder / f"{name}.item", _LAYOUT)
    users = read_fields(folder / f"{name}.user", _LAYOUT)
    titles, years = list(_column(items, "movie_title")), list(_column(items, "release_year"))
    genres = [_genres(text) for text in _column(items, "class")]
    return RawFiles(
        ratings=RawRatings(
            _column(ratings, "user_id"),
            _column(ratings, "item_id"),
            _column(ratings, "rating"),
            _column(ratings, "timestamp"),
            ratings.where,
        ),
        item_ids=int_ids(_column(items, "item_id")),
        item_text=item_text(titles, years, genres, [""] * len(titles)),
        user_ids=int_ids(_column(users, "user_id")),
        user_features=pd.DataFrame(
            {
                "age": _ages(users),
                "gender": _column(users, "gender"),
                "occupation": _column(users, "occupation"),
            }
        ),
    )


def _column(fields: Fields, name: str) -> pd.Series:
    for column in fields.frame.columns:
        if column.split(":")[0] == name:
            return fields.frame[column].astype(object)
    raise DataError(f"{fields.path}:1: no column '{name}' among {', '.join(fields.frame.columns)}")


def _ages(users: Fields) -> np.ndarray:
    found = to_float(_column(users, "age"))
    wrong = ~(np.abs(found) < 2**53) | (found != np.floor(found))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{users.where(row)}: age '{_column(users, 'age').iloc[row]}' is not a whole number")
    return found.astype(np.int64)


def _genres(text: str) -> str:
    genres = text.split(" ")
    known = {genre: i for i, genre in enumerate(GENRES)}
    if all(genre in known for genre in genres):
        genres.sort(key=known.__getitem__)
    return join_genres(genres)
