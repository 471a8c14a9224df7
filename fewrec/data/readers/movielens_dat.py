"""Columns separated by ``::``: the files of MovieLens-1M (Latin-1) and of MovieTweetings, made after them (UTF-8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fewrec.data.readers.raw import Layout, RawFiles, int_ids, read_fields
from fewrec.data.readers.text import item_text, join_genres
from fewrec.data.validate import RawRatings

# What the codes of users.dat stand for; an age is the lowest of its group (1: under 18, 18: 18-24 ...).
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip


def read(folder: Path, stem: str = "") -> RawFiles:
    """Return ratings, titles, genres and users of MovieLens-1M: ``ratings.dat``, ``movies.dat``, ``users.dat``."""
    layout = Layout("::", "latin-1")
    users = read_fields(folder / "users.dat", layout, 5, {0: int, 2: int, 3: int}).frame
    ratings = read_fields(folder / "ratings.dat", layout, 4, {0: int, 1: int, 2: float, 3: int})
    frame = ratings.frame
    item_ids, text = _movies(folder, layout)
    return RawFiles(
        ratings=RawRatings(frame[0], frame[1], frame[2], frame[3], ratings.where),
        item_ids=item_ids,
        item_text=text,
        user_ids=users[0].to_numpy(),
        user_features=pd.DataFrame(
            {
                "age": users[2],
                "gender": users[1].astype(object),
                "occupation": users[3].map(dict(enumerate(OCCUPATIONS))).fillna("other").astype(object),
            }
        ),
    )


def read_movietweetings(folder: Path, stem: str = "") -> RawFiles:
    """Return ratings, titles and genres of ``ratings.dat`` and ``movies.dat``; an item's id is IMDb's, with its zeros.

    ``users.dat`` (accounts of Twitter) is not read.
    """
    layout = Layout("::")
    ratings = read_fields(folder / "ratings.dat", layout, 4, {0: int, 2: float, 3: int})
    frame = ratings.frame
    item_ids, text = _movies(folder, layout)
    return RawFiles(RawRatings(frame[0], frame[1], frame[2], frame[3], ratings.where), item_ids, text)


def _movies(folder: Path, layout: Layout) -> tuple[np.ndarray, pd.DataFrame]:
    movies = read_fields(folder / "movies.dat", layout, 3).frame
    genres = [join_genres(names.split("|")) for names in movies[2]]
    blank = [""] * len(genres)
    ids = int_ids(movies[0]) if layout.encoding == "latin-1" else movies[0].to_numpy(object)
    return ids, item_text(list(movies[1]), blank, genres, blank)
