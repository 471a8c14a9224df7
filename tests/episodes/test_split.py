"""Splits into the four states: who and what is new, and that meta-train never holds what it must not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.protocol import STATES, Protocol
from fewrec.episodes.split import split_dataset
from fewrec.errors import SuiteError
from tests.episodes.conftest import random_dataset


def pairs(dataset, split, name):
    """Return the (table user, item) pairs that a meta set's episodes can be drawn from, support and query apart."""
    pool = split.pools[name]
    return tuple(
        set(zip(np.repeat(pool.users, rows.counts).tolist(), rows.item.tolist(), strict=True))
        for rows in (pool.support, pool.query)
    )


def meta_train_pairs(split):
    table = split.meta_train
    return set(zip(split.meta_users[table.user].tolist(), table.item.tolist(), strict=True))


@settings(max_examples=25, deadline=None)
@given(state=st.sampled_from(STATES), order=st.sampled_from(["random", "time"]), seed=st.integers(0, 10**6))
def test_no_rating_of_an_episode_is_in_meta_train_and_seen_means_in_meta_train(state, order, seed):
    dataset = random_dataset(30, 40, 0.4, seed=3)
    split = split_dataset(dataset, Protocol(state=state, order=order, k_max=2), seed)
    known = meta_train_pairs(split)
    assert known
    np.testing.assert_array_equal(np.flatnonzero(split.catalog.seen), np.unique(split.meta_train.item))
    for name in ("validation", "test"):
        support, query = pairs(dataset, split, name)
        assert not (support | query) & known
        seen = split.catalog.seen
        assert all(seen[item] for _, item in support)
        if state in ("item-cold", "both-cold"):
            assert not any(seen[item] for _, item in query)
        else:
            assert query == support


@settings(max_examples=25, deadline=None)
@given(state=st.sampled_from(STATES), order=st.sampled_from(["random", "time"]), seed=st.integers(0, 10**6),
       in_order=st.booleans())  # fmt: skip
def test_pools_and_popularity_are_those_of_a_plain_loop_over_the_table(state, order, seed, in_order):
    dataset = random_dataset(30, 40, 0.4, seed=seed % 97)
    table = dataset.table
    rows = np.lexsort((table.item, table.user)) if in_order else np.random.default_rng(seed).permutation(len(table))
    table = table.select(rows)
    split = split_dataset(dataclasses.replace(dataset, table=table), Protocol(state=state, order=order, k_max=2), seed)
    rating_of = {(u, i): r for u, i, r in zip(table.user.tolist(), table.item.tolist(), table.rating, strict=True)}
    for name in ("test", "train", "validation"):  # in any order, each made when it is asked for
        pool = split.pools[name]
        assert split.pools[name] is pool
        if name == "train" and state in ("warm", "item-cold"):
            continue  # see the next test
        for part in (pool.support, pool.query):
            user = np.repeat(pool.users, part.counts).tolist()
            found = list(zip(user, part.item.tolist(), strict=True))
            assert found == sorted(found) and [rating_of[pair] for pair in found] == part.rating.tolist()
    own = meta_train_pairs(split)
    assert [(u, i) for u, i in zip(split.meta_users[split.meta_train.user].tolist(), split.meta_train.item.tolist(),
            strict=True)] == [pair for pair in rating_of if pair in own]  # fmt: skip
    share = set(split.pools["train"].users.tolist())
    raters = [sum(item == i and user in share for user, item in rating_of) for i in range(table.n_items)]
    assert split.pools["test"].popularity.tolist() == raters


@pytest.mark.parametrize("state", ["warm", "item-cold"])
def test_meta_train_episodes_of_known_user_states_hold_a_users_own_ratings(state):
    dataset = random_dataset(30, 40, 0.4, seed=3)
    pool = split_dataset(dataset, Protocol(state=state, k_max=2), 0).pools["train"]
    assert len(pool.support.item) == pool.support.offsets[-1]
    pairs_of_table = set(zip(dataset.table.user.tolist(), dataset.table.item.tolist(), strict=True))
    users = np.repeat(pool.users, pool.support.counts).tolist()
    assert set(zip(users, pool.support.item.tolist(), strict=True)) <= pairs_of_table


@pytest.mark.parametrize("state", ["user-cold", "both-cold"])
def test_new_users_are_in_one_meta_set_only(small, state):
    split = split_dataset(small, Protocol(state=state, k_max=5), 0)
    sets = [set(split.pools[name].users.tolist()) for name in ("train", "validation", "test")]
    assert [len(users) for users in sets] == [42, 6, 12]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert set(split.meta_users.tolist()) <= sets[0]
    assert all((split.pools[name].meta_user == -1).all() for name in ("train", "validation", "test"))


@pytest.mark.parametrize("state", ["warm", "item-cold"])
def test_known_users_keep_half_of_their_seen_item_ratings_in_meta_train(small, state):
    split = split_dataset(small, Protocol(state=state, k_max=5), 0)
    pool = split.pools["test"]
    assert (pool.meta_user >= 0).all()
    np.testing.assert_array_equal(split.meta_users[pool.meta_user], pool.users)
    in_meta_train = np.bincount(split.meta_train.user, minlength=len(split.meta_users))[pool.meta_user]
    assert (np.abs(in_meta_train - pool.support.counts) <= 1).all()


def test_in_time_order_the_earlier_half_stays_in_meta_train(small):
    split = split_dataset(small, Protocol(state="warm", order="time", k_max=5), 0)
    pool = split.pools["test"]
    for index, meta_user in enumerate(pool.meta_user):
        latest = split.meta_train.timestamp[split.meta_train.user == meta_user].max()
        rows = slice(pool.support.offsets[index], pool.support.offsets[index + 1])
        assert latest <= pool.support.timestamp[rows].min()


def test_unseen_items_are_disjoint_between_validation_and_test(small):
    split = split_dataset(small, Protocol(state="both-cold", k_max=5), 0)
    items = {name: set(split.pools[name].query.item.tolist()) for name in ("validation", "test")}
    assert items["validation"] and items["test"] and not items["validation"] & items["test"]


def test_the_split_depends_on_the_seed_and_not_on_k_max(small):
    first = split_dataset(small, Protocol(state="both-cold", k_max=5), 0)
    assert first.sha256 == split_dataset(small, Protocol(state="both-cold", k_max=9), 0).sha256
    assert first.sha256 != split_dataset(small, Protocol(state="both-cold", k_max=5), 1).sha256


def test_item_shots_are_ratings_of_unseen_items_by_users_of_the_meta_train_share(small):
    split = split_dataset(small, Protocol(state="item-cold", k_max=3, item_shots=2), 0)
    shots = split.pools["test"].item_shots
    item = np.repeat(np.arange(len(split.catalog)), np.diff(shots.offsets))
    assert len(item) and not split.catalog.seen[item].any()
    raters = set(split.meta_users[shots.meta_user].tolist())
    assert raters <= set(split.pools["train"].users.tolist())


def test_time_order_without_timestamps_is_refused():
    dataset = random_dataset(20, 20, 0.5, seed=0, times=None)
    with pytest.raises(SuiteError, match="no timestamps"):
        split_dataset(dataset, Protocol(state="warm", order="time", k_max=1), 0)


def test_too_few_users_for_three_meta_sets_are_refused():
    with pytest.raises(SuiteError, match="3 users: too few"):
        split_dataset(random_dataset(3, 20, 1.0, seed=0), Protocol(state="user-cold", k_max=1), 0)


@pytest.mark.parametrize("n_users", [15, 25, 35, 45])
def test_without_a_meta_test_share_every_user_is_in_meta_train_or_validation(n_users):
    data = make_synthetic(n_users=n_users, n_items=20, ratings_per_user=10)
    split = split_dataset(data, Protocol(state="user-cold", k_max=1, user_shares=(0.9, 0.1, 0.0)), 0)
    validation, test = (split.pools[name].users for name in ("validation", "test"))
    assert len(test) == 0 and len(split.meta_users) + len(validation) == n_users
