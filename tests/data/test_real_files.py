"""Readers on real files, with the counts that their makers publish; skipped where the files are not."""

from __future__ import annotations

import gzip
import shutil

import pandas as pd
import pytest

from fewrec.checksums import sha256_of
from fewrec.data.cards import load_card
from fewrec.data.load import _check_size, read_files


def joined(frame: pd.DataFrame, separator: str) -> str:
    """Return the lines of a file whose columns are those of ``frame``, all of them text."""
    columns = frame.to_numpy(object).T.tolist()
    return "".join(separator.join(row) + "\n" for row in zip(*columns, strict=True))


def test_movielens_1m_has_the_published_counts(test_data, tmp_path):
    card = load_card("ml-1m")
    (source,) = card.sources
    for name in ("movies.dat", "users.dat"):
        shutil.copy(test_data / "ml-1m" / name, tmp_path)
        assert sha256_of(tmp_path / name) == source.files[name]
    frame = pd.read_csv(test_data / "ml-1m" / "ratings.csv.gz", dtype=str, keep_default_na=False)
    frame["timestamp"] = frame["timestamp"].replace("", "978300760")  # not known there for half of the users
    (tmp_path / "ratings.dat").write_text(joined(frame, "::"))
    data = read_files(card, tmp_path, "movielens-dat", "")
    _check_size(card, data)
    assert (len(data.table), data.table.n_users, data.table.n_items) == (1_000_209, 6_040, 3_706)
    stars = pd.Series(data.table.rating).value_counts().sort_index().tolist()
    assert stars == [56_174, 107_557, 261_197, 348_971, 226_310]
    assert (data.catalog.text[["title", "year", "genres"]] != "").all(axis=None)
    assert "Misérables, Les" in set(data.catalog.text.title)
    assert data.user_features.gender.value_counts().to_dict() == {"M": 4_331, "F": 1_709}


@pytest.mark.parametrize(
    ("folder", "category", "counts"),
    [
        ("amazon-gift-cards", "Gift_Cards", (2_972, 458, 148)),
        ("amazon-magazines", "Magazine_Subscriptions", (2_375, 348, 157)),
    ],
)
def test_amazon_2018_has_the_published_counts(test_data, folder, category, counts):
    card = load_card("amazon-2018-gift-cards")
    data = read_files(card, test_data / folder, "amazon-2018", "")
    with gzip.open(test_data / folder / f"{category}_5.json.gz") as stream:
        n_reviews = sum(1 for _ in stream)
    repeated = next((int(note.split()[0]) for note in data.notes if "repeated" in note), 0)
    assert (len(data.table) + repeated, data.table.n_users, data.table.n_items) == counts and n_reviews == counts[0]
    texts = data.catalog.texts()
    assert sum(map(bool, texts)) >= 0.95 * len(texts)
    assert not any("<" in text or "&amp;" in text for text in texts)
    if folder == "amazon-gift-cards":
        _check_size(card, data)


def test_jester_5k_has_the_published_counts(test_data, tmp_path):
    folder = test_data / "jester5k"
    frame = pd.read_csv(folder / "ratings.csv.gz", dtype=str)
    frame["user"], frame["item"] = frame["user"].str.removeprefix("u"), frame["item"].str.removeprefix("j")
    (tmp_path / "jester_ratings.dat").write_text(joined(frame, "\t\t"))
    jokes = pd.read_csv(folder / "items.csv.gz")
    text = "".join(f"{item.removeprefix('j')}:\n<p>\n{title}\n</p>\n\n\n" for item, title in jokes.to_numpy()[:, :2])
    (tmp_path / "jester_items.dat").write_text(text, encoding="latin-1", errors="replace")
    data = read_files(load_card("jester"), tmp_path, "jester", "")
    assert (len(data.table), data.table.n_users, data.table.n_items) == (363_209, 5_000, 100)
    assert data.scale.low <= data.table.rating.min() < -9 and 9 < data.table.rating.max() <= data.scale.high
    assert (data.catalog.text.title.str.len() > 20).all()
