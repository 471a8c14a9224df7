"""Folding in against a plain ridge solve, alternating least squares against its own loss, and both on known ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.mf_foldin import AlternatingLeastSquares, MFFoldIn, MFFoldInConfig
from fewrec.learners.ridge import GroupedRidge


def setting(state: str, seed: int = 1, **synthetic):
    arguments = {"n_users": 80, "n_items": 50, "density": 0.6, "rank": 2, "seed": seed} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    source = MetaTrainSet(split, dataset.scale)
    return split, source, Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


@pytest.fixture(scope="module", params=["user-cold", "both-cold", "warm"])
def fitted(request):
    split, source, ctx = setting(request.param)
    learner = MFFoldIn(MFFoldInConfig(rank=3))
    learner.meta_fit(source, ctx)
    return learner, split, source, ctx


def plain_ridge(learner, support, user, source) -> tuple[float, np.ndarray]:
    """Return (bias, vector) of one user by one call of ``numpy.linalg.lstsq`` on rows augmented with the ridge."""
    config, base, factor = learner.config, learner.base.numpy(), learner.factor.numpy()
    mine = (support.user == user).numpy()
    item, rating = support.item.numpy()[mine], support.rating.numpy()[mine]
    if support.meta_user[user] >= 0:
        rows = source.table.user == int(support.meta_user[user])
        item = np.concatenate([item, source.table.item[rows]])
        rating = np.concatenate([rating, source.table.rating[rows]])
    ridge = np.sqrt(np.diag([config.user_ridge] + [config.vector_ridge] * config.rank))
    design = np.concatenate([np.column_stack([np.ones(len(item)), factor[item]]), ridge])
    target = np.concatenate([rating - base[item], np.zeros(config.rank + 1)])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return solution[0], solution[1:]


def test_folding_in_solves_each_users_ridge_problem_on_ragged_supports(fitted):
    learner, split, source, ctx = fitted
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    drawn = [sampler.sample(0, 1, n_users=3, k_shot=k, n_query=2).support[0] for k in (0, 1, 2, 5, 8)]
    predictor = learner.adapt_batch(SupportBatch.of(drawn), ctx)
    items = torch.arange(len(learner.base))
    for e, support in enumerate(drawn):
        for user in range(3):
            bias, vector = plain_ridge(learner, support, user, source)
            expected = learner.base.numpy() + bias + learner.factor.numpy() @ vector
            found = predictor.predict(torch.full_like(items, e), torch.full_like(items, user), items)
            np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)


def test_an_unseen_item_has_the_rating_weighted_mean_effect_and_no_factor():
    _, source, ctx = setting("both-cold")
    learner = MFFoldIn()
    learner.meta_fit(source, ctx)
    unseen = torch.from_numpy(~source.catalog.seen)
    assert unseen.any() and (learner.factor[unseen] == 0).all() and (learner.factor[~unseen] != 0).any()
    assert torch.allclose(learner.base[unseen], learner.base[torch.tensor(source.table.item)].mean())


def test_grouped_ridge_agrees_with_one_solve_a_group():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 40, 300)
    group[group == 7] = 8  # group 7 is empty, and the sizes differ
    of_row, target = rng.integers(0, 20, 300), rng.normal(size=300)
    features, ridge = rng.normal(size=(20, 4)), np.array([0.5, 1.0, 2.0, 3.0])
    solver = GroupedRidge(torch.from_numpy(group), 40)
    found = solver.solve(*(torch.from_numpy(a) for a in (features, of_row, target, ridge))).numpy()
    for g in range(40):
        x, y = features[of_row[group == g]], target[group == g]
        np.testing.assert_allclose(found[g], np.linalg.solve(x.T @ x + np.diag(ridge), x.T @ y), atol=1e-12)
    assert (found[7] == 0).all()


def als_loss(als: AlternatingLeastSquares) -> float:
    error = als.rating - als.mu - als.of_user[als.user, 0] - als.of_item[als.item, 0]
    error = error - (als.of_user[als.user, 1:] * als.of_item[als.item, 1:]).sum(1)
    ridges = (als.ridge_user * als.of_user.square()).sum() + (als.ridge_item * als.of_item.square()).sum()
    return float(error.square().sum() + ridges)


def test_every_sweep_lowers_the_regularised_loss():
    _, source, ctx = setting("user-cold")
    als = AlternatingLeastSquares(source.table, MFFoldInConfig(rank=3), ctx.generator(0), torch.device("cpu"))
    losses = []
    for _ in range(8):
        als.sweep()
        losses.append(als_loss(als))
    assert all(after < before for before, after in zip(losses, losses[1:], strict=False))


def test_normalised_coordinates_keep_predictions_and_give_users_covariance_one():
    _, source, ctx = setting("user-cold")
    als = AlternatingLeastSquares(
        source.table, MFFoldInConfig(rank=2, factor_ridge=1.0), ctx.generator(0), torch.device("cpu")
    )
    for _ in range(5):
        als.sweep()
    base, factor = als.normalised()
    vector = als.of_user[:, 1:] - als.of_user[:, 1:].mean(0)
    spread, axes = torch.linalg.eigh(vector.mT @ vector / len(vector))
    own = vector @ axes / spread.sqrt()
    torch.testing.assert_close(own.mT @ own / len(own), torch.eye(2, dtype=torch.float64))
    before = als.mu + als.of_user[:, :1] + als.of_item[:, 0] + als.of_user[:, 1:] @ als.of_item[:, 1:].mT
    after = als.of_user[:, :1] - als.of_user[:, 0].mean() + base + own @ factor.mT
    torch.testing.assert_close(after, before)


def test_it_beats_the_bias_model_where_ratings_have_low_rank():
    _, source, ctx = setting("user-cold", n_users=200, factor_std=1.0, noise=0.3)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)
    query, error = episodes.query, {}
    for learner in (Bias(), MFFoldIn()):
        learner.meta_fit(source, ctx)
        predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        error[learner.name] = float((predicted - episodes.answers.rating).square().mean().sqrt())
    assert error["mf-foldin"] < 0.9 * error["bias"]


def test_meta_fitting_logs_its_score_and_keeps_the_best_sweep():
    _, source, ctx = setting("user-cold")
    scores = []
    seen = Context(
        ctx.device, ctx.catalog, ctx.scale, ctx.cache, record=lambda step, s: scores.append(s["validation_rmse"])
    )
    learner = MFFoldIn(MFFoldInConfig(rank=4, factor_ridge=0.1, sweeps=12, patience=2))
    learner.meta_fit(source, seen)
    from fewrec.learners.validation import Validation

    assert Validation(source, (1, 5, 10), 10).rmse(learner, ctx) == min(scores)
