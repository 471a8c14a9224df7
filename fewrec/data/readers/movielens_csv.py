"""The CSV files of the later MovieLens data sets (latest-small, 25M, 32M): quoted, UTF-8, half stars from 0.5 to 5."""

from __future__ import annotations

from pathlib import Path

from fewrec.data.readers.raw import Layout, RawFiles, read_fields
from fewrec.data.readers.text import item_text, join_genres
from fewrec.data.validate import RawRatings

_CSV = Layout(",", header=True, quoted=True)


def read(folder: Path, stem: str = "") -> RawFiles:
    """Return ratings, titles and genres of ``ratings.csv`` and ``movies.csv``."""
    numbers = {"userId": int, "movieId": int, "rating": float, "timestamp": int}
    ratings = read_fields(folder / "ratings.csv", _CSV, numbers=numbers)
    movies = read_fields(folder / "movies.csv", _CSV, numbers={"movieId": int})
    genres = [join_genres(names.split("|")) for names in movies.column("genres")]
    blank = [""] * len(genres)
    user, item, rating, time = (ratings.frame[name] for name in numbers)
    return RawFiles(
        ratings=RawRatings(user, item, rating, time, ratings.where),
        item_ids=movies.frame["movieId"].to_numpy(),
        item_text=item_text(list(movies.column("title")), blank, genres, blank),
    )
