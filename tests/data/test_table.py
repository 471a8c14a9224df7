"""The rating table and the catalog: read-only, hashed by content, light to import."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fewrec.data.table import Catalog, RatingTable


def table(**changes) -> RatingTable:
    columns = {"user": [0, 1], "item": [1, 0], "rating": [3, 4], "timestamp": [5, 6]} | changes
    arrays = {name: None if column is None else np.array(column) for name, column in columns.items()}
    return RatingTable(**arrays, n_users=2, n_items=2)


def test_a_table_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        table().rating[0] = 1


@pytest.mark.parametrize("column", ["user", "item", "rating", "timestamp"])
def test_the_hash_depends_on_every_column(column):
    changed = {"user": [1, 0], "item": [0, 1], "rating": [3, 4.5], "timestamp": None}[column]
    assert table().sha256 == table().sha256 != table(**{column: changed}).sha256


def test_a_text_without_year_or_genres_leaves_their_places_out():
    columns = ["title", "year", "genres", "description"]
    rows = [["Up", "2009", "Comedy", "A house."], ["Up", "", "Comedy", ""], ["Up", "", "", ""], ["", "", "", ""]]
    catalog = Catalog(np.arange(4), pd.DataFrame(rows, columns=columns))
    assert catalog.texts() == ["Up (2009). Comedy. A house.", "Up Comedy.", "Up", ""]


def test_the_hash_of_the_texts_depends_on_a_template_of_ones_own_alone():
    text = pd.DataFrame([["Up", "2009", "Comedy", ""]], columns=["title", "year", "genres", "description"])
    usual, own = Catalog(np.arange(1), text), Catalog(np.arange(1), text, template="Film: {title} {genres}")
    assert own.texts() == ["Film: Up Comedy"] != usual.texts()
    # As it was before there were other templates: records of results have it.
    lines = "\x1f".join(["Up", "2009", "Comedy", ""])
    assert usual.text_sha256 == hashlib.sha256(lines.encode()).hexdigest() != own.text_sha256


def test_reading_tables_imports_no_torch():
    program = (
        "import sys, fewrec.data.load, fewrec.data.own, fewrec.data.weights, fewrec.data.synthetic; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
