"""The canonical form of item text, whatever file it came from: title without year, year, genres, description."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from fewrec.data.table import TEXT_COLUMNS
from fewrec.data.validate import same_kind

# "Title (1995)", with a mark such as "(V)" behind it in a few.
_YEAR_AT_END = re.compile(r"^(.*?)\s*\((\d{4})\)(?:\s*\([A-Z/]{1,3}\))?\s*$")
_TAG = re.compile(r"<[a-zA-Z/!][^>]*(?:>|$)")  # one that is cut off at the end is a tag too
_HALF = re.compile("[\ud800-\udfff]")  # of a character of UTF-16, as "\\ud83d" in JSON
_NO_GENRE = {"", "unknown", "(no genres listed)"}


def split_title(title: str, year: str = "") -> tuple[str, str]:
    """Return title and year, the title without its year and outer spaces; the year is 4 digits or empty.

    A year in brackets at the end of the title counts if ``year`` is no year, or the same one.
    """
    year = year.strip() if re.fullmatch(r"\s*\d{4}\s*", year) else ""
    match = _YEAR_AT_END.match(title)
    if match and match[1].strip() and year in ("", match[2]):
        return match[1].strip(), match[2]
    return title.strip(), year


def plain_text(text: str) -> str:
    """Return text without HTML tags and entities, and with single spaces."""
    if "<" in text or "&" in text:
        text = html.unescape(html.unescape(_TAG.sub(" ", text)))  # twice: "&amp;amp;" is common in scraped text
    return " ".join(_HALF.sub("\ufffd", text).split())


def join_genres(genres: list[str]) -> str:
    """Return genres joined by ", "; those that say "unknown" are left out."""
    return ", ".join(g for g in (genre.strip() for genre in genres) if g.lower() not in _NO_GENRE)


def item_text(titles: list[str], years: list[str], genres: list[str], descriptions: list[str]) -> pd.DataFrame:
    """Return the text frame of a catalog from parallel lists."""
    split = [split_title(title, year) for title, year in zip(titles, years, strict=True)]
    columns = ([t for t, _ in split], [y for _, y in split], genres, [d.strip() for d in descriptions])
    return pd.DataFrame(dict(zip(TEXT_COLUMNS, columns, strict=True)), dtype=object)


def align(frame: pd.DataFrame, ids: np.ndarray, wanted: np.ndarray) -> tuple[pd.DataFrame, int]:
    """Return the rows of ``frame`` (row *i* is of ``ids[i]``) in the order of ``wanted``, and how many ids had none.

    An id without a row gets "" in every column.
    """
    ids, wanted = same_kind(ids, wanted)
    index = pd.Index(ids)
    rows = index[~index.duplicated()].get_indexer(wanted)
    unique = frame[~index.duplicated()].reset_index(drop=True)
    absent = rows < 0
    if absent.all():  # there may be no row to take at all
        return pd.DataFrame("", index=range(len(wanted)), columns=frame.columns, dtype=object), len(wanted)
    found = unique.take(np.maximum(rows, 0)).reset_index(drop=True)
    if absent.any():
        found = found.astype(object)
        found.loc[absent, :] = ""
    return found, int(absent.sum())
