"""A suite that is meta-trained on another data set: one more table, whose rows are the same learners."""

import dataclasses

import numpy as np
import pytest

import fewrec
from fewrec.data.synthetic import make_synthetic
from fewrec.errors import SuiteError
from tests.runner.conftest import TINY


@pytest.fixture(scope="module")
def data():
    films = make_synthetic(n_users=60, n_items=50, ratings_per_user=20, seed=1)
    books = make_synthetic(n_users=50, n_items=40, ratings_per_user=20, seed=2)
    return films, dataclasses.replace(books, name="books")


def test_what_other_data_teach_is_a_table_of_its_own(data, tmp_path):
    films, books = data
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    result = fewrec.run(
        path, data=films, meta_datasets=[films, books], learners=["user-mean", "bias", "mf-foldin"], shots=[3],
        seeds=[0], out=tmp_path / "out", progress=False,
    )  # fmt: skip
    table = result.leaderboard
    assert set(table["protocol"]) == {"user-cold", "user-cold, from books"}
    assert (table["status"] == "ok").all()
    across = table[table["protocol"] == "user-cold, from books"].set_index("label")
    assert "one constant for each user" in across.loc["mf-foldin", "warning"]  # nothing is known of any item
    cells = result.cells.set_index(["meta_dataset", "label"], drop=False)
    assert {name for name in cells["meta_dataset"] if name} == {"books"}
    hashes = result.cells.groupby(result.cells["meta_dataset"].fillna(""))["split_hash"].first()
    assert hashes[""] != hashes["books"]
    bias = result.scores[result.scores["cell"].isin(result.cells.loc[result.cells["label"] == "bias", "cell"])]
    assert np.isfinite(bias["se"]).all()
    assert result.manifest["datasets"].keys() >= {films.name, "books"}


def test_states_with_known_users_are_refused_before_anything_runs(data, tmp_path):
    films, books = data
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    with pytest.raises(SuiteError, match="has known users"):
        fewrec.run(path, data=films, meta_datasets=[books], states=["warm"], out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
