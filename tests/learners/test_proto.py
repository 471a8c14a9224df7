"""The mixture against dense Gaussian likelihoods, EM against its own objective, and both on users in clusters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.proto import Proto, ProtoConfig, PrototypeEM
from fewrec.learners.validation import Validation
from fewrec.testing import LearnerConformance

SMALL = {"prototypes": 3, "profile_ridge": 3.0, "sweeps": 8}


def setting(state: str, n_users: int = 80, clusters: int = 3):
    """Return a setting in which every cluster of users has a taste of its own; and the cluster of each user."""
    dataset = make_synthetic(n_users=n_users, n_items=50, density=0.6, seed=1)
    rng, table = np.random.default_rng(0), dataset.table
    taste = rng.choice([-1.0, 1.0], (clusters, table.n_items))
    offset, of_user = rng.normal(0, 0.4, table.n_users), rng.integers(0, clusters, table.n_users)
    rating = 3 + offset[table.user] + taste[of_user[table.user], table.item] + rng.normal(0, 0.5, len(table))
    dataset = replace(dataset, table=replace(table, rating=rating.round().clip(1, 5)))
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    source = MetaTrainSet(split, dataset.scale)
    return split, source, Context(torch.device("cpu"), split.catalog, dataset.scale, Path(".")), taste


@pytest.mark.parametrize("state", ["user-cold", "both-cold", "warm"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_prediction_is_the_posterior_mean_of_a_dense_mixture_of_gaussians(state, temperature):
    split, source, ctx, _ = setting(state)
    learner = Proto(ProtoConfig(**SMALL, temperature=temperature))
    learner.meta_fit(source, ctx)
    base, profile, log_share, (noise, spread) = (learner.model[name].numpy() for name in learner.model)
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    drawn = [sampler.sample(0, 1, n_users=2, k_shot=k, n_query=2).support[0] for k in (0, 1, 3, 8)]
    predictor = learner.adapt_batch(SupportBatch.of(drawn), ctx)
    items = torch.arange(len(base))
    for e, support in enumerate(drawn):
        for user in range(2):
            mine = (support.user == user).numpy()
            item, rating = support.item.numpy()[mine], support.rating.numpy()[mine]
            if support.meta_user[user] >= 0:
                rows = source.table.user == int(support.meta_user[user])
                item = np.concatenate([item, source.table.item[rows]])
                rating = np.concatenate([rating, source.table.rating[rows]])
            error = (rating - base[item])[:, None] - profile[item]
            covariance = noise * np.eye(len(item)) + spread
            score, offset = log_share.copy(), np.zeros(len(log_share))
            if len(item):
                for c in range(len(score)):
                    score[c] += multivariate_normal.logpdf(error[:, c], cov=covariance) / temperature
                offset = spread * np.linalg.solve(covariance, error).sum(0)
            wanted = base + (profile + offset) @ softmax(score)
            found = predictor.predict(torch.full_like(items, e), torch.full_like(items, user), items)
            np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-9)


def log_likelihood(em: PrototypeEM) -> float:
    profile, log_share, total = em.profile.numpy(), em.model()["log_share"].numpy(), 0.0
    for u in range(len(em.share)):
        rows = (em.user_of == u).numpy()
        error = em.residual.numpy()[rows][:, None] - profile[em.item_of.numpy()[rows]]
        covariance = em.noise * np.eye(rows.sum()) + em.spread
        total += logsumexp(log_share + [multivariate_normal.logpdf(column, cov=covariance) for column in error.T])
    return total


def test_no_round_of_em_lowers_the_penalised_likelihood():
    _, source, ctx, _ = setting("user-cold", n_users=40)
    em = PrototypeEM(source.table, ProtoConfig(**SMALL), ctx.generator(0), torch.device("cpu"))
    em.sweep()
    em.profiles()
    gains = []
    for _ in range(8):
        before, squares = log_likelihood(em), float(em.profile.square().sum())
        em.responsibilities()
        em.profiles()
        penalty = em.ridge / em.noise / 2 * (float(em.profile.square().sum()) - squares)
        gains.append(log_likelihood(em) - before - penalty)
    assert min(gains) > -1e-8 and max(gains) > 0.1


def rmse(learner, source, ctx) -> float:
    learner.meta_fit(source, ctx)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted - episodes.answers.rating).square().mean().sqrt())


def test_it_beats_the_bias_model_and_a_single_prototype_where_users_come_in_clusters():
    _, source, ctx, _ = setting("user-cold", n_users=300)
    few = {"profile_ridge": 3.0, "sweeps": 30}
    bias, one, several = (
        rmse(learner, source, ctx)
        for learner in (Bias(), Proto(ProtoConfig(prototypes=1, **few)), Proto(ProtoConfig(prototypes=6, **few)))
    )
    assert several < 0.75 * bias and several < 0.75 * one


def test_it_finds_the_clusters():
    _, source, ctx, taste = setting("user-cold", n_users=300)
    learner = Proto(ProtoConfig(prototypes=8, profile_ridge=3.0))
    learner.meta_fit(source, ctx)
    found = learner.model["profile"].numpy()[:, learner.model["log_share"].exp().numpy() > 0.05]
    centred = taste - taste.mean(0)
    likeness = np.corrcoef(np.vstack([centred, found.T]))[:3, 3:]
    assert (likeness.max(1) > 0.9).all()


def test_meta_fitting_keeps_the_best_sweep_and_temperature():
    _, source, ctx, _ = setting("user-cold")
    scores = []
    seen = replace(ctx, record=lambda step, s: scores.append(s["validation_rmse"]))
    learner = Proto(ProtoConfig(prototypes=6, profile_ridge=2.0, sweeps=12))
    learner.meta_fit(source, seen)
    validation, chosen, grid = Validation(source, (1, 5, 10), 10), learner.temperature, {}
    for learner.temperature in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
        grid[learner.temperature] = validation.rmse(learner, ctx)
    assert grid[2.0] == min(scores) and grid[chosen] == min(grid.values())


class TestConformance(LearnerConformance):
    learner = Proto
    config = SMALL
    rounding = 1e-9
