"""The trivial rows against their definitions, computed by hand or in plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.table import Catalog, Dataset, RatingTable, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.trivial import (
    GlobalMean,
    ItemMean,
    ItemMeanConfig,
    ItemPopularity,
    RandomRating,
    SupportMean,
    UserMean,
    UserMeanConfig,
    UserMedian,
)

N_ITEMS = 12


@pytest.fixture(scope="module")
def source() -> MetaTrainSet:
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((40, N_ITEMS)) < np.linspace(0.95, 0.3, N_ITEMS))
    rating = np.clip(np.round(4.3 - 0.15 * item + rng.normal(0, 0.7, len(item))), 1, 5)
    table = RatingTable(user, item, rating, None, 40, N_ITEMS)
    dataset = Dataset("tiny", table, Catalog(np.arange(N_ITEMS)), Scale(1, 5, 1), np.arange(40))
    return MetaTrainSet(split_dataset(dataset, Protocol(state="both-cold", k_max=1), 0), dataset.scale)


@pytest.fixture(scope="module")
def ctx(source) -> Context:
    return Context(torch.device("cpu"), source.catalog, source.scale, Path("."))


def support(*ratings: tuple[int, int, float], n_users: int = 3, seed: int = 5) -> Support:
    columns = list(zip(*ratings, strict=True)) if ratings else [(), (), ()]
    user, item = (torch.tensor(column, dtype=torch.int64) for column in columns[:2])
    rating = torch.tensor(columns[2], dtype=torch.float64)
    return Support(n_users, user, item, rating, None, torch.full((n_users,), -1), seed)


# Users' rows interleave: user 0 has three ratings, user 1 four, user 2 one.
RAGGED = support((1, 0, 5.0), (0, 3, 2.0), (1, 2, 1.0), (0, 1, 4.0), (2, 2, 3.0), (1, 5, 2.0), (0, 0, 5.0), (1, 1, 4.0))


def predict(learner, given: Support, source, ctx, users=(0, 1, 2), item: int = 4) -> list[float]:
    learner.meta_fit(source, ctx)
    return learner.adapt(given, ctx).predict(torch.tensor(users), torch.full((len(users),), item)).tolist()


def test_global_mean_is_the_mean_of_meta_train_for_all(source, ctx):
    assert predict(GlobalMean(), RAGGED, source, ctx) == pytest.approx([source.table.rating.mean()] * 3)


def test_support_mean_is_each_users_own(source, ctx):
    assert predict(SupportMean(), RAGGED, source, ctx) == pytest.approx([11 / 3, 3.0, 3.0])


def test_user_mean_is_shrunk_to_the_global_mean(source, ctx):
    mu = source.table.rating.mean()
    expected = [(11 + 2 * mu) / 5, (12 + 2 * mu) / 6, (3 + 2 * mu) / 3]
    assert predict(UserMean(UserMeanConfig(shrinkage=2.0)), RAGGED, source, ctx) == pytest.approx(expected)


@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_user_mean_without_support_is_the_global_mean(source, ctx, shrinkage):
    learner = UserMean(UserMeanConfig(shrinkage=shrinkage))
    assert predict(learner, support(), source, ctx) == pytest.approx([source.table.rating.mean()] * 3)


def test_user_median_averages_the_two_in_the_middle(source, ctx):
    assert predict(UserMedian(), RAGGED, source, ctx) == [4.0, 3.0, 3.0]


def test_user_median_agrees_with_numpy_on_a_ragged_batch(ctx):
    rng = np.random.default_rng(3)
    supports = []
    for episode in range(6):
        user = np.concatenate([np.arange(4), rng.integers(0, 4, 9)])
        rows = [(int(u), int(rng.integers(N_ITEMS)), float(rng.integers(1, 6))) for u in user]
        supports.append(support(*rows, n_users=4, seed=episode))
    predictor = UserMedian().adapt_batch(SupportBatch.of(supports), ctx)
    for episode, given in enumerate(supports):
        user = torch.arange(4)
        predicted = predictor.predict(torch.full((4,), episode), user, torch.zeros(4, dtype=torch.int64))
        expected = [np.median(given.rating[given.user == u].numpy()) for u in range(4)]
        assert predicted.tolist() == expected


def test_item_mean_is_shrunk_and_an_unseen_item_has_the_global_mean(source, ctx):
    table, mu = source.table, source.table.rating.mean()
    learner = ItemMean(ItemMeanConfig(shrinkage=4.0))
    learner.meta_fit(source, ctx)
    for item in range(N_ITEMS):
        mine = table.rating[table.item == item]
        assert float(learner.fitted[item]) == pytest.approx((mine.sum() + 4 * mu) / (len(mine) + 4))
    assert not source.catalog.seen.all()
    assert learner.fitted[~source.catalog.seen].tolist() == pytest.approx([mu] * int((~source.catalog.seen).sum()))


def test_item_popularity_ranks_by_the_number_of_ratings_and_fits_the_scale(source, ctx):
    learner = ItemPopularity()
    learner.meta_fit(source, ctx)
    count, seen = np.bincount(source.table.item, minlength=N_ITEMS), source.catalog.seen
    score = learner.fitted.numpy()
    more = count[seen][:, None] > count[seen][None, :]
    assert (score[seen][:, None] > score[seen][None, :])[more].all()
    slope, intercept = np.polyfit(np.log1p(count[source.table.item]), source.table.rating, 1)
    assert slope > 0
    np.testing.assert_allclose(score[seen], intercept + slope * np.log1p(count[seen]))


def test_item_popularity_ranks_popular_items_first_even_where_they_are_disliked(source, ctx):
    upside_down = RatingTable(*(getattr(source.table, c) for c in ("user", "item")), 6 - source.table.rating, None,
                              source.table.n_users, N_ITEMS)  # fmt: skip
    learner = ItemPopularity()
    flipped = MetaTrainSet.__new__(MetaTrainSet)
    flipped.table, flipped.scale = upside_down, source.scale
    learner.meta_fit(flipped, ctx)
    count = np.bincount(upside_down.item, minlength=N_ITEMS)
    popular, rare = int(count.argmax()), int(np.flatnonzero(count > 0)[count[count > 0].argmin()])
    assert learner.fitted[popular] > learner.fitted[rare]


def test_popularity_of_clicks_is_the_number_of_clicks_and_not_of_impressions(source, ctx):
    clicked = (source.table.rating > 3).astype(float)
    table = RatingTable(source.table.user, source.table.item, clicked, None, source.table.n_users, N_ITEMS)
    clicks = MetaTrainSet.__new__(MetaTrainSet)
    clicks.table, clicks.scale = table, Scale(0, 1, 1)
    learner = ItemPopularity()
    learner.meta_fit(clicks, ctx)
    count, shown = np.bincount(table.item, clicked, minlength=N_ITEMS), np.bincount(table.item, minlength=N_ITEMS) > 0
    score = learner.fitted.numpy()
    more = count[shown][:, None] > count[shown][None, :]
    assert more.any() and (score[shown][:, None] > score[shown][None, :])[more].all()


def test_random_draws_meta_train_ratings_at_their_frequencies(source, ctx):
    learner = RandomRating()
    learner.meta_fit(source, ctx)
    drawn = []
    for seed in range(200):
        items = torch.arange(N_ITEMS).repeat(3)
        users = torch.arange(3).repeat_interleave(N_ITEMS)
        drawn.append(learner.adapt(support(seed=seed), ctx).predict(users, items).numpy())
    levels, count = np.unique(source.table.rating, return_counts=True)
    found = np.array([(np.concatenate(drawn) == level).mean() for level in levels])
    assert found.sum() == 1.0
    np.testing.assert_allclose(found, count / count.sum(), atol=0.02)


def test_random_depends_on_seed_user_and_item_alone(source, ctx):
    learner = RandomRating()
    learner.meta_fit(source, ctx)
    users, items = torch.arange(3).repeat_interleave(N_ITEMS), torch.arange(N_ITEMS).repeat(3)
    once = learner.adapt(support(seed=1), ctx).predict(users, items)
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
    shuffled = learner.adapt(support((0, 1, 5.0), seed=1), ctx).predict(users[order], items[order])
    assert torch.equal(shuffled, once[order])
    assert not torch.equal(learner.adapt(support(seed=2), ctx).predict(users, items), once)
    assert not torch.equal(once[:N_ITEMS], once[N_ITEMS : 2 * N_ITEMS])
