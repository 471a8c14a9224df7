"""Likes from ratings: a data set of ratings read as clicks; apart from reading files, because a suite chooses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fewrec.data.table import Dataset, Scale
from fewrec.errors import DataError


def likes_of(dataset: Dataset, above: float | None) -> Dataset:
    """Return ``dataset`` as clicks: a rating of more than ``above`` is 1, any other 0. None leaves it as it is.

    Rows, their order, codes, timestamps, texts and attributes stay; the scale is 0 to 1, and the notes say the limit.
    Raises ``DataError`` for clicks, and where all ratings are on one side of ``above``.
    """
    if above is None:
        return dataset
    if dataset.kind != "ratings":
        raise DataError(f"{dataset.name}: likes_above = {above:g} is for ratings, and these are {dataset.kind}")
    liked = dataset.table.rating > above
    if liked.all() or not liked.any():
        low, high = dataset.table.rating.min(), dataset.table.rating.max()
        raise DataError(
            f"{dataset.name}: likes_above = {above:g} puts all ratings on one side; give a number from {low:g} to "
            f"below {high:g}"
        )
    table = replace(dataset.table, rating=liked.astype(np.float64))
    note = f"likes: ratings above {above:g} are 1, all others 0"
    return replace(dataset, table=table, scale=Scale(0, 1, 1), kind="clicks", notes=(*dataset.notes, note))
