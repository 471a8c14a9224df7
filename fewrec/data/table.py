"""The rating table, the catalog and the data set that holds both: what readers return and everything else reads."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Scale:
    """The lowest and the highest rating that a data set allows, and the distance of its steps (None: continuous)."""

    low: float
    high: float
    step: float | None = None

    @property
    def of_clicks(self) -> bool:
        """Whether it is that of clicks, 0 or 1 and nothing between, which are judged by AUC."""
        return (self.low, self.high, self.step) == (0, 1, 1)

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def clip(self, values):
        """Return ``values`` (NumPy array or torch tensor) limited to the scale."""
        return values.clip(self.low, self.high)


@dataclass(frozen=True, eq=False)
class RatingTable:
    """Integer-coded ratings, one row a (user, item) pair; all columns have shape (n,).

    ``user`` and ``item`` are int64 codes below ``n_users`` and ``n_items``, ``rating`` is float64 on the data set's
    scale, ``timestamp`` is int64 seconds or None. Arrays are made read-only: a table never changes.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray | None
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        for name, dtype in (("user", np.int64), ("item", np.int64), ("rating", np.float64), ("timestamp", np.int64)):
            column = getattr(self, name)
            if column is None:
                continue
            column = np.ascontiguousarray(column, dtype=dtype)
            if column.flags.writeable:
                column = column.view()
                column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.rating)

    def select(self, rows: np.ndarray) -> RatingTable:
        """Return the table of the given rows (boolean mask or indices); codes stay as they are."""
        time = None if self.timestamp is None else self.timestamp[rows]
        return replace(self, user=self.user[rows], item=self.item[rows], rating=self.rating[rows], timestamp=time)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of sizes and columns: equal for equal tables, whatever file format they came from."""
        h = hashlib.sha256(f"{self.n_users},{self.n_items},{len(self)}".encode())
        for column in (self.user, self.item, self.rating, self.timestamp):
            # no copy on a little-endian machine: of 25 million ratings these are 800 MB
            little = b"none" if column is None else column.astype(column.dtype.newbyteorder("<"), copy=False)
            h.update(little)  # type: ignore[arg-type]  # a contiguous array is a buffer
        return h.hexdigest()


TEXT_COLUMNS = ("title", "year", "genres", "description")


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items, row *i* for item code *i*.

    ``text`` holds the string columns title, year, genres (joined by ", "), description ("" where unknown), or is None
    where the data set has no text. ``features`` is (n_items, d) float32 or None. ``seen`` is (n_items,) bool: which
    items are in meta-train; all of them before a split. ``template`` is what an item's text is made of
    (``fewrec.data.template``); ``pieces`` ((number of items, template), ...) where it is not the same for all.
    """

    item_ids: np.ndarray
    text: pd.DataFrame | None = None
    features: np.ndarray | None = None
    seen: np.ndarray | None = None
    template: str = "{title} ({year}). {genres}. {description}"
    pieces: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        if self.seen is None:
            object.__setattr__(self, "seen", np.ones(len(self.item_ids), bool))

    def __len__(self) -> int:
        return len(self.item_ids)

    def with_seen(self, seen: np.ndarray) -> Catalog:
        return replace(self, seen=np.asarray(seen, bool))

    def joined(self, other: Catalog) -> Catalog:
        """Return the catalog with the items of ``other`` behind its own ones, each text by its own template.

        Without text where one of them has none; without features, which mean nothing in another data set.
        """
        text = None
        if self.text is not None and other.text is not None:
            text = pd.concat([self.text, other.text], ignore_index=True)
        pieces = tuple((len(catalog), catalog.template) for catalog in (self, other))
        return Catalog(
            item_ids=np.concatenate([self.item_ids.astype(object), other.item_ids.astype(object)]),
            text=text,
            seen=np.concatenate([self.seen, other.seen]),  # type: ignore[list-item]  # never None once made
            template=" | ".join(dict.fromkeys(template for _, template in pieces)),
            pieces=pieces,
        )

    def texts(self) -> list[str]:
        """Return one line of text for each item: the parts of the template whose column is not empty."""
        if self.text is None:
            raise ValueError("this catalog has no text")
        rows = iter(self.text.fillna("").astype(str).to_dict("records"))
        lines = []
        for count, template in self.pieces or ((len(self), self.template),):
            parts = template.split(" ")  # punctuation stays with its placeholder, and goes with it
            for row in itertools.islice(rows, count):
                filled = []
                for part in parts:
                    names = [name for name in TEXT_COLUMNS if "{" + name + "}" in part]
                    if all(row[name].strip() for name in names):
                        filled.append(part.format(**row))
                lines.append(" ".join(filled))
        return lines

    @cached_property
    def text_sha256(self) -> str | None:
        """SHA-256 of the text columns, and of a template other than the usual: a table says which text it used.

        Copies of a data set differ in accents.
        """
        if self.text is None:
            return None
        lines = "\x1e".join("\x1f".join(row) for row in self.text[list(TEXT_COLUMNS)].astype(str).to_numpy())
        own = "" if self.template == Catalog.template else f"\x1d{self.pieces or self.template}"
        return hashlib.sha256((lines + own).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named rating table with its catalog, scale and provenance.

    ``kind`` is "ratings" or, where the scale is ``of_clicks``, "clicks". ``user_ids`` are the original ids, row *u* for
    user code *u*. ``user_features`` is a frame with one row a user, or None. ``user_set`` (n_users,) int8 is each
    user's meta set (0 meta-train, 1 meta-validation, 2 meta-test) where the data set brings a published split, or None.
    ``sources`` names every file read, with its SHA-256.
    """

    name: str
    table: RatingTable
    catalog: Catalog
    scale: Scale
    user_ids: np.ndarray
    kind: str = "ratings"
    user_features: pd.DataFrame | None = None
    user_set: np.ndarray | None = None
    sources: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    notes: tuple[str, ...] = ()  # what a reader guessed or left out, one line each, for the user to check

    def __post_init__(self) -> None:
        if (self.kind == "clicks") != self.scale.of_clicks:
            raise ValueError(
                f"{self.name}: kind '{self.kind}' (clicks have the scale low 0, high 1, step 1, and only they)"
            )

    @cached_property
    def features_sha256(self) -> str | None:
        """SHA-256 of user attributes and item features, None where there are neither."""
        if self.user_features is None and self.catalog.features is None:
            return None
        h = hashlib.sha256()
        if self.user_features is not None:
            h.update(self.user_features.to_csv(index=False, lineterminator="\n").encode())
        if self.catalog.features is not None:
            h.update(np.ascontiguousarray(self.catalog.features, "<f4").tobytes())
        return h.hexdigest()
