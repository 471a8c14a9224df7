"""Item attributes as numbers: what the catalog offers besides ratings to learners that embed content."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewrec.data.table import Catalog


def item_attributes(catalog: Catalog, largest: int = 64) -> Tensor:
    """Return (n_items, d) float32 attributes of the items; d is 0 where the catalog has none.

    The catalog's features, standardised over all items; then, from its text columns, genres as a multi-hot vector
    (``genres`` is split at commas; the ``largest`` most frequent) and the decade of ``year`` as a one-hot vector. An
    item that lacks one has zeros there. Nothing is learnt from ratings, so that unseen items have theirs too.
    """
    parts = [np.zeros((len(catalog), 0), np.float32)]
    if catalog.features is not None:
        features = np.nan_to_num(catalog.features.astype(np.float64))
        spread = features.std(0)
        parts.append(((features - features.mean(0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32))
    if catalog.text is not None:
        text = catalog.text[["genres", "year"]].fillna("").astype(str)
        genres = [[name.strip() for name in row.split(",") if name.strip()] for row in text["genres"]]
        decades = [[str(int(year) // 10)] if year.isdigit() else [] for year in text["year"]]
        parts += [_multi_hot(genres, largest), _multi_hot(decades, largest)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _multi_hot(values: list[list[str]], largest: int) -> np.ndarray:
    """Return (n, number of values) of 0 and 1, columns by falling frequency, ties by name; at most ``largest``."""
    names, counts = np.unique([name for row in values for name in set(row)] or [""], return_counts=True)
    kept = {str(names[i]): column for column, i in enumerate(np.lexsort((names, -counts))[:largest]) if names[i]}
    out = np.zeros((len(values), len(kept)), np.float32)
    for i, row in enumerate(values):
        for name in row:
            if name in kept:
                out[i, kept[name]] = 1.0
    return out
