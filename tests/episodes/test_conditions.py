"""Conditions of episodes against their definitions: who is drawn, which query, whose ratings are replaced."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewrec.episodes import conditions
from fewrec.episodes.protocol import STATES, Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.errors import SuiteError
from tests.episodes.conftest import random_dataset
from tests.episodes.test_sampler import by_user

DATASET = random_dataset(80, 90, 0.5, seed=2)


def sampler_of(state="user-cold", seed=0, dataset=DATASET, k_max=4, **options):
    protocol = Protocol(state=state, k_max=k_max, **options)
    split = split_dataset(dataset, protocol, seed)
    return EpisodeSampler.of(split, protocol), split


def popularity(split):
    """Count each item's ratings by users of the meta-train share, from the data set itself."""
    train = set(split.pools["train"].users.tolist())
    counts = np.zeros(DATASET.table.n_items, int)
    for user, item in zip(DATASET.table.user, DATASET.table.item, strict=True):
        counts[item] += user in train
    return counts


@settings(max_examples=25, deadline=None)
@given(state=st.sampled_from(STATES), seed=st.integers(0, 10**6), n_strata=st.integers(2, 3), first=st.integers(0, 99))
def test_a_stratified_query_has_as_many_items_of_every_stratum(state, seed, n_strata, first):
    sampler, split = sampler_of(state, seed, query_strata=n_strata, k_max=2)
    n_query = n_strata * (1 if state in ("item-cold", "both-cold") else 2)
    who = sampler.eligible(n_query).users
    if not len(who):
        return
    episodes = sampler.sample(first, 3, n_users=1, k_shot=2, n_query=n_query)
    support, query = by_user(episodes, "support"), by_user(episodes, "query")
    for key, items in query.items():
        assert len(set(items)) == n_query and len(set(support[key])) == 2 and not set(items) & set(support[key])
        found = np.bincount(sampler.strata[items], minlength=n_strata)
        assert (found == n_query // n_strata).all()
    counts = popularity(split)
    items = np.unique(split.pools["test"].query.item)
    for low in range(n_strata - 1):
        below, above = items[sampler.strata[items] == low], items[sampler.strata[items] > low]
        assert counts[below].max(initial=0) <= counts[above].min(initial=10**9)


def test_strata_hold_equal_shares_of_the_ratings():
    sampler, split = sampler_of(query_strata=3)
    mass = np.bincount(sampler.strata[split.pools["test"].query.item], minlength=3)
    largest_item = np.bincount(split.pools["test"].query.item).max()
    assert np.abs(mass - mass.sum() / 3).max() <= largest_item


def test_with_strata_supports_are_nested_in_k_and_the_query_is_the_same_for_every_k():
    sampler, _ = sampler_of(query_strata=2)
    drawn = {k: sampler.sample(5, 4, n_users=3, k_shot=k, n_query=4) for k in (1, 2, 4)}
    first = by_user(drawn[4], "support")
    for k in (1, 2):
        assert {key: items[:k] for key, items in first.items()} == by_user(drawn[k], "support")
        assert drawn[k].query.item.tolist() == drawn[4].query.item.tolist()
    rest = by_user(sampler.sample(5, 4, n_users=3, k_shot="rest", n_query=4), "support")
    pool, query = sampler.pool, by_user(drawn[4], "query")
    who = drawn[4].answers.table_user.reshape(4, 3).numpy()
    for (e, u), items in rest.items():
        at = int(np.flatnonzero(pool.users == who[e, u])[0])
        own = pool.support.item[pool.support.offsets[at] : pool.support.offsets[at + 1]].tolist()
        assert sorted(items) == sorted(set(own) - set(query[e, u]))


def test_every_rating_of_a_stratum_is_asked_for_equally_often():
    sampler, _ = sampler_of(query_strata=2)
    episodes = sampler.sample(0, 3000, n_users=1, k_shot=0, n_query=2)
    who, counts = episodes.answers.table_user.numpy(), sampler.pool.query.counts
    user = np.bincount(who).argmax()
    at = int(np.flatnonzero(sampler.pool.users == user)[0])
    items = sampler.pool.query.item[sampler.pool.query.offsets[at] : sampler.pool.query.offsets[at] + counts[at]]
    asked = episodes.query.item.numpy().reshape(-1, 2)[who == user]
    for stratum in (0, 1):
        own = items[sampler.strata[items] == stratum]
        times = np.array([(asked[:, stratum] == item).sum() for item in own])
        expected = len(asked) / len(own)
        assert (np.abs(times - expected) < 5 * np.sqrt(expected)).all() and times.sum() == len(asked)


def test_a_query_that_strata_do_not_divide_is_refused():
    sampler, _ = sampler_of(query_strata=3)
    with pytest.raises(SuiteError, match="Q = 4 can't be divided evenly over query_strata = 3; give a multiple of 3"):
        sampler.sample(0, 1, n_users=1, k_shot=1, n_query=4)


@pytest.mark.parametrize("state", STATES)
def test_light_and_heavy_users_are_the_two_halves_of_the_eligible(state):
    n_query = 2
    everybody, _ = sampler_of(state)
    who = {which: sampler_of(state, user_activity=which)[0].eligible(n_query) for which in ("light", "heavy")}
    pool = everybody.pool
    counts = pool.support.counts + (pool.query.counts if pool.query is not pool.support else 0)
    light, heavy = (set(who[which].users.tolist()) for which in ("light", "heavy"))
    assert light | heavy == set(everybody.eligible(n_query).users.tolist()) and not light & heavy
    assert 0 <= len(light) - len(heavy) <= 1
    assert max(counts[list(light)]) <= min(counts[list(heavy)])
    assert who["light"].excluded == len(pool.users) - len(light)


def test_too_few_users_under_a_condition_say_so():
    sampler, _ = sampler_of(user_activity="heavy")
    with pytest.raises(SuiteError, match=r'user_activity = "heavy"; possible: N at most 8'):
        sampler.sample(0, 1, n_users=9, k_shot=1, n_query=2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_support_ratings_that_noise_replaces(share):
    plain, _ = sampler_of()
    noisy, _ = sampler_of(support_noise=share)
    shape = {"n_users": 5, "k_shot": 4, "n_query": 2}
    before, after = plain.sample(0, 400, **shape), noisy.sample(0, 400, **shape)
    assert before.support.item.tolist() == after.support.item.tolist()
    assert before.answers.rating.tolist() == after.answers.rating.tolist()
    changed = (before.support.rating != after.support.rating).double().mean().item()
    of_all = np.bincount(plain.pool.support.rating.astype(int), minlength=6) / len(plain.pool.support.rating)
    differ = 1 - (of_all**2).sum()  # a rating that is replaced may meet its own value
    n = len(before.support.rating)
    assert abs(changed - share * differ) < 4 * np.sqrt(0.25 / n) if share else changed == 0
    if share == 1:
        drawn = np.bincount(after.support.rating.long().numpy(), minlength=6) / n
        assert np.abs(drawn - of_all).max() < 4 * np.sqrt(0.25 / n)


def test_noise_is_the_same_whatever_else_is_in_the_support_and_new_in_another_episode():
    sampler, _ = sampler_of(support_noise=0.5)
    one, four = (sampler.sample(3, 5, n_users=2, k_shot=k, n_query=2) for k in (1, 4))
    assert one.support.rating.tolist() == four.support.rating[::4].tolist()
    users = np.full(2000, 0)
    stream = np.arange(2000, dtype=np.uint64) * np.uint64(977)
    ratings = conditions.with_noise(sampler.pool.support, users, stream, 1.0)
    assert len(np.unique(ratings)) == 5


def test_users_outside_the_limits_are_in_no_meta_set():
    counts = np.bincount(DATASET.table.user)
    low, high = np.quantile(counts, [0.25, 0.75]).astype(int)
    _, split = sampler_of(user_ratings=(int(low), int(high)))
    users = np.concatenate([split.pools[name].users for name in ("train", "validation", "test")])
    assert sorted(users) == np.flatnonzero((counts >= low) & (counts <= high)).tolist()
    with pytest.raises(SuiteError, match=r"no user has 500 to 600 ratings \(user_ratings\); users have"):
        sampler_of(user_ratings=(500, 600))


def test_conditions_at_their_defaults_are_no_part_of_a_cell():
    plain = Protocol(state="user-cold", k_max=5)
    assert not {"support_noise", "query_strata", "user_activity", "user_ratings"} & set(plain.canonical())
    noisy = plain.model_copy(update={"support_noise": 0.2})
    assert noisy.canonical() == plain.canonical() | {"support_noise": 0.2}
    assert noisy.of_meta_fit() == plain.of_meta_fit()
    limited = Protocol(state="user-cold", k_max=5, user_ratings=(13, 100))
    assert limited.of_meta_fit() != plain.of_meta_fit() and limited.canonical()["user_ratings"] == [13, 100]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"user_ratings": (9, 3)}, "the lowest and the highest number of ratings, not 9 and 3"),
        ({"query_strata": 2, "order": "time"}, "query_strata needs order"),
        ({"support_noise": 1.5}, "less than or equal to 1"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol(state="user-cold", k_max=1, **options)


def test_a_split_that_the_data_set_brings_is_taken_as_it_is():
    given = np.random.default_rng(0).integers(0, 3, DATASET.table.n_users).astype(np.int8)
    data = dataclasses.replace(DATASET, user_set=given)
    protocol = Protocol(state="user-cold", k_max=2, user_split="given")
    for seed in (0, 1):
        split = split_dataset(data, protocol, seed)
        for which, name in enumerate(("train", "validation", "test")):
            assert split.pools[name].users.tolist() == np.flatnonzero(given == which).tolist()
    with pytest.raises(SuiteError, match="small brings no split of its users"):
        split_dataset(DATASET, protocol, 0)
    with pytest.raises(SuiteError, match="has no meta-test users"):
        split_dataset(dataclasses.replace(DATASET, user_set=np.zeros_like(given)), protocol, 0)
