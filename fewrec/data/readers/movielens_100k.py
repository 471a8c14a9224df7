"""The official files of MovieLens-100K: ``u.data`` (tabs), ``u.item`` and ``u.user`` (bars, Latin-1)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fewrec.data.readers.raw import Layout, RawFiles, int_ids, read_fields
from fewrec.data.readers.text import item_text, join_genres
from fewrec.data.validate import RawRatings

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_BARS = Layout("|", "latin-1")


def read(folder: Path, name: str = "u") -> RawFiles:
    """Return ratings, item text and user features of the files ``{name}.data``, ``{name}.item`` and ``{name}.user``."""
    ratings = read_fields(folder / f"{name}.data", Layout("\t", "latin-1"), 4, {0: int, 1: int, 2: float, 3: int})
    items = read_fields(folder / f"{name}.item", _BARS, 5 + len(GENRES))
    users = read_fields(folder / f"{name}.user", _BARS, 5, {1: int})
    genres = [
        join_genres([genre for genre, flag in zip(GENRES, row, strict=True) if flag.strip() == "1"])
        for row in items.frame.iloc[:, 5:].itertuples(index=False)
    ]
    blank = [""] * len(genres)
    return RawFiles(
        ratings=RawRatings(ratings.frame[0], ratings.frame[1], ratings.frame[2], ratings.frame[3], ratings.where),
        item_ids=int_ids(items.frame[0]),
        item_text=item_text(list(items.frame[1]), blank, genres, blank),
        user_ids=int_ids(users.frame[0]),
        user_features=pd.DataFrame(
            {
                "age": users.frame[1],
                "gender": users.frame[2].astype(object),
                "occupation": users.frame[3].astype(object),
            }
        ),
    )
