"""Neighbours against a plain loop over users, and where users come in clusters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fewrec.learners.knn as module
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.knn import KNN, NEIGHBOUR_RIDGES, KNNConfig
from fewrec.learners.validation import Validation
from fewrec.testing import LearnerConformance


def setting(state: str, clusters: int = 0, **synthetic):
    arguments = {"n_users": 80, "n_items": 50, "density": 0.6, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    if clusters:  # every cluster has a taste of its own, far from low rank
        rng, table = np.random.default_rng(0), dataset.table
        taste = rng.choice([-1.2, 1.2], (clusters, table.n_items))
        of_user = rng.integers(0, clusters, table.n_users)
        rating = 3 + taste[of_user[table.user], table.item] + rng.normal(0, 0.5, len(table))
        dataset = replace(dataset, table=replace(table, rating=rating.round().clip(1, 5)))
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    source = MetaTrainSet(split, dataset.scale)
    return split, source, Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def by_a_loop(learner, source, support, user, item) -> float:
    """Return one prediction from the definition, with a dictionary of ratings for every meta-train user."""
    config, table, base = learner.config, source.table, learner.base.numpy()
    neighbours = [{} for _ in range(table.n_users)]
    effects = module.ridge_effects(table, config.item_ridge, config.meta_user_ridge)
    for u, i, r in zip(table.user.tolist(), table.item.tolist(), table.rating.tolist(), strict=True):
        neighbours[u][i] = r - base[i] - effects.user[u]
    mean_square = np.mean([e * e for mine in neighbours for e in mine.values()])
    mine = {
        i: r
        for i, r, u in zip(support.item.tolist(), support.rating.tolist(), support.user.tolist(), strict=True)
        if u == user
    }
    me = int(support.meta_user[user])
    if me >= 0:
        rows = table.user == me
        mine |= dict(zip(table.item[rows].tolist(), table.rating[rows].tolist(), strict=True))
    effect = sum(r - base[i] for i, r in mine.items()) / (len(mine) + config.user_ridge)
    above, below = 0.0, learner.neighbour_ridge
    for v, theirs in enumerate(neighbours):
        if item not in theirs or v == me:
            continue
        common = sorted(set(mine) & set(theirs))
        a, b = np.array([mine[i] - base[i] - effect for i in common]), np.array([theirs[i] for i in common])
        prior = config.shrinkage * mean_square
        similarity = (a * b).sum() / np.sqrt(((a**2).sum() + prior) * ((b**2).sum() + prior))
        above, below = above + similarity * theirs[item], below + abs(similarity)
    return base[item] + effect + config.gain * above / below


@pytest.mark.parametrize("state", ["user-cold", "both-cold", "warm"])
@pytest.mark.parametrize("pairs", [1 << 22, 40])
def test_a_prediction_is_the_one_of_a_plain_loop_over_neighbours_however_it_is_cut(state, pairs, monkeypatch):
    monkeypatch.setattr(module, "_PAIRS", pairs)
    split, source, ctx = setting(state)
    learner = KNN(KNNConfig(neighbour_ridge=3.0, shrinkage=2.0, gain=1.5))
    learner.meta_fit(source, ctx)
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    drawn = [sampler.sample(0, 1, n_users=2, k_shot=k, n_query=2).support[0] for k in (0, 1, 3, 8)]
    predictor = learner.adapt_batch(SupportBatch.of(drawn), ctx)
    items = torch.arange(0, len(learner.base), 7)
    for e, support in enumerate(drawn):
        for user in range(2):
            found = predictor.predict(torch.full_like(items, e), torch.full_like(items, user), items)
            wanted = [by_a_loop(learner, source, support, user, item) for item in items.tolist()]
            np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-10)


def test_the_shrunk_similarity_is_korens_for_residuals_of_average_size():
    split, source, ctx = setting("user-cold")
    learner = KNN(KNNConfig(neighbour_ridge=1.0, shrinkage=4.0))
    learner.meta_fit(source, ctx)
    size = learner.scale**0.5
    learner.residual = size * learner.residual.sign()
    support = EpisodeSampler(split.pools["test"], 0, "test", k_max=8).sample(0, 1, n_users=1, k_shot=6, n_query=2)
    support = support.support[0]
    # ratings whose residual is one mean size above or below what the baseline expects; they sum to no user effect
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    support = replace(support, rating=learner.base[support.item] + size * signs)
    found = learner.adapt_batch(SupportBatch.of([support]), ctx).similarity[0]
    for v in range(source.table.n_users):
        products = [
            float(signs[k] * learner.residual[at].sign())
            for k, item in enumerate(support.item.tolist())
            for at in range(int(learner.offsets[item]), int(learner.offsets[item + 1]))
            if int(learner.rater[at]) == v
        ]
        n = len(products)
        cosine = sum(products) / n if n else 0.0
        assert float(found[v]) == pytest.approx(n / (n + 4.0) * cosine, abs=1e-9)


def test_it_beats_the_bias_model_where_users_come_in_clusters():
    _, source, ctx = setting("user-cold", clusters=4, n_users=300)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)
    query, error = episodes.query, {}
    for learner in (Bias(), KNN()):
        learner.meta_fit(source, ctx)
        predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        error[learner.name] = float((predicted - episodes.answers.rating).square().mean().sqrt())
    assert error["knn"] < 0.8 * error["bias"]


def test_without_support_and_for_unseen_items_it_is_the_bias_model():
    split, source, ctx = setting("both-cold")
    learners = Bias(), KNN()
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    for k_shot, items in ((0, torch.arange(50)), (5, torch.from_numpy(np.flatnonzero(~source.catalog.seen)))):
        support = sampler.sample(0, 1, n_users=1, k_shot=k_shot, n_query=2).support[0]
        found = []
        for learner in learners:
            learner.meta_fit(source, ctx)
            found.append(learner.adapt(support, ctx).predict(torch.zeros_like(items), items))
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_the_neighbour_ridge_is_the_best_on_meta_validation_unless_it_is_given():
    _, source, ctx = setting("user-cold")
    learner = KNN()
    learner.meta_fit(source, ctx)
    chosen, validation, scores = learner.neighbour_ridge, Validation(source, (1, 5, 10), 10), {}
    for learner.neighbour_ridge in NEIGHBOUR_RIDGES:
        scores[learner.neighbour_ridge] = validation.rmse(learner, ctx)
    assert scores[chosen] == min(scores.values()) and len(set(scores.values())) > 1
    given = KNN(KNNConfig(neighbour_ridge=7.0))
    given.meta_fit(source, ctx)
    assert given.neighbour_ridge == 7.0


class TestConformance(LearnerConformance):
    learner = KNN
    rounding = 1e-9
