"""Cross-domain splits: what is meta-trained on is one data set, what is asked another, on one scale and one catalog."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.cross import split_across
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.errors import SuiteError
from tests.episodes.conftest import random_dataset


def with_text(dataset, word, template):
    titles = [f"{word} {i}" for i in range(len(dataset.catalog))]
    text = pd.DataFrame({"title": titles, "year": "1999", "genres": "", "description": ""}, dtype=object)
    return dataclasses.replace(dataset, catalog=Catalog(dataset.catalog.item_ids, text, template=template))


@pytest.fixture(scope="module")
def target():
    return with_text(random_dataset(50, 40, 0.5, seed=1), "film", "{title} ({year}).")


@pytest.fixture(scope="module")
def source():
    books = random_dataset(60, 30, 0.5, seed=2)
    table = dataclasses.replace(books.table, rating=books.table.rating * 2)  # 2, 4, ..., 10
    return with_text(dataclasses.replace(books, name="books", table=table, scale=Scale(0, 10, 1)), "book", "A {title}.")


@pytest.mark.parametrize("state", ["user-cold", "both-cold"])
def test_meta_train_is_the_sources_and_the_test_the_targets(target, source, state):
    protocol = Protocol(state=state, k_max=4)
    split, own = split_across(target, source, protocol, 3), split_dataset(source, protocol, 3)
    alone = split_dataset(target, protocol, 3)
    assert split.meta_train.n_items == len(split.catalog) == 40 + 30
    np.testing.assert_array_equal(split.meta_train.item, own.meta_train.item + 40)
    np.testing.assert_allclose(split.meta_train.rating, 1 + own.meta_train.rating / 10 * 4)
    np.testing.assert_array_equal(np.flatnonzero(split.catalog.seen), np.unique(own.meta_train.item) + 40)
    shape = {"n_users": 2, "k_shot": 4, "n_query": 3}
    ours = EpisodeSampler.of(split, protocol).sample(0, 5, **shape)
    theirs = EpisodeSampler.of(alone, protocol).sample(0, 5, **shape)
    for part in ("support", "query"):
        assert getattr(ours, part).item.tolist() == getattr(theirs, part).item.tolist()
    assert ours.answers.rating.tolist() == theirs.answers.rating.tolist()
    assert not split.catalog.seen[ours.support.item.numpy()].any()
    validation = MetaTrainSet(split, target.scale).validation_episodes(0, 4, n_users=1, k_shot=2, n_query=2)
    assert (validation.query.item >= 40).all() and validation.answers.rating.max() <= 5
    assert split.sha256 != alone.sha256


def test_each_text_is_made_by_its_own_data_sets_template(target, source):
    catalog = split_across(target, source, Protocol(state="user-cold", k_max=2), 0).catalog
    lines = catalog.texts()
    assert lines[:40] == target.catalog.texts() and lines[40:] == source.catalog.texts()
    assert lines[0] == "film 0 (1999)." and lines[40] == "A book 0."
    other = split_across(source, target, Protocol(state="user-cold", k_max=2), 0).catalog
    assert catalog.text_sha256 != other.text_sha256
    without = dataclasses.replace(source, catalog=Catalog(source.catalog.item_ids))
    assert split_across(target, without, Protocol(state="user-cold", k_max=2), 0).catalog.text is None


@pytest.mark.parametrize("state", ["warm", "item-cold"])
def test_states_with_known_users_are_refused(target, source, state):
    with pytest.raises(SuiteError, match=f"small from books: state '{state}' has known users"):
        split_across(target, source, Protocol(state=state, k_max=2), 0)


def test_item_shots_are_refused(target, source):
    with pytest.raises(SuiteError, match="use item_shots = 0"):
        split_across(target, source, Protocol(state="both-cold", k_max=2, item_shots=2), 0)
