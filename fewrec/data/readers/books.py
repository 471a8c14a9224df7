"""Books: Book-Crossing (semicolons, Latin-1, escaped quotes, HTML entities) and goodbooks-10k (CSV, UTF-8)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fewrec.data.readers.raw import Layout, RawFiles, leave_out, read_fields
from fewrec.data.readers.text import item_text, plain_text
from fewrec.data.validate import RawRatings

_CSV = Layout(",", header=True, quoted=True)
_BX = Layout(";", "latin-1", header=True, quoted=True, escape="\\")


def read_book_crossing(folder: Path, stem: str = "") -> RawFiles:
    """Return the explicit ratings (1 to 10) of ``BX-Book-Ratings.csv`` and the texts of ``BX-Books.csv``.

    A rating of 0 says that the user had to do with the book, not how it was liked: it is left out, and the notes say
    so. The description of a book is "by" its author. Rated books that are not in the list have no text.
    """
    fields = read_fields(folder / "BX-Book-Ratings.csv", _BX, numbers={"User-ID": int, "Book-Rating": float})
    frame = fields.frame
    explicit = RawRatings(frame["User-ID"], fields.column("ISBN"), frame["Book-Rating"], None, fields.where)
    ratings, notes = leave_out(explicit, 0, "implicit ratings (0)")
    books = read_fields(folder / "BX-Books.csv", _BX, may_end_early=True)
    title, author, year = (books.column(name) for name in ("Book-Title", "Book-Author", "Year-Of-Publication"))
    title, author, year = _mend(books.frame.iloc[:, -1] == "", title, author, year)
    return RawFiles(
        ratings=ratings,
        item_ids=books.column("ISBN").str.strip().to_numpy(object),
        item_text=item_text(
            [plain_text(text) for text in title],
            list(year),
            [""] * len(title),
            [_by(plain_text(name)) for name in author],
        ),
        notes=notes,
    )


def _mend(
    short: pd.Series, title: pd.Series, author: pd.Series, year: pd.Series
) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Part title from author in the rows where a stray escape has joined them: all behind stands one to the left."""
    parts = title[short].str.split('";', n=1)
    joined = parts[parts.str.len() == 2]
    title, author, year = title.copy(), author.copy(), year.copy()
    year[joined.index] = author[joined.index]
    title[joined.index], author[joined.index] = joined.str[0], joined.str[1].str.strip('"')
    return title, author, year


def read_goodbooks(folder: Path, stem: str = "") -> RawFiles:
    """Return ratings, titles, years and authors of ``ratings.csv`` and ``books.csv``; a description is "by" authors."""
    numbers = {"user_id": int, "book_id": int, "rating": float}
    fields = read_fields(folder / "ratings.csv", _CSV, numbers=numbers)
    books = read_fields(folder / "books.csv", _CSV, numbers={"book_id": int})
    title, year, authors = (books.column(name) for name in ("title", "original_publication_year", "authors"))
    user, item, rating = (fields.frame[name] for name in numbers)
    return RawFiles(
        ratings=RawRatings(user, item, rating, None, fields.where),
        item_ids=books.frame["book_id"].to_numpy(),
        item_text=item_text(
            list(title), list(year.str.removesuffix(".0")), [""] * len(title), [_by(name) for name in authors]
        ),
    )


def _by(author: str) -> str:
    return f"by {' '.join(author.split())}" if author.strip() else ""
