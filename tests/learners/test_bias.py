"""The bias model against a dense ridge solve, and what it does with unseen items and known users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import RatingTable, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias, BiasConfig, BiasShots
from fewrec.learners.effects import KnownUsers, ridge_effects


def setting(state: str, **options):
    dataset = make_synthetic(n_users=60, n_items=50, density=0.5, seed=1)
    split = split_dataset(dataset, Protocol(state=state, k_max=4), 0)
    source = MetaTrainSet(split, dataset.scale)
    ctx = Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))
    learner = Bias(BiasConfig(**options))
    learner.meta_fit(source, ctx)
    episodes = EpisodeSampler(split.pools["test"], 0, "test", k_max=4).sample(0, 4, n_users=3, k_shot=4, n_query=2)
    return learner, source, ctx, episodes


def dense_ridge(table: RatingTable, item_ridge: float, user_ridge: float) -> np.ndarray:
    """Return (mu, item effects, user effects) from the normal equations of all effects at once."""
    design = np.zeros((len(table), 1 + table.n_items + table.n_users))
    design[:, 0] = 1
    design[np.arange(len(table)), 1 + table.item] = 1
    design[np.arange(len(table)), 1 + table.n_items + table.user] = 1
    ridge = np.concatenate([[0.0], np.full(table.n_items, item_ridge), np.full(table.n_users, user_ridge)])
    return np.linalg.solve(design.T @ design + np.diag(ridge), design.T @ table.rating)


@pytest.mark.parametrize(("item_ridge", "user_ridge"), [(5.0, 10.0), (0.5, 0.1), (200.0, 3.0)])
def test_effects_solve_the_dense_ridge_problem(item_ridge, user_ridge):
    table = setting("user-cold")[1].table
    effects = ridge_effects(table, item_ridge, user_ridge)
    found = np.concatenate([[effects.mu], effects.item, effects.user])
    np.testing.assert_allclose(found, dense_ridge(table, item_ridge, user_ridge), atol=1e-8)


def test_a_new_users_effect_is_the_shrunk_mean_of_the_residuals():
    learner, source, ctx, episodes = setting("user-cold", item_ridge=3.0, meta_user_ridge=4.0, user_ridge=2.5)
    solution = dense_ridge(source.table, 3.0, 4.0)
    mu, item_effect = solution[0], solution[1 : 1 + source.table.n_items]
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    for row in range(len(predicted)):
        support = episodes.support[int(query.episode[row])]
        mine = support.user == query.user[row]
        residual = support.rating[mine].numpy() - mu - item_effect[support.item[mine].numpy()]
        expected = mu + item_effect[int(query.item[row])] + residual.sum() / (len(residual) + 2.5)
        assert float(predicted[row]) == pytest.approx(expected, abs=1e-8)


def test_an_unseen_item_has_the_rating_weighted_mean_effect():
    learner, source, _, _ = setting("both-cold")
    unseen = torch.from_numpy(~source.catalog.seen)
    assert unseen.any()
    mean_over_ratings = learner.base[torch.tensor(source.table.item)].mean()
    assert torch.allclose(learner.base[unseen], mean_over_ratings)


def test_without_support_the_prediction_is_the_items():
    learner, _, ctx, _ = setting("user-cold")
    sampled = setting("user-cold")[1].validation_episodes(0, 2, n_users=2, k_shot=0, n_query=3)
    query = sampled.query
    predicted = learner.adapt_batch(sampled.support, ctx).predict(query.episode, query.user, query.item)
    assert torch.equal(predicted, learner.base[query.item])


def test_a_known_users_meta_train_ratings_count_like_support():
    learner, source, ctx, episodes = setting("warm", user_ridge=2.0)
    support = episodes.support[0]
    meta_user = int(support.meta_user[1])
    assert meta_user >= 0
    rows = source.table.user == meta_user
    item = np.concatenate([support.item[support.user == 1].numpy(), source.table.item[rows]])
    rating = np.concatenate([support.rating[support.user == 1].numpy(), source.table.rating[rows]])
    residual = rating - learner.base.numpy()[item]
    predicted = learner.adapt(support, ctx).predict(torch.tensor([1]), torch.tensor([7]))
    assert float(predicted[0]) == pytest.approx(float(learner.base[7]) + residual.sum() / (len(residual) + 2.0))


def test_known_users_return_each_users_rows_and_no_others():
    table = RatingTable(np.array([2, 0, 2, 1]), np.array([5, 1, 6, 2]), np.array([1.0, 2, 3, 4]), None, 3, 7)
    known = KnownUsers.of(table)
    _, _, _, episodes = setting("user-cold")
    meta_user = torch.tensor([-1, 2, 0] + [-1] * (episodes.support.total_users - 3))
    support = replace(episodes.support, meta_user=meta_user)
    user, item, rating = known.ratings(support)
    n = len(support.item)
    assert user[n:].tolist() == [1, 1, 2] and item[n:].tolist() == [5, 6, 1] and rating[n:].tolist() == [1, 3, 2]


def with_item_shots(state: str = "both-cold", item_shots: int = 4, **options):
    dataset = make_synthetic(n_users=200, n_items=60, density=0.5, item_bias_std=0.8, seed=1)
    split = split_dataset(dataset, Protocol(state=state, k_max=4, item_shots=item_shots), 0)
    source = MetaTrainSet(split, dataset.scale)
    ctx = Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))
    learner = BiasShots(BiasConfig(**options))
    learner.meta_fit(source, ctx)
    return learner, split, source, ctx


def draw(split, item_shots: int = 4):
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=4, item_shots=item_shots)
    return sampler.sample(0, 30, n_users=3, k_shot=4, n_query=3)


def test_an_unseen_items_effect_is_the_mean_effect_plus_the_shrunk_mean_residual_of_its_shots():
    learner, split, source, ctx = with_item_shots(item_ridge=3.0, meta_user_ridge=4.0)
    solution = dense_ridge(source.table, 3.0, 4.0)
    mu, user_effect = solution[0], solution[1 + source.table.n_items :]
    mean_effect = solution[1 + source.table.item].mean()
    support = draw(split).support[0]
    shots = support.item_ratings
    predictor = learner.adapt(support, ctx)
    unknown = torch.from_numpy(~source.catalog.seen) & ~torch.isin(torch.arange(60), shots.item)
    start = predictor.predict(torch.zeros(1, dtype=torch.int64), unknown.nonzero()[0])  # an unseen item without shots
    for item in shots.item.unique().tolist():
        mine = shots.item == item
        residual = shots.rating[mine].numpy() - mu - user_effect[shots.meta_user[mine].numpy()] - mean_effect
        expected = float(start) + residual.sum() / (len(residual) + 3.0)
        found = predictor.predict(torch.tensor([0]), torch.tensor([item]))
        assert float(found) == pytest.approx(expected, abs=1e-8)


def test_each_episodes_shots_count_in_that_episode_alone():
    learner, split, _, ctx = with_item_shots()
    batch = draw(split).support
    items = torch.arange(60)
    together = learner.adapt_batch(batch, ctx)
    for e in range(5):
        alone = learner.adapt(batch[e], ctx).predict(torch.ones_like(items), items)
        found = together.predict(torch.full_like(items, e), torch.ones_like(items), items)
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)


def test_without_item_shots_it_is_the_bias_model_to_the_last_bit():
    learner, split, source, ctx = with_item_shots()
    drawn = draw(split)
    support, query = drawn.support, drawn.query
    user, item, rating = learner.known.ratings(support)
    total = torch.zeros(support.total_users, dtype=torch.float64).index_add_(0, user, rating - learner.base[item])
    effect = total / (torch.bincount(user, minlength=support.total_users) + learner.config.user_ridge)
    expected = effect[support.flat_user(query.episode, query.user)] + learner.base[query.item]
    for absent in (None, (None,) * len(support)):
        predictor = learner.adapt_batch(replace(support, item_ratings=absent), ctx)
        assert torch.equal(predictor.predict(query.episode, query.user, query.item), expected)


def test_shots_of_a_seen_item_change_nothing():
    learner, split, source, ctx = with_item_shots()
    support = draw(split).support[0]
    shots, seen = support.item_ratings, torch.from_numpy(np.flatnonzero(source.catalog.seen))
    moved = replace(support, item_ratings=replace(shots, item=seen[: len(shots.item)], rating=shots.rating * 0 + 1))
    asked = torch.zeros(len(seen), dtype=torch.int64), seen
    plain = learner.adapt(replace(support, item_ratings=None), ctx).predict(*asked)
    assert torch.equal(learner.adapt(moved, ctx).predict(*asked), plain)


@pytest.mark.parametrize("state", ["both-cold", "item-cold"])
def test_more_shots_of_the_items_make_a_smaller_error(state):
    learner, split, _, ctx = with_item_shots(state, item_shots=16)
    errors = []
    for shots in (0, 1, 4, 16):
        drawn = draw(split, shots)
        query = drawn.query
        predicted = learner.adapt_batch(drawn.support, ctx).predict(query.episode, query.user, query.item)
        errors.append(float((predicted - drawn.answers.rating).square().mean().sqrt()))
    assert all(more < 0.98 * less for less, more in zip(errors, errors[1:], strict=False)), errors


def test_a_restored_bias_model_uses_shots_alike():
    learner, split, _, ctx = with_item_shots()
    again = BiasShots()
    again.load_state(*learner.state(), ctx)
    drawn = draw(split)
    asked = drawn.query.episode, drawn.query.user, drawn.query.item
    assert torch.equal(*(one.adapt_batch(drawn.support, ctx).predict(*asked) for one in (learner, again)))


def test_it_beats_item_means_where_users_differ():
    from fewrec.learners.trivial import ItemMean

    dataset = make_synthetic(n_users=200, n_items=60, density=0.5, user_bias_std=0.8, factor_std=0.1, seed=2)
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=5), 0)
    source = MetaTrainSet(split, Scale(1, 5, 1))
    ctx = Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))
    episodes = source.validation_episodes(0, 50, n_users=5, k_shot=5, n_query=5)
    error = {}
    for learner in (Bias(), ItemMean()):
        learner.meta_fit(source, ctx)
        query = episodes.query
        predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        error[learner.name] = float((predicted - episodes.answers.rating).square().mean().sqrt())
    assert error["bias"] < 0.85 * error["item-mean"]
