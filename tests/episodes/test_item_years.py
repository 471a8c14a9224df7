"""Items by year and limits on the ratings that episodes are drawn from, against sets of pairs made by loops."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import STATES, Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.errors import SuiteError
from tests.episodes.conftest import random_dataset

SHARES = (0.6, 0.2, 0.2)
YEARS = (1996, 1997)
LIMITS = {"user-cold": (7, 32), "item-cold": (7, 20), "both-cold": (7, 20), "warm": (12, 15)}


def with_years(years):
    data = random_dataset(80, 120, 0.4, seed=3)
    text = pd.DataFrame({"title": data.catalog.item_ids, "year": years, "genres": "", "description": ""})
    return dataclasses.replace(data, catalog=dataclasses.replace(data.catalog, text=text))


@pytest.fixture(scope="module")
def data():
    years = np.random.default_rng(5).integers(1994, 2001, 120).astype(str)
    years[:3] = ["", "unknown", "1997.0"]
    return with_years(years)


def protocol(state, **fields):
    unseen = {"support_items": "unseen"} if state in ("item-cold", "both-cold") else {}
    options = {"k_max": 2, "user_shares": SHARES, "item_years": YEARS, **unseen, **fields}
    return Protocol(state=state, **options)


def kind_of_items(data):
    """Return old, middle or new for each item."""
    year = [float(y) if y.replace(".", "").isdigit() else 0 for y in data.catalog.text["year"]]
    return np.array(["old" if y <= YEARS[0] else "middle" if y <= YEARS[1] else "new" for y in year])


def pairs_of(users, rows):
    return list(zip(np.repeat(users, rows.counts).tolist(), rows.item.tolist(), strict=True))


def expected(data, split, state):
    """Return meta-train and the test users' pairs, as sets of (user, item), by what the options say."""
    kind, test = kind_of_items(data), set(split.pools["test"].users.tolist())
    share = {user: 0 for user in split.pools["train"].users.tolist()}
    rows = [(u, i) for u, i in zip(data.table.user.tolist(), data.table.item.tolist(), strict=True)]
    old = {"old"} if state in ("item-cold", "both-cold") else {"old", "middle"}
    if state in ("user-cold", "both-cold"):
        train = {(u, i) for u, i in rows if u in share and kind[i] in old}
        asked = {"new"} if state == "both-cold" else old
    else:  # item-cold: every old rating of every user
        train = {(u, i) for u, i in rows if kind[i] in old}
        asked = {"new"}
    seen = {i for _, i in train}
    asked_pairs = {(u, i) for u, i in rows if u in test and kind[i] in asked and ("new" in asked or i in seen)}
    return train, asked_pairs


def meta_train_pairs(split):
    return set(zip(split.meta_users[split.meta_train.user].tolist(), split.meta_train.item.tolist(), strict=True))


@pytest.mark.parametrize("state", ["user-cold", "item-cold", "both-cold"])
def test_meta_train_and_test_ratings_are_those_of_the_years(data, state):
    split = split_dataset(data, protocol(state), 0)
    train, asked = expected(data, split, state)
    pool = split.pools["test"]
    assert pool.support is pool.query
    assert meta_train_pairs(split) == train
    assert set(pairs_of(pool.users, pool.support)) == asked
    known = state == "item-cold"
    assert ((pool.meta_user >= 0) == known).all()
    if known:
        np.testing.assert_array_equal(split.meta_users[pool.meta_user], pool.users)


@pytest.mark.parametrize("state", ["item-cold", "both-cold"])
def test_unseen_items_of_validation_are_those_between_the_years(data, state):
    split, kind = split_dataset(data, protocol(state), 0), kind_of_items(data)
    assert set(kind[split.pools["validation"].query.item]) == {"middle"}
    assert set(kind[split.pools["test"].query.item]) == {"new"}
    assert set(kind[split.catalog.seen]) == {"old"}


def test_warm_holds_out_half_of_each_test_users_ratings_of_old_items(data):
    split, kind = split_dataset(data, protocol("warm"), 0), kind_of_items(data)
    pool = split.pools["test"]
    asked = set(pairs_of(pool.users, pool.support))
    train = meta_train_pairs(split)
    rated = {
        (u, i) for u, i in zip(data.table.user.tolist(), data.table.item.tolist(), strict=True) if kind[i] != "new"
    }
    assert not asked & train and {pair for pair in rated if pair[1] in set(split.meta_train.item)} <= asked | train | {
        pair for pair in rated if pair[0] in set(split.pools["validation"].users.tolist())
    }
    assert not any(kind[i] == "new" for _, i in asked | train)


@pytest.mark.parametrize("state", STATES)
def test_only_users_within_the_limits_have_episodes_and_only_they_are_in_meta_train(data, state):
    free = split_dataset(data, protocol(state), 0)
    split = split_dataset(data, protocol(state, episode_ratings=LIMITS[state]), 0)
    may_ask, (low, high) = {}, LIMITS[state]
    for name in ("train", "validation", "test"):
        pool = free.pools[name]
        counts = pool.support.counts
        may_ask[name] = set(pool.users[(counts >= low) & (counts <= high)].tolist())
    of_train = may_ask["train"] if state in ("user-cold", "both-cold") else set().union(*may_ask.values())
    assert set(split.meta_users.tolist()) == of_train
    assert meta_train_pairs(split) == {pair for pair in meta_train_pairs(free) if pair[0] in of_train}
    for name in ("validation", "test"):
        pool, sampler = split.pools[name], EpisodeSampler.of(split, split.protocol, name)
        who = sampler.eligible(4)
        assert set(pool.users[who.users].tolist()) == may_ask[name]  # the lowest is enough for 2 + 4
        assert who.excluded == len(pool.users) - len(who.users) > 0
    source = MetaTrainSet(split, data.scale)
    assert source.largest_n_users("train", k_shot=1, n_query=1) == len(may_ask["train"])


def test_the_rest_of_a_users_ratings_is_support_within_the_limits(data):
    split = split_dataset(data, protocol("both-cold", episode_ratings=(7, 20)), 1)
    episodes = EpisodeSampler.of(split, split.protocol).sample(0, 30, n_users=1, k_shot="rest", n_query=5)
    sizes = np.diff(episodes.support.offsets.numpy()) + 5
    assert sizes.min() >= 7 and sizes.max() <= 20 and len(set(sizes.tolist())) > 1
    new = kind_of_items(data) == "new"
    assert new[episodes.support.item.numpy()].all() and new[episodes.query.item.numpy()].all()


def test_item_shots_in_item_cold_are_not_of_the_users_who_are_asked(data):
    split = split_dataset(data, protocol("item-cold", item_shots=2), 0)
    raters = set(split.meta_users[split.pools["test"].item_shots.meta_user].tolist())
    assert raters and not raters & set(split.pools["test"].users.tolist())


@pytest.mark.parametrize(
    "years, message",
    [
        (None, "small has no item texts, so no years: item_years is impossible"),
        ([""] * 120, "small: no item has a year"),
        (["1985"] * 120, r"small has no items of years after 1997 \(item_years\); they are of 1985 to 1985"),
        (["1999"] * 120, r"small has no items of years up to 1996 \(item_years\); they are of 1999 to 1999"),
    ],
)
def test_a_data_set_without_the_years_is_refused(years, message):
    data = random_dataset(80, 120, 0.4, seed=3) if years is None else with_years(years)
    with pytest.raises(SuiteError, match=message):
        split_dataset(data, protocol("both-cold"), 0)


def test_limits_that_nobody_is_within_are_refused(data):
    with pytest.raises(SuiteError, match="no meta-train ratings; check .* episode_ratings"):
        split_dataset(data, protocol("user-cold", episode_ratings=(500, 600)), 0)
    split = split_dataset(data, protocol("both-cold", episode_ratings=(5, 30)), 0)
    with pytest.raises(SuiteError, match="within episode_ratings; possible: N at most"):
        EpisodeSampler.of(split, split.protocol).sample(0, 1, n_users=60, k_shot=1, n_query=4)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"item_years": (1998, 1997)}, "the last year of seen items and of validation's, not 1998 and 1997"),
        ({"item_years": YEARS, "item_shares": (0.5, 0.2, 0.3)}, "item_years takes the place of item_shares"),
        ({"episode_ratings": (9, 3)}, "the lowest and the highest number of ratings, not 9 and 3"),
    ],
)
def test_options_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Protocol(state="both-cold", k_max=1, **fields)


def test_the_options_are_part_of_a_cell_only_where_they_are_given():
    for state in STATES:
        plain = Protocol(state=state, k_max=5)
        assert not {"item_years", "episode_ratings"} & set(plain.canonical())
        given = Protocol(state=state, k_max=5, item_years=YEARS, episode_ratings=(13, 100))
        fields = given.canonical()
        assert fields["item_years"] == [1996, 1997] and fields["episode_ratings"] == [13, 100]
        assert "item_shares" not in fields and Protocol(**fields) == given
        assert given.of_meta_fit() == fields
