"""The posterior against a dense float64 Gaussian process, EM against its own bound, and both against ``gp``."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.gp import GP, MODEL, GPConfig, GPPredictor, VariationalEM
from fewrec.learners.hybrid_em import HybridEM, symmetric_sums
from fewrec.learners.hybrid_gp import HybridGP, HybridGPConfig
from fewrec.learners.item_prior import ItemPrior
from fewrec.learners.ridge import GroupSums
from fewrec.testing import LearnerConformance

SMALL = {"rank": 3, "topics": 2, "sweeps": 5}
CPU = torch.device("cpu")


class Vectors(HybridGP):
    """``hybrid-gp`` on given vectors in the place of a language model's, so that tests need no weights."""

    name = "hybrid-gp-vectors"
    vectors: torch.Tensor

    def prepare(self, ctx):
        self.vectors = torch.randn(len(ctx.catalog), 6, generator=ctx.generator(7), dtype=torch.float64)

    def item_features(self, ctx, generator):
        return None if self.config.item_features == "none" else self.vectors

    def loaded(self):
        return {}


def setting(state: str, seed: int = 1, **synthetic):
    arguments = {"n_users": 80, "n_items": 50, "density": 0.6, "rank": 2, "seed": seed} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    source = MetaTrainSet(split, dataset.scale)
    return split, source, Context(CPU, split.catalog, dataset.scale, Path("."))


def fitted_on(state: str, **options):
    split, source, ctx = setting(state)
    learner = Vectors(HybridGPConfig(**SMALL | options))
    learner.prepare(ctx)
    learner.meta_fit(source, ctx)
    return learner, split, source, ctx


@pytest.fixture(scope="module", params=["user-cold", "both-cold", "warm"])
def fitted(request):
    return fitted_on(request.param, selection=0.5)


def drawn(split, shots, n_users: int = 3) -> list:
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    return [sampler.sample(0, 1, n_users=n_users, k_shot=k, n_query=2).support[0] for k in shots]


def known_ratings(support, user, source):
    mine = (support.user == user).numpy()
    item, rating = support.item.numpy()[mine], support.rating.numpy()[mine]
    if support.meta_user[user] >= 0:
        rows = source.table.user == int(support.meta_user[user])
        item = np.concatenate([item, source.table.item[rows]])
        rating = np.concatenate([rating, source.table.rating[rows]])
    return item, rating


def dense_gp(learner, item, rating):
    """Return mean and standard deviation of every item's rating: function space, with a K x K solve."""
    model = {name: value.numpy() for name, value in learner.model.items()}
    mean, x, noise, s = model["mean"], model["loading"], model["noise_of"], learner.selection
    before = np.linalg.inv(model["precision"] + s * len(item) * model["tilt_spread"])
    mean = mean + x @ before @ (s * (model["tilt"][item] - model["tilt_mean"]).sum(0))
    covariance = x @ before @ x.T
    solve = np.linalg.inv(covariance[np.ix_(item, item)] + np.diag(noise[item]))
    posterior = covariance - covariance[:, item] @ solve @ covariance[item]
    given = before - before @ x[item].T @ solve @ x[item] @ before
    expected = mean + covariance[:, item] @ solve @ (rating - mean[item])
    if s:
        expected = expected + np.einsum("na,ab,nb->n", x, given, model["tilt"])
    return expected, learner.stretch * np.sqrt(np.diag(posterior) + noise)


@pytest.mark.parametrize("selection", [0.0, 0.5])
def test_the_posterior_is_that_of_dense_conditioning_on_ragged_supports(fitted, selection):
    learner, split, source, ctx = fitted
    learner.selection = selection
    supports = drawn(split, (0, 1, 2, 5, 8))
    predictor = learner.adapt_batch(SupportBatch.of(supports), ctx)
    items = torch.arange(len(learner.model["mean"]))
    for e, support in enumerate(supports):
        for user in range(3):
            wanted_mean, wanted_sd = dense_gp(learner, *known_ratings(support, user, source))
            mean, sd = predictor.distribution(torch.full_like(items, e), torch.full_like(items, user), items)
            np.testing.assert_allclose(mean.numpy(), wanted_mean, rtol=0, atol=1e-8)
            np.testing.assert_allclose(sd.numpy(), wanted_sd, rtol=0, atol=1e-8)


@pytest.mark.parametrize("k_shot", [100, 200])
def test_it_conditions_on_many_ratings_too(k_shot):
    split, source, ctx = setting("user-cold", n_users=30, n_items=260, density=1.0)
    learner = Vectors(HybridGPConfig(**SMALL))
    learner.prepare(ctx)
    learner.meta_fit(source, ctx)
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=k_shot)
    support = sampler.sample(0, 1, n_users=2, k_shot=k_shot, n_query=2).support
    items = torch.arange(len(learner.model["mean"]))
    found, _ = learner.adapt_batch(support, ctx).distribution(torch.zeros_like(items), torch.ones_like(items), items)
    wanted, _ = dense_gp(learner, *known_ratings(support[0], 1, source))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-8)


def test_updating_is_adapting_again(fitted):
    learner, split, source, ctx = fitted
    learner.selection = 0.5
    whole = drawn(split, (8, 5))
    parts = []
    for keep in (lambda at: at < 3, lambda at: at == 3, lambda at: at > 3):
        cut = []
        for support in whole:
            at = torch.cat([torch.arange(int(n)) for n in torch.bincount(support.user)])
            mask = keep(at)
            columns = {name: getattr(support, name)[mask] for name in ("user", "item", "rating")}
            cut.append(replace(support, timestamp=None, **columns))
        parts.append(SupportBatch.of(cut))
    step = learner.adapt_batch(parts[0], ctx)
    before = step.mean.clone()
    updated = step.update(parts[1], ctx).update(parts[2], ctx)
    again = learner.adapt_batch(SupportBatch.of(whole), ctx)
    assert torch.equal(step.mean, before)
    for name in ("mean", "covariance"):
        torch.testing.assert_close(getattr(updated, name), getattr(again, name), rtol=0, atol=1e-10)
    query = torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([4, 9])
    torch.testing.assert_close(updated.predict(*query), again.predict(*query), rtol=0, atol=1e-10)
    assert len(updated.explain(0, 1, 3)) == len(whole[0].item)


def test_a_ratings_weight_is_how_far_it_moves_the_prediction_and_the_sum_of_its_shares():
    learner, split, _, ctx = fitted_on("user-cold", selection=0.5)
    support = drawn(split, (4,), n_users=2)[0]
    predictor = learner.adapt_batch(SupportBatch.of([support]), ctx)
    weight, shares = predictor.explain(0, 1, 7), predictor.shares(0, 1, 7)
    where = torch.tensor([1]), torch.tensor([7])
    before = learner.adapt(support, ctx).predict(*where)
    for row in range(len(support.item)):
        rating = support.rating.clone()
        rating[row] += 1.0
        moved = learner.adapt(replace(support, rating=rating), ctx).predict(*where)
        torch.testing.assert_close(moved - before, weight[row : row + 1])
    assert (weight[support.user == 0] == 0).all() and (weight[support.user == 1] != 0).all()
    torch.testing.assert_close(shares.sum(1), weight)
    x, covariance = learner.model["loading"], predictor.covariance[1]
    offset = (x[support.item] @ covariance)[:, 0] / learner.model["noise_of"][support.item]
    torch.testing.assert_close(shares[:, 0], offset.masked_fill(support.user == 0, 0.0))


def test_of_an_unseen_item_the_ratings_add_nothing():
    learner, split, source, ctx = fitted_on("both-cold")
    unseen = int(np.flatnonzero(~source.catalog.seen)[0])
    predictor = learner.adapt_batch(SupportBatch.of(drawn(split, (5,))), ctx)
    shares = predictor.shares(0, 0, unseen)
    assert (shares[:, 2] == 0).all() and (shares[:5, 1] != 0).any()
    noise = learner.model["noise_of"]
    assert noise[~torch.from_numpy(source.catalog.seen)].min() > noise[torch.from_numpy(source.catalog.seen)].mean()


def bound(em: HybridEM) -> float:
    """Return the lower bound of the log marginal likelihood, one rating, one user, one item, one ridge at a time."""
    total = 0.0
    y, y_cov, c, c_cov = (t.numpy() for t in (em.user, em.user_cov, em.item, em.item_cov))
    noise, topic = em.noise_of.numpy(), em.topic.numpy()
    latent = 1 + em.rank
    for u, i, r in zip(em.user_of.tolist(), em.item_of.tolist(), em.rating.numpy() - em.mu, strict=True):
        error = r - y[u, 0] - c[i, 0] - c[i, 1:] @ y[u, 1:latent] - topic[i] @ y[u, latent:]
        of_user, of_item = np.r_[1.0, c[i, 1:], topic[i]], np.r_[1.0, y[u, 1:latent]]
        spread = of_user @ y_cov[u] @ of_user + of_item @ c_cov[i] @ of_item
        spread += np.trace(y_cov[u, 1:latent, 1:latent] @ c_cov[i, 1:, 1:])
        total += norm.logpdf(error, scale=np.sqrt(noise[i])) - spread / (2 * noise[i])
    prior = em.prior_of_items
    expected = np.zeros_like(c) if prior is None else prior.mean.numpy()
    seen = em.seen.nonzero().squeeze(1).tolist()
    of_users, of_items = np.linalg.inv(em.prior.numpy()), np.diag(em.item_prior.numpy())
    for mean, cov, precision in [(y[u], y_cov[u], of_users) for u in range(len(y))] + [
        (c[i] - expected[i], c_cov[i], of_items) for i in seen
    ]:
        ratio = precision @ cov
        total -= 0.5 * (np.trace(ratio) + mean @ precision @ mean - len(mean) - np.linalg.slogdet(ratio)[1])
    if em.noise_shots:  # log of the Gamma density of 1 / noise_i, as a density of its logarithm
        ratio = em.noise / noise[seen]
        total += 0.5 * em.noise_shots * (np.log(ratio) - ratio).sum()
    if prior is not None:  # -KL(q(B) || p(B)), and what the spread of B costs the items
        squares, ridge = prior.squares.numpy(), prior.ridge.numpy()
        f = prior.features.numpy()[seen]
        gram = f.T @ f
        for k, precision in enumerate(em.item_prior.tolist()):
            cov = np.linalg.inv(precision * gram + ridge[k] * np.eye(len(squares)))
            mean = np.linalg.lstsq(f, expected[seen, k], rcond=None)[0]
            total -= 0.5 * precision * np.trace(gram @ cov)
            ratio = ridge[k] * cov
            total -= 0.5 * (np.trace(ratio) + ridge[k] * mean @ mean - len(mean) - np.linalg.slogdet(ratio)[1])
    return total


@pytest.mark.parametrize("noise_shots, topics", [(0.0, 0), (20.0, 2)])
@pytest.mark.parametrize("with_text", [True, False])
def test_no_step_of_em_lowers_the_bound_of_the_marginal_likelihood(noise_shots, topics, with_text):
    _, source, ctx = setting("both-cold", n_users=30, n_items=24)
    vectors = torch.randn(24, 4, generator=ctx.generator(3), dtype=torch.float64) if with_text else None
    em = HybridEM(source.table, 2, ctx.generator(0), CPU, vectors, topics, noise_shots)
    em.sweep()
    values = [bound(em)]
    for _ in range(6):
        for step in (em.users, em.items, em.scales, em.text):
            step()
            values.append(bound(em))
    assert all(after > before - 1e-8 for before, after in zip(values, values[1:], strict=False))
    assert values[-1] > values[0] + 1


def test_without_text_it_is_gp():
    _, source, ctx = setting("both-cold")
    plain, hybrid = (
        VariationalEM(source.table, 3, ctx.generator(0), CPU),
        HybridEM(source.table, 3, ctx.generator(0), CPU),
    )
    for _ in range(6):
        plain.sweep()
        hybrid.sweep()
    wanted, found = plain.model(10.0), hybrid.model(10.0)
    for name in MODEL:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-9)
    learner = Vectors(
        HybridGPConfig(rank=3, item_features="none", noise_shots=0, item_noise=False, sweeps=6, selection=0.5)
    )
    learner.prepare(ctx)
    learner.meta_fit(source, ctx)
    peer = GP(GPConfig(rank=3, sweeps=6, selection=0.5))
    peer.known, peer.model, peer.selection = learner.known, wanted, 0.5
    episodes = source.validation_episodes(0, 20, n_users=2, k_shot=3, n_query=2)
    query = episodes.query
    here, there = (one.adapt_batch(episodes.support, ctx) for one in (learner, peer))
    assert isinstance(there, GPPredictor)
    torch.testing.assert_close(
        here.predict(query.episode, query.user, query.item), there.predict(query.episode, query.user, query.item),
        rtol=0, atol=1e-8,
    )  # fmt: skip


def test_the_regression_on_text_is_the_ridge_regression_of_the_best_evidence():
    rng = np.random.default_rng(0)
    features, seen = rng.normal(size=(40, 5)), np.arange(40) < 30
    item = features @ rng.normal(size=(5, 2)) + rng.normal(size=(40, 2))
    item[:, 1] = rng.normal(size=40)
    prior, precision = ItemPrior(torch.tensor(features), torch.tensor(seen), 2), np.array([1.0, 2.0])
    prior.regress(torch.tensor(item), torch.tensor(precision))
    x = features - features[seen].mean(0)
    for k in range(2):
        ridges = np.logspace(-1, 5, 61)
        covariances = [x[seen] @ x[seen].T / ridge + np.eye(30) / precision[k] for ridge in ridges]
        y = item[seen, k]
        evidence = [-0.5 * (y @ np.linalg.solve(c, y) + np.linalg.slogdet(c)[1]) for c in covariances]
        ridge = ridges[np.argmax(evidence)]
        assert float(prior.ridge[k]) == pytest.approx(ridge)
        inner = np.linalg.inv(precision[k] * x[seen].T @ x[seen] + ridge * np.eye(5))
        np.testing.assert_allclose(prior.mean[:, k].numpy(), x @ inner @ x[seen].T @ y * precision[k], atol=1e-10)
        np.testing.assert_allclose(prior.spread[:, k].numpy(), np.einsum("na,ab,nb->n", x, inner, x), atol=1e-10)
    assert prior.ridge[1] > 5 * prior.ridge[0]  # what is noise is shrunk


def test_turning_puts_what_text_explains_into_columns_of_its_own():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 3))
    straight = np.column_stack([features @ [2.0, 0.0, 1.0], rng.normal(size=200), rng.normal(size=200)])
    mixed = straight @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    prior = ItemPrior(torch.tensor(features), torch.ones(200, dtype=torch.bool), 3)
    rotation = prior.turn(torch.tensor(mixed))
    assert rotation is not None
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64))
    turned = mixed @ rotation.numpy()
    assert abs(np.corrcoef(turned[:, 0], straight[:, 0])[0, 1]) > 0.99
    assert prior.turn(torch.tensor(turned)) is None or np.allclose(
        abs(prior.turn(torch.tensor(turned)).numpy()).max(0), 1, atol=1e-6
    )


def test_text_predicts_unseen_items_where_it_says_what_they_are():
    dataset = make_synthetic(n_users=200, n_items=150, density=0.5, rank=2, seed=3, factor_std=1.0, noise=0.3)
    split = split_dataset(dataset, Protocol(state="both-cold", k_max=8), 0)
    source = MetaTrainSet(split, dataset.scale)
    ctx = Context(CPU, split.catalog, dataset.scale, Path("."))
    means = pd.Series(dataset.table.rating).groupby(dataset.table.item).mean().reindex(range(150)).to_numpy()
    error = {}
    for name in ("text", "none"):
        learner = Vectors(HybridGPConfig(**SMALL, item_features=name))
        learner.prepare(ctx)
        learner.vectors[:, 0] = torch.tensor(means - means.mean()) * 3
        learner.meta_fit(source, ctx)
        drawn = source.validation_episodes(0, 50, n_users=2, k_shot=5, n_query=5)
        predictor = learner.adapt_batch(drawn.support, ctx)
        predicted = predictor.predict(drawn.query.episode, drawn.query.user, drawn.query.item)
        error[name] = float((predicted - drawn.answers.rating).square().mean().sqrt())
    assert error["text"] < 0.9 * error["none"]


def test_its_intervals_cover_what_they_promise_of_meta_validation():
    learner, _, source, ctx = fitted_on("user-cold")
    learner.stretch = 1.0
    from fewrec.learners.validation import Validation

    validation = Validation(source, (1, 5, 10, 20), 10)
    stretch, users = learner._stretch(validation, ctx), set()
    errors = []
    for episodes in validation.episodes:
        query = episodes.query
        mean, sd = learner.adapt_batch(episodes.support, ctx).distribution(query.episode, query.user, query.item)
        errors += ((episodes.answers.rating - mean) / sd).abs().tolist()
        users |= set(episodes.answers.table_user.tolist())
    own = (stretch * (len(users) + 100) - 100) / len(users)
    assert (np.array(errors) < 1.6449 * own).mean() == pytest.approx(0.9, abs=0.01)


def test_a_catalog_of_other_texts_is_refused():
    learner, _, source, ctx = fitted_on("user-cold")
    other = make_synthetic(n_users=20, n_items=10, density=1.0, seed=5)
    with pytest.raises(NotApplicable, match="own item texts"):
        learner.meta_fit(source, replace(ctx, catalog=other.catalog))


def test_sums_of_symmetric_matrices_are_whole():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 4, 4))
    table = torch.tensor(table + table.transpose(0, 2, 1))
    sums, of_row = GroupSums(torch.tensor([0, 2, 2, 0]), 3), torch.tensor([1, 5, 5, 2])
    torch.testing.assert_close(symmetric_sums(sums, table, of_row), sums(table, of_row))


class TestConformance(LearnerConformance):
    learner = Vectors
    config = SMALL
    rounding = 1e-9


class TestHybridGPKeepsTheContract(LearnerConformance):
    learner = HybridGP

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = SMALL | {"backbone": tiny_bert, "precision": "float32"}


def test_text_is_that_of_the_language_model_random_vectors_or_nothing(tiny_bert, text_split, text_ctx):
    learner = HybridGP(HybridGPConfig(backbone=tiny_bert, **SMALL))
    learner.prepare(text_ctx)
    features = {}
    for name in ("text", "random", "none"):
        learner.config = learner.config.model_copy(update={"item_features": name})
        features[name] = learner.item_features(text_ctx, text_ctx.generator(0))
    everything = learner.features.frozen({}, torch.arange(len(text_ctx.catalog)))
    torch.testing.assert_close(features["text"], everything.double())
    assert features["random"].shape == everything.shape and features["none"] is None
    assert float(features["random"].square().sum(1).mean()) == pytest.approx(1, abs=0.2)
