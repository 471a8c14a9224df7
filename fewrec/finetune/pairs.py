"""Two files of ratings, train and test, as tables with the same codes; what is odd about them is said here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewrec.data.own import load_own
from fewrec.data.table import Dataset, RatingTable, Scale
from fewrec.data.validate import same_kind


@dataclass(frozen=True, eq=False)
class Pairs:
    """Train and test ratings; user code *u* of both is ``user_ids[u]``, items likewise, and ids are text.

    ``scale`` is what predictions are clipped to. ``texts`` are the texts of a file of items, by item id, or None.
    ``sources`` holds the SHA-256 of each file. ``notes`` and ``warnings`` are for the user, one line each.
    """

    train: RatingTable
    test: RatingTable
    user_ids: list[str]
    item_ids: list[str]
    scale: Scale
    texts: dict[str, str] | None
    sources: dict[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_pairs(
    train: str | Path,
    test: str | Path,
    *,
    items: str | Path | None = None,
    scale: tuple[float, float] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Pairs:
    """Read two files of ``item,user,score`` (CSV or TSV, .gz too, or Parquet), with or without a header.

    ``items`` is a file of ``item,title[,year,genres,description]``. ``scale`` is guessed from train if None.
    ``columns`` are options of ``fewrec.data.own.load_own``, for both files.

    Raises:
        DataError: one line with file and line: an empty file, a line with other columns than the first, a score that
            is no number or off the scale, a pair that comes twice in one file.
    """
    first = load_own(train, items=items, scale=scale, **(columns or {}))
    second = load_own(test, items=items, scale=(first.scale.low, first.scale.high), **(columns or {}))
    user_ids, users = _joined(first.user_ids, second.user_ids)
    item_ids, items_of = _joined(first.catalog.item_ids, second.catalog.item_ids)
    sizes = len(user_ids), len(item_ids)
    tables = [
        RatingTable(of_user[data.table.user], of_item[data.table.item], data.table.rating, None, *sizes)
        for data, of_user, of_item in zip((first, second), users, items_of, strict=True)
    ]
    texts = None
    if items is not None:
        texts = {str(item): text for data in (second, first)
                 for item, text in zip(data.catalog.item_ids.tolist(), data.catalog.texts(), strict=True)}  # fmt: skip
    names = {"train": Path(train).name, "test": Path(test).name}
    notes = [f"{name}: {note}" for name, data in zip(names.values(), (first, second), strict=True)
             for note in _notes(data, items, guessed=scale is None and data is first)]  # fmt: skip
    warnings = [f"{names['test']}: {text}" for text in _oddities(tables[0], tables[1], names["train"])]
    sources = {role: next(iter(data.sources.values())) for role, data in zip(names, (first, second), strict=True)}
    return Pairs(tables[0], tables[1], user_ids, item_ids, first.scale, texts, sources, tuple(notes), tuple(warnings))


def _joined(first: np.ndarray, second: np.ndarray) -> tuple[list[str], tuple[np.ndarray, np.ndarray]]:
    """Return the ids of either file as text, in order, and the joint code of each file's own codes."""
    ids, code = np.unique(np.concatenate(same_kind(first, second)), return_inverse=True)
    return [str(one) for one in ids.tolist()], (code[: len(first)], code[len(first) :])


def _notes(data: Dataset, items: str | Path | None, guessed: bool) -> list[str]:
    """Return what was guessed about a file; what is said of the items of one of two files would mislead."""
    of_items = () if items is None else ("item text ", f"{Path(items).name}: ")
    return [note for note in data.notes if not note.startswith((*of_items, *(() if guessed else ("scale ",))))]


def _oddities(train: RatingTable, test: RatingTable, train_name: str) -> list[str]:
    out = []
    both = int(np.isin(_pair(test), _pair(train)).sum())
    if both:
        out.append(
            f"{both:,} of {len(test):,} pairs are also in {train_name}: their errors say nothing of new ratings; "
            "remove them from one of the files"
        )
    for what, of_train, of_test in (("users", train.user, test.user), ("items", train.item, test.item)):
        new = ~np.isin(of_test, of_train)
        if new.any():
            out.append(
                f"{len(np.unique(of_test[new])):,} of {len(np.unique(of_test)):,} {what} ({new.mean():.1%} of the "
                f"ratings) are not in {train_name}"
            )
    return out


def _pair(table: RatingTable) -> np.ndarray:
    return table.user * np.int64(table.n_items) + table.item
