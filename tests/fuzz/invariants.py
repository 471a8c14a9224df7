"""What must hold of everything that a reader accepts."""

from __future__ import annotations

import numpy as np

from fewrec.data.table import TEXT_COLUMNS, Dataset


def holds(data: Dataset) -> None:
    """Assert that a data set is one that the rest of fewrec can work on."""
    table, scale = data.table, data.scale
    assert len(table) >= 1 and np.isfinite([scale.low, scale.high]).all() and scale.low < scale.high
    assert table.user.shape == table.item.shape == table.rating.shape == (len(table),)
    assert 0 <= table.user.min() and table.user.max() < table.n_users == len(data.user_ids)
    assert 0 <= table.item.min() and table.item.max() < table.n_items == len(data.catalog)
    assert np.isfinite(table.rating).all() and scale.low <= table.rating.min() and table.rating.max() <= scale.high
    assert len(np.unique(table.user * np.int64(table.n_items) + table.item)) == len(table)
    assert table.timestamp is None or (table.timestamp.dtype == np.int64 and table.timestamp.shape == table.user.shape)
    for ids in (data.user_ids, data.catalog.item_ids):
        assert ids.dtype == np.int64 or all(isinstance(one, str) and one.strip() for one in ids.tolist())
        assert len(set(ids.tolist())) == len(ids)
    if data.catalog.text is not None:
        assert tuple(data.catalog.text.columns) == TEXT_COLUMNS and len(data.catalog.text) == table.n_items
        assert all(isinstance(one, str) for name in TEXT_COLUMNS for one in data.catalog.text[name])
        assert len(data.catalog.texts()) == table.n_items
    if data.user_features is not None:
        assert len(data.user_features) == table.n_users
    if data.user_set is not None:
        assert data.user_set.shape == (table.n_users,) and set(data.user_set.tolist()) <= {0, 1, 2}
    assert (
        data.table.sha256 and (data.catalog.text is None or data.catalog.text_sha256) and (data.features_sha256 or True)
    )
    assert all(note and note.isprintable() for note in data.notes), data.notes
