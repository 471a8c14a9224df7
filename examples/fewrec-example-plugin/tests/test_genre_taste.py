"""``genre-taste`` keeps the contract of a learner, and knows genres."""

from dataclasses import replace

import pytest
import torch
from fewrec_example_plugin.genre_taste import GenreTaste

from fewrec.conformance import Bench
from fewrec.testing import LearnerConformance


class TestContract(LearnerConformance):
    learner = GenreTaste
    rounding = 1e-10  # it computes in float64


@pytest.fixture
def bench(tmp_path):
    return Bench(GenreTaste, {}, tmp_path)


@pytest.fixture
def genres(bench):
    return bench.split.catalog.text["genres"].to_numpy()


def test_unseen_items_of_different_genres_get_different_predictions(bench, genres):
    predicted = bench.predictions(bench.support(1, 4))
    unseen = ~torch.from_numpy(bench.split.catalog.seen)
    found = {genre: predicted[unseen & torch.from_numpy(genres == genre)] for genre in set(genres[unseen.numpy()])}
    assert len(found) > 2 and all(len(values.unique()) == 1 for values in found.values())
    assert len({float(values[0]) for values in found.values()}) == len(found)


def test_liking_an_item_raises_the_others_of_its_genre_most(bench, genres):
    support = bench.support(1, 1)
    same = torch.from_numpy(genres == genres[int(support.item[0])])
    low, high = (
        bench.predictions(replace(support, rating=torch.full_like(support.rating, stars))) for stars in (1.0, 5.0)
    )
    assert (high - low)[same].min() > (high - low)[~same].max() > 0
