"""Parsed tables kept beside their files: the same data set without its text, never one of another card or reader."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from fewrec.data import parsed as module
from fewrec.data.cards import load_card
from fewrec.data.load import load_dataset
from fewrec.data.parsed import parsed
from fewrec.data.table import Catalog, Dataset, RatingTable, Scale

FILES = {"ratings": "a" * 64}


def made(text_ids: bool, rating_step: float = 0.5, time: bool = True) -> Dataset:
    """Return a data set with every part that can be there; 0.1 is no float32."""
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((30, 20)) < 0.5)
    rating = 1 + rating_step * rng.integers(0, 8, len(user))
    table = RatingTable(user, item, rating, 1_700_000_000 + user if time else None, 30, 20)
    ids = np.array([f"é{i}" for i in range(20)], object) if text_ids else np.arange(20) * 7
    text = pd.DataFrame({n: [f"{n} {i}" if i % 3 else "" for i in range(20)]
                         for n in ("title", "year", "genres", "description")}, dtype=object)  # fmt: skip
    features = pd.DataFrame({"age": np.arange(30), "job": [f"job {i % 4}" for i in range(30)]}).astype({"job": object})
    card = load_card("ml-1m")
    return Dataset(
        card.name, table, Catalog(ids, text, template=card.template), card.scale.scale(), np.arange(30) * 3,
        user_features=features, user_set=(np.arange(30) % 3).astype(np.int8), licence=card.licence,
        citation=card.citation, homepage=card.homepage, notes=("3 rows were left out",),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def keep_small_ones(monkeypatch):
    monkeypatch.setattr(module, "LEAST_RATINGS", 1)


def never():
    raise AssertionError("the text was read again")


@pytest.mark.parametrize("text_ids, step, time", [(True, 0.5, True), (False, 0.1, False)])
def test_what_is_kept_is_the_data_set_to_the_last_bit(tmp_path, text_ids, step, time):
    card, first = load_card("ml-1m"), made(text_ids, step, time)
    assert parsed(card, tmp_path, FILES, lambda: first) is first
    again = parsed(card, tmp_path, FILES, never)
    assert again.table.sha256 == first.table.sha256 and again.table.user.dtype == np.int64
    assert again.catalog.text_sha256 == first.catalog.text_sha256
    assert again.features_sha256 == first.features_sha256
    assert again.catalog.item_ids.tolist() == first.catalog.item_ids.tolist()
    assert again.user_ids.tolist() == first.user_ids.tolist() and again.user_set.tolist() == first.user_set.tolist()
    for name in ("name", "scale", "kind", "licence", "citation", "homepage", "notes"):
        assert getattr(again, name) == getattr(first, name)
    assert isinstance(first.scale, Scale) and dataclasses.is_dataclass(again)


def test_other_files_another_card_and_other_readers_find_nothing(tmp_path, monkeypatch):
    card, data, calls = load_card("ml-1m"), made(True), []

    def read():
        calls.append(1)
        return data

    parsed(card, tmp_path, FILES, read)
    parsed(card, tmp_path, {"ratings": "b" * 64}, read)
    parsed(card.model_copy(update={"duplicates": "last"}), tmp_path, {"ratings": "b" * 64}, read)
    monkeypatch.setattr(module, "_sources", lambda: "another reader")
    parsed(card, tmp_path, FILES, read)
    assert len(calls) == 4
    assert len(list(tmp_path.glob("parsed-*"))) == 1  # what nobody looks at any more is removed


@pytest.mark.parametrize(
    "file", ["user.npy", "rating.npy", "timestamp.npy", "facts.json", "users.parquet", "text.parquet"]
)
def test_a_damaged_copy_is_read_as_if_it_were_not_there(tmp_path, file):
    card, data = load_card("ml-1m"), made(True)
    parsed(card, tmp_path, FILES, lambda: data)
    (folder,) = tmp_path.glob("parsed-*")
    (folder / file).write_bytes(b"PAR1 no more")
    assert parsed(card, tmp_path, FILES, lambda: data) is data
    assert parsed(card, tmp_path, FILES, never).table.sha256 == data.table.sha256


def test_ratings_that_were_changed_there_are_not_taken(tmp_path):
    card, data = load_card("ml-1m"), made(True)
    parsed(card, tmp_path, FILES, lambda: data)
    (folder,) = tmp_path.glob("parsed-*")
    facts = json.loads((folder / "facts.json").read_text())
    (folder / "facts.json").write_text(json.dumps(facts | {"sha256": "0" * 64}))
    assert parsed(card, tmp_path, FILES, lambda: data) is data


@pytest.mark.parametrize(
    "file",
    ["user.npy", "item.npy", "rating.npy", "timestamp.npy", "users.parquet", "items.parquet", "text.parquet",
     "features.parquet", "facts.json"],
)  # fmt: skip
def test_one_bit_is_noticed_and_so_is_an_end_that_is_missing(tmp_path, file):
    card, data, lines = load_card("ml-1m"), made(True), []
    parsed(card, tmp_path, FILES, lambda: data)
    (folder,) = tmp_path.glob("parsed-*")
    whole = (folder / file).read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    for bad in (flipped, whole[:-8]):
        (folder / file).write_bytes(bad)
        assert parsed(card, tmp_path, FILES, lambda: data, lines.append) is data
    assert len(lines) == 2 and all("damaged" in line and "read again" in line for line in lines)
    assert parsed(card, tmp_path, FILES, never).table.sha256 == data.table.sha256


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    (tmp_path / ".parsed-killed").mkdir()
    parsed(load_card("ml-1m"), tmp_path, FILES, lambda: made(True))
    assert [path.name[:7] for path in tmp_path.iterdir()] == ["parsed-"]


def test_a_small_data_set_is_not_kept_and_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    card, data = load_card("ml-1m"), made(True)
    (tmp_path / "file").write_text("")
    assert parsed(card, tmp_path / "file", FILES, lambda: data) is data
    monkeypatch.setattr(module, "LEAST_RATINGS", 10**6)
    parsed(card, tmp_path, FILES, lambda: data)
    assert not list(tmp_path.glob("parsed-*"))


def test_a_card_is_loaded_through_its_copy_which_lies_beside_its_files(ml_100k, monkeypatch):
    asked = []

    def spy(card, home, files, read, notify):
        asked.append((card.name, home, set(files)))
        return dataclasses.replace(read(), notes=("from the copy",))

    monkeypatch.setattr("fewrec.data.load.parsed", spy)
    found = load_dataset("ml-100k")
    ((name, home, files),) = asked
    assert name == "ml-100k" and home.name == "ml-100k" and files
    assert found.notes == ("from the copy",) and found.sources == ml_100k.sources
