"""Sampled negatives: never an item that the user has a row of, as many as asked or as there are, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from fewrec.data.negatives import with_negatives
from fewrec.data.own import load_own
from fewrec.data.table import Catalog, Dataset, RatingTable, Scale
from fewrec.errors import DataError

N_USERS, N_ITEMS = 60, 40


def clicks(clicked, *, timestamp=True, rating=1.0):
    """Return a data set of the clicks that a (users, items) mask says, in mixed order."""
    user, item = np.random.default_rng(1).permutation(np.argwhere(clicked)).T
    n_users, n_items = clicked.shape
    time = 1000 * np.arange(len(user)) + 5 if timestamp else None
    table = RatingTable(user, item, np.full(len(user), rating), time, n_users, n_items)
    return Dataset("log", table, Catalog(np.arange(n_items)), Scale(0, 1, 1), np.arange(n_users), kind="clicks")


@pytest.fixture
def clicked():
    rng = np.random.default_rng(0)
    mask = rng.random((N_USERS, N_ITEMS)) < rng.random((N_USERS, 1))  # users of few clicks and of nearly all
    mask[0], mask[1], mask[2] = True, False, np.arange(N_ITEMS) == 7
    return mask


@pytest.mark.parametrize("ratio", [1, 2, 30])
def test_negatives_are_distinct_items_without_a_row_and_as_many_as_asked_or_as_there_are(clicked, ratio):
    dataset = clicks(clicked)
    table, before = with_negatives(dataset, ratio).table, dataset.table
    new = slice(len(before), None)
    for name in ("user", "item", "rating", "timestamp"):
        np.testing.assert_array_equal(getattr(table, name)[: len(before)], getattr(before, name))
    assert (table.rating[new] == 0).all() and not clicked[table.user[new], table.item[new]].any()
    assert len(np.unique(table.user * N_ITEMS + table.item)) == len(table)
    own = clicked.sum(axis=1)
    np.testing.assert_array_equal(
        np.bincount(table.user[new], minlength=N_USERS), np.minimum(ratio * own, N_ITEMS - own)
    )


def test_each_click_gets_its_share_with_its_time(clicked):
    table = with_negatives(clicks(clicked), 2).table
    beside = np.bincount(table.timestamp[table.rating == 0] // 1000, minlength=clicked.sum())
    positive = table.rating == 1
    owner = table.user[positive]
    assert (owner[table.timestamp[~positive] // 1000] == table.user[~positive]).all()
    own = clicked.sum(axis=1)[owner]
    assert (beside[3 * own <= N_ITEMS] == 2).all() and beside.max() == 2
    for user in np.unique(owner[3 * own > N_ITEMS]):  # capped: spread evenly
        assert np.ptp(beside[owner == user]) <= 1
    assert with_negatives(clicks(clicked, timestamp=False), 2).table.timestamp is None


@pytest.mark.parametrize("ratio", [1, 3])  # below and above half of the other items, which are drawn in two ways
def test_every_other_item_is_equally_likely(ratio):
    n_users = 6000
    clicked = np.zeros((n_users, 9), dtype=bool)
    clicked[:, [2, 5]] = True
    table = with_negatives(clicks(clicked), ratio).table
    count = np.bincount(table.item[table.rating == 0], minlength=9)
    share = 2 * ratio / 7
    others = np.delete(count, [2, 5])
    assert count[[2, 5]].tolist() == [0, 0]
    assert (np.abs(others - n_users * share) < 4.5 * np.sqrt(n_users * share * (1 - share))).all()


def test_the_same_seed_gives_the_same_table_and_another_one_another(clicked):
    dataset = clicks(clicked)
    first, again, other = with_negatives(dataset, 2), with_negatives(dataset, 2, seed=0), with_negatives(dataset, 2, 1)
    assert first.table.sha256 == again.table.sha256 != other.table.sha256
    assert "seed 0" in first.notes[0] and "seed 1" in other.notes[0] and "2 for each click" in first.notes[0]


def test_users_with_too_few_other_items_are_counted_in_the_notes(clicked):
    own = clicked.sum(axis=1)
    capped = int((3 * own > N_ITEMS).sum())
    assert f"{capped} users have fewer than 2 other items for each click" in with_negatives(clicks(clicked), 2).notes[1]
    assert len(with_negatives(clicks(np.eye(5, 20, dtype=bool)), 2).notes) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ratio": 0}, "--negatives 0: give a whole number from 1"),
        ({"kind": "ratings"}, "log: --negatives is for clicks"),
        ({"rating": 0.0}, "log: it has 3 negatives of its own"),
        ({"full": True}, "log: every user has clicked every item"),
    ],
)
def test_what_can_not_get_negatives_is_refused(change, said):
    clicked = np.full((2, 2), True) if change.get("full") else np.eye(3, dtype=bool)
    dataset = clicks(clicked, rating=change.get("rating", 1))
    object.__setattr__(dataset, "kind", change.get("kind", "clicks"))
    with pytest.raises(DataError, match=said):
        with_negatives(dataset, change.get("ratio", 2))


def test_a_file_of_ones_is_clicks_with_negatives_and_without_them_the_option_is_named(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("user,item,click\n" + "".join(f"{u},{u + i},1\n" for u in range(8) for i in range(2)))
    with pytest.raises(DataError, match="every rating is 1: .*--negatives R"):
        load_own(file)
    dataset = load_own(file, negatives=3)
    assert dataset.kind == "clicks" and dataset.scale == Scale(0, 1, 1)
    assert np.bincount(dataset.table.rating.astype(int)).tolist() == [48, 16]
    assert "scale 0 to 1: clicks, as --negatives says" in dataset.notes and "48 sampled" in dataset.notes[-1]
    file.write_text("user,item,rating\n1,1,3\n1,2,5\n")
    with pytest.raises(DataError, match="log: --negatives is for clicks; its ratings are not all 1"):
        load_own(file, negatives=3)
