"""CLOVER's files: pairs of JSON a meta set, on hand-written ones and on the real ones where they are."""

import json

import numpy as np
import pytest

from fewrec.checksums import sha256_of
from fewrec.data.cards import load_card
from fewrec.data.load import read_files
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.errors import DataError

FILES = {
    "user_warm_state": {"7": [3, 0], "2": [1]},
    "user_warm_state_y": {"7": [5, 1], "2": [4]},
    "user_cold_state_valid": {"10": [2]},
    "user_cold_state_valid_y": {"10": [3]},
    "user_cold_state_test": {"1": [0, 5]},
    "user_cold_state_test_y": {"1": [2, 2]},
    "user_profile": {"1": [1, 0, 4], "2": [2, 1, 4], "7": [7, 1, 0], "10": [10, 0, 0], "11": [11, 0, 0]},
}


def write(folder, **changed):
    for name, content in {**FILES, **changed}.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def read(folder):
    return read_files(load_card("clover-ml-100k"), folder, "clover", "")


def test_each_user_has_the_ratings_and_the_meta_set_of_the_files(tmp_path):
    data = read(write(tmp_path))
    assert data.user_ids.tolist() == [1, 2, 7, 10] and data.user_set.tolist() == [2, 0, 0, 1]
    table = data.table
    rows = {
        (int(data.user_ids[u]), int(data.catalog.item_ids[i])): r
        for u, i, r in zip(table.user, table.item, table.rating, strict=True)
    }
    assert rows == {(7, 3): 5, (7, 0): 1, (2, 1): 4, (10, 2): 3, (1, 0): 2, (1, 5): 2}
    assert data.user_features.to_numpy().tolist() == [["0", "4"], ["1", "4"], ["1", "0"], ["0", "0"]]
    split = split_dataset(data, Protocol(state="user-cold", k_max=1, user_split="given"), 0)
    assert data.user_ids[split.pools["test"].users].tolist() == [1]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"user_warm_state_y": {"7": [5], "2": [4]}}, "user_warm_state.json: user 7 has another number of ratings"),
        ({"user_warm_state_y": {"7": [5, 1]}}, "user_warm_state.json: user 2 has another number"),
        (
            {"user_cold_state_test": {"7": [9]}, "user_cold_state_test_y": {"7": [1]}},
            "user_cold_state_test.json: user 7 is in user_warm_state.json too",
        ),
        ({"user_profile": {"1": [1, 0]}}, "user_profile.json: user 7 is not in it"),
        ({"user_profile": "[1, 2]"}, "user_profile.json: not a JSON object"),
        ({"user_profile": "{"}, "user_profile.json: not JSON"),
        ({"user_warm_state_y": {"7": [5, 9], "2": [4]}}, "user_warm_state.json, user 7"),
        ({"user_warm_state": {"7": [3, 3], "2": [1]}}, "user_warm_state.json, user 7"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_that_names_file_and_user(tmp_path, changed, message):
    with pytest.raises(DataError) as found:
        read(write(tmp_path, **changed))
    assert message in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    "name, sizes", [("clover-ml-100k", [408, 58, 117]), ("clover-book-crossing", [2441, 349, 698])]
)
def test_the_real_files_hold_what_the_card_says(test_data, name, sizes):
    card = load_card(name)
    (source,) = card.sources
    for file, expected in source.files.items():
        assert sha256_of(test_data / name / file) == expected
    data = read_files(card, test_data / name, "clover", "")
    assert (len(data.table), data.table.n_users, data.table.n_items) == (
        card.expected.ratings, card.expected.users, card.expected.items,
    )  # fmt: skip
    assert np.bincount(data.user_set).tolist() == sizes
    assert set(data.user_features.columns) == set(card.columns.users)
