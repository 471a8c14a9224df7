"""Windows in time against a plain loop: each rating after a user's first ones, once, those before it as support."""

import dataclasses

import numpy as np
import pytest

from fewrec.episodes import windows
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.errors import SuiteError
from tests.episodes.conftest import random_dataset

HISTORY, LAST = 4, 500


@pytest.fixture(scope="module")
def data():
    """A table whose rows are in no order, with many ties of time."""
    found = random_dataset(60, 80, 0.25, seed=3, times=8)
    return dataclasses.replace(found, table=found.table.select(np.random.default_rng(0).permutation(len(found.table))))


def protocol_of(**fields) -> Protocol:
    given = {"state": "user-cold", "order": "time", "k_max": HISTORY, "history": HISTORY, "last_windows": LAST}
    return Protocol(**(given | fields))


def by_hand(table):
    """Return (user, items and ratings before, item, rating) of each window, in plain Python."""
    of_user = {}
    for row in zip(*(getattr(table, n).tolist() for n in ("user", "item", "rating", "timestamp")), strict=True):
        of_user.setdefault(row[0], []).append(row[1:])
    found = []
    for user, rows in of_user.items():
        rows.sort(key=lambda row: row[2])
        for i in range(HISTORY, len(rows)):
            found.append((user, [row[:2] for row in rows[i - HISTORY : i]], *rows[i][:2]))
    return found


def windows_of(split, name, count, k_shot=HISTORY):
    episodes = EpisodeSampler.of(split, split.protocol, name).sample(0, count, n_users=1, k_shot=k_shot, n_query=1)
    support = zip(episodes.support.item.tolist(), episodes.support.rating.tolist(), strict=True)
    before = np.array(list(support)).reshape(count, k_shot, 2)
    columns = (episodes.answers.table_user, episodes.query.item, episodes.answers.rating)
    return [
        (user, [(int(i), r) for i, r in rows], item, rating)
        for user, rows, item, rating in zip(
            columns[0].tolist(), before, *(c.tolist() for c in columns[1:]), strict=True
        )
    ]


def test_every_window_is_asked_once_and_is_that_of_a_plain_loop(data):
    split = split_dataset(data, protocol_of(), 0)
    expected = by_hand(data.table)[-LAST:]
    assert windows_of(split, "validation", 50) == expected[350:400]
    assert windows_of(split, "test", 100) == expected[400:]
    shorter = [(user, before[-2:], item, rating) for user, before, item, rating in expected[400:]]
    assert windows_of(split, "test", 100, k_shot=2) == shorter


def test_without_last_windows_all_are_there(data):
    split = split_dataset(data, protocol_of(last_windows=None), 0)
    expected = by_hand(data.table)
    assert windows_of(split, "test", len(split.pools["test"].targets)) == expected[round(0.8 * len(expected)) :]


def test_meta_train_is_what_its_windows_hold_and_no_target_of_others(data):
    split = split_dataset(data, protocol_of(), 0)
    expected = by_hand(data.table)[-LAST:]
    held = {(user, item, rating) for user, before, *target in expected[:350] for item, rating in [*before, target]}
    table = split.meta_train
    found = set(zip(split.meta_users[table.user].tolist(), table.item.tolist(), table.rating.tolist(), strict=True))
    assert found == held and len(table) == len(held)
    assert not found & {(user, *target) for user, _, *target in expected[350:]}
    cut = expected[350][0]  # this user's windows begin in meta-train and go on in meta-validation
    assert cut == expected[349][0]
    pool = split.pools["validation"]
    assert split.meta_users[pool.meta_user[pool.users == cut]] == [cut] and (pool.meta_user >= 0).sum() == 1
    np.testing.assert_array_equal(split.catalog.seen, np.isin(np.arange(table.n_items), table.item))


def test_nothing_depends_on_the_seed_but_what_learners_draw(data):
    one, other = (split_dataset(data, protocol_of(), seed) for seed in (0, 1))
    assert one.sha256 == other.sha256 and windows_of(one, "test", 100) == windows_of(other, "test", 100)
    assert split_dataset(data, protocol_of(last_windows=400), 0).sha256 != one.sha256


@pytest.mark.parametrize("name", ["train", "validation"])
def test_learners_train_on_ratings_that_follow_one_another_at_any_time(data, name):
    split = split_dataset(data, protocol_of(), 0)
    source = MetaTrainSet(split, data.scale)
    draw = {"train": source.train_episodes, "validation": source.validation_episodes}[name]
    episodes = draw(0, 300, n_users=1, k_shot=3, n_query=2)
    pool, starts = split.pools[name], set()
    support, asked = episodes.support.item.reshape(-1, 3), episodes.query.item.reshape(-1, 2)
    for user, before, after in zip(episodes.answers.table_user.tolist(), support, asked, strict=True):
        place = int(np.flatnonzero(pool.users == user)[0])
        rows = slice(pool.support.offsets[place], pool.support.offsets[place + 1])
        time = dict(zip(pool.support.item[rows].tolist(), pool.support.timestamp[rows].tolist(), strict=True))
        times = [time[i] for i in [*before.tolist(), *after.tolist()]]
        assert times == sorted(times)
        earlier = sum(t < times[0] for t in time.values())
        assert earlier + 5 <= len(time)
        starts.add(earlier)
    assert len(starts) > 5
    if name == "validation":  # the user that is cut in two begins with ratings of meta-train
        known = pool.users[pool.meta_user >= 0]
        assert not np.isin(known, episodes.answers.table_user).any()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"order": "random"}, 'needs order = "time"'),
        ({"state": "warm"}, 'needs state = "user-cold"'),
        ({"online": True}, "needs online = false"),
        ({"support_noise": 0.5}, "needs support_noise = 0.0"),
        ({"history": 3}, "history = 3: k_max and K can't be above it"),
        ({"history": None}, "last_windows needs history"),
    ],
)
def test_what_does_not_go_with_windows_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        protocol_of(**fields)


def test_impossible_requests_say_what_is_possible(data, monkeypatch):
    with pytest.raises(SuiteError, match="last_windows = 100000, but with history = 4 there are"):
        split_dataset(data, protocol_of(last_windows=100_000), 0)
    split = split_dataset(data, protocol_of(), 0)
    sampler = EpisodeSampler.of(split, split.protocol)
    with pytest.raises(SuiteError, match="101 episodes, but there are 100 windows of meta-test"):
        sampler.sample(0, 101, n_users=1, k_shot=4, n_query=1)
    with pytest.raises(SuiteError, match="a window has N = 1, Q = 1"):
        sampler.sample(0, 1, n_users=2, k_shot=4, n_query=1)
    monkeypatch.setattr(windows, "MOST_USERS", 3)
    with pytest.raises(SuiteError, match="of at most 3: give last_windows"):
        split_dataset(data, protocol_of(), 0)
    untimed = dataclasses.replace(data, table=dataclasses.replace(data.table, timestamp=None))
    with pytest.raises(SuiteError, match="has no timestamps"):
        split_dataset(untimed, protocol_of(), 0)


def test_likes_have_to_be_made_before_the_split(data):
    with pytest.raises(SuiteError, match="likes_above is for the data set to be made of likes"):
        split_dataset(data, protocol_of(likes_above=3), 0)


def test_options_of_windows_change_no_hash_of_cells_without_them():
    plain = Protocol(state="user-cold", order="time", k_max=3).canonical()
    assert not {"likes_above", "history", "last_windows"} & set(plain)
    told = protocol_of(likes_above=3).canonical()
    assert (told["likes_above"], told["history"], told["last_windows"]) == (3, HISTORY, LAST)
    assert Protocol(**told).canonical() == told
