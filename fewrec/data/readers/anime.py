"""The ratings of MyAnimeList as Kaggle has them: ``rating.csv`` and ``anime.csv``, UTF-8, quoted."""

from __future__ import annotations

from pathlib import Path

from fewrec.data.readers.raw import Layout, RawFiles, leave_out, read_fields
from fewrec.data.readers.text import item_text, join_genres, plain_text
from fewrec.data.validate import RawRatings

_CSV = Layout(",", header=True, quoted=True)


def read(folder: Path, stem: str = "") -> RawFiles:
    """Return ratings (1 to 10), names and genres; -1 says "watched, not rated" and is left out, as the notes say."""
    numbers = {"user_id": int, "anime_id": int, "rating": float}
    fields = read_fields(folder / "rating.csv", _CSV, numbers=numbers)
    anime = read_fields(folder / "anime.csv", _CSV, numbers={"anime_id": int})
    user, item, rating = (fields.frame[name] for name in numbers)
    ratings, notes = leave_out(RawRatings(user, item, rating, None, fields.where), -1, "watched but not rated (-1)")
    genres = [join_genres(plain_text(names).split(",")) for names in anime.column("genre")]
    blank = [""] * len(genres)
    return RawFiles(
        ratings=ratings,
        item_ids=anime.frame["anime_id"].to_numpy(),
        item_text=item_text([plain_text(name) for name in anime.column("name")], blank, genres, blank),
        notes=notes,
    )
