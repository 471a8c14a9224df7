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
from fewrec.learners.bias import Bias, BiasConfig
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
