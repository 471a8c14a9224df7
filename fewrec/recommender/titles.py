"""Finding items by what people call them: titles without case, accents, order of the article, and unique years."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from fewrec.data.table import Dataset
from fewrec.errors import DataError, SuiteError, nearest
from fewrec.report.numbers import one_line

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLES = "the a an le la les l' un une el los las il lo gli i o os der die das ein eine det den de het".split()
_TRAILING = re.compile(rf"^(?P<rest>.+),\s*(?P<article>{'|'.join(_ARTICLES)})$", re.IGNORECASE)
_PARENTHESES = re.compile(r"^(?P<title>[^()]+)\((?P<other>[^()]+)\)(?P<tail>[^()]*)$")


class UnknownTitle(DataError):
    """No item, or more than one, is called that; the text says what to write instead, without the place."""


def plain(title: str) -> str:
    """Return the form in which titles are compared: "Matrix, The" and "THE MATRIX" both give "the matrix"."""
    text = " ".join(title.split())
    if found := _TRAILING.match(text):
        text = f"{found['article']} {found['rest']}"
    text = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w]+", " ", re.sub(r"['’`]", "", text.replace("&", " and "))).split())


class TitleIndex:
    """The items of a data set by id and by title; ``count`` (n_items,) is how many ratings each has there."""

    def __init__(self, dataset: Dataset) -> None:
        catalog = dataset.catalog
        self.ids = [str(item) for item in catalog.item_ids.tolist()]
        self.count = np.bincount(dataset.table.item, minlength=len(catalog))
        text = catalog.text
        titles = [""] * len(self.ids) if text is None else [one_line(title) for title in text["title"]]
        years = [""] * len(self.ids) if text is None else [one_line(year) for year in text["year"]]
        self.genres = [""] * len(self.ids) if text is None else [one_line(genres) for genres in text["genres"]]
        self.names, self.years = [], []  # a year that is part of the title counts as the year
        for title, year in zip(titles, years, strict=True):
            found = _YEAR.search(title)
            self.names.append(title[: found.start()] if found else title)
            self.years.append(year or (found[1] if found else ""))

    def title(self, item: int) -> str:
        """Return an item's title without its year, or its id where it has none."""
        return self.names[item] or self.ids[item]

    def shown(self, item: int) -> str:
        """Return an item as people name it: its title and year, or its id."""
        return self.title(item) + (f" ({self.years[item]})" if self.names[item] and self.years[item] else "")

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {item_id: item for item, item_id in enumerate(self.ids)}

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        out: dict[str, list[int]] = {}
        for item, name in enumerate(self.names):
            if key := plain(name):
                out.setdefault(key, []).append(item)
        return out

    @cached_property
    def _by_alias(self) -> dict[str, list[int]]:
        """The titles beside and within parentheses: "Nikita" and "La Femme Nikita" for "Nikita (La Femme Nikita)"."""
        out: dict[str, list[int]] = {}
        for item, name in enumerate(self.names):
            if found := _PARENTHESES.match(name):
                for part in (found["title"].strip() + found["tail"], found["other"]):
                    if key := plain(part):
                        out.setdefault(key, []).append(item)
        return out

    def match(self, text: str, *, ids: bool = True, titles: bool = True) -> int:
        """Return the code of the item whose id or title is ``text``; an id comes first.

        Raises:
            UnknownTitle: with the nearest titles, or with the ids of all that are called so.
        """
        text = one_line(text)
        if ids and text in self._by_id:
            item = self._by_id[text]
            others = [i for i in self._by_title.get(plain(text), []) if i != item] if titles else []
            if others:
                raise UnknownTitle(
                    f"'{text}' is the id of '{self.shown(item)}' and the title of '{self.shown(others[0])}' = "
                    f"{self.ids[others[0]]}; name the column item_id or title"
                )
            return item
        found: list[int] = []
        if titles:
            year = _YEAR.search(text)
            name = text[: year.start()] if year else text
            found = self._called(name)
            if year:
                found = [item for item in found if self.years[item] in ("", year[1])]
            found = found or self._called(text)
        if len(found) == 1:
            return found[0]
        if found:
            options = "; ".join(self._option(item) for item in found[:5]) + ("; ..." if len(found) > 5 else "")
            raise UnknownTitle(f"'{text}' may be {len(found)} items; write the id of one: {options}")
        known = "item" if not titles else "title" if not ids else "item or title"
        near = "; ".join(self._option(item) for item in self.nearest(text))
        more = f"nearest: {near}" if near else "fewrec recommend --find TEXT lists titles with their ids"
        raise UnknownTitle(f"unknown {known} '{text}'; {more}")

    def _called(self, name: str) -> list[int]:
        key = plain(name)
        return self._by_title.get(key) or self._by_alias.get(key, []) if key else []

    def _option(self, item: int) -> str:
        return f"{self.shown(item)} = {self.ids[item]}" if self.names[item] else self.ids[item]

    def find(self, text: str) -> list[int]:
        """Return the items whose title has all the words of ``text``, parts of words too, the most rated first."""
        words = plain(_YEAR.sub("", one_line(text))).split()
        year = _YEAR.search(text)
        if not words:
            return []
        found = [
            item
            for key, items in self._by_title.items()
            if all(word in key for word in words)
            for item in items
            if year is None or self.years[item] in ("", year[1])
        ]
        return self._by_count(found)

    def of_genre(self, genre: str | None) -> np.ndarray:
        """Return (n_items,) bool: which items have the genre; None is any. Raises ``SuiteError`` where none has it."""
        if genre is None:
            return np.ones(len(self.ids), bool)
        of_item = [{name.strip().casefold() for name in row.split(",")} for row in self.genres]
        found = np.array([genre.strip().casefold() in names for names in of_item])
        if not found.any():
            known = {name.strip() for row in self.genres for name in row.split(",") if name.strip()}
            raise SuiteError(f"no item has the genre '{one_line(genre)}'{nearest(genre, known)}")
        return found

    def nearest(self, text: str, n: int = 3) -> list[int]:
        """Return at most ``n`` items whose titles look like ``text``, the nearest first."""
        key = plain(_YEAR.sub("", text))
        within = self.find(text) if len(key) >= 3 else []
        words, first = set(key.split()), key[:1]
        # Comparing with every title of a large catalog takes seconds: those that share a word or the first letter do.
        pool = [title for title in self._by_title if title[:1] == first or not words.isdisjoint(title.split())]
        close = difflib.get_close_matches(key, pool, n=n, cutoff=0.6)
        similar = [item for title in close for item in self._by_count(self._by_title[title])]
        if not similar and not within:  # a word that is misspelt in a long title
            known = [difflib.get_close_matches(word, self._words, n=1, cutoff=0.75) for word in words]
            within = self.find(" ".join(word[0] for word in known)) if words and all(known) else []
        return list(dict.fromkeys([*similar, *within]))[:n]

    @cached_property
    def _words(self) -> list[str]:
        return sorted({word for title in self._by_title for word in title.split()})

    def _by_count(self, items: Iterable[int]) -> list[int]:
        return sorted(items, key=lambda item: (-int(self.count[item]), item))
