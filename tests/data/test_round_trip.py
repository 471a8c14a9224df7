"""Property: any table of ratings, written as CSV, TSV or Parquet, packed or not, reads back as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewrec.data.own import load_own

# Line ends, quotes and delimiters inside ids included; outer blanks are not part of an id.
TEXT_IDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6).filter(
    lambda text: not text.replace(".", "").replace("-", "").isdigit()
)
IDS = st.one_of(
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8, unique=True),
    st.lists(TEXT_IDS, min_size=1, max_size=8, unique=True),
)


@st.composite
def frames(draw) -> pd.DataFrame:
    users, items = draw(IDS), draw(IDS)
    pairs = [(u, i) for u in users for i in items]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=30, unique=True)) if len(pairs) > 1 else pairs
    n = len(chosen)
    rating = draw(st.lists(st.sampled_from([1.0, 2.0, 2.5, 3.0, 4.5, 5.0]), min_size=n, max_size=n))
    columns = {"user": [u for u, _ in chosen], "item": [i for _, i in chosen], "rating": rating}
    if draw(st.booleans()):
        columns["timestamp"] = draw(st.lists(st.integers(0, 2 * 10**9), min_size=n, max_size=n))
    return pd.DataFrame(columns)


def write(frame: pd.DataFrame, path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "csv.gz"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=frames())
def test_a_written_table_reads_back_as_it_was(tmp_path, ending, frame):
    path = tmp_path / f"my.{ending}"
    write(frame, path)
    dataset = load_own(path, scale=(0, 5))
    table = dataset.table
    assert dataset.user_ids[table.user].tolist() == frame.user.tolist()
    assert dataset.catalog.item_ids[table.item].tolist() == frame.item.tolist()
    assert np.array_equal(table.rating, frame.rating)
    assert (table.n_users, table.n_items) == (frame.user.nunique(), frame.item.nunique())
    if "timestamp" in frame:
        assert np.array_equal(table.timestamp, frame.timestamp)
    else:
        assert table.timestamp is None
    assert dataset.user_ids.tolist() == sorted(set(frame.user))
