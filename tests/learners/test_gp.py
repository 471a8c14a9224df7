"""The posterior against dense Gaussian-process conditioning, EM against its own bound, and both on known ranks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import RatingTable
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.effects import KnownUsers
from fewrec.learners.gp import GP, MODEL, GPConfig, GPPredictor, VariationalEM
from fewrec.learners.mf_foldin import MFFoldIn
from fewrec.learners.ridge import GroupSums
from fewrec.learners.validation import Validation
from fewrec.testing import LearnerConformance

SMALL = {"rank": 3, "sweeps": 6}


def setting(state: str, seed: int = 1, **synthetic):
    arguments = {"n_users": 80, "n_items": 50, "density": 0.6, "rank": 2, "seed": seed} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    source = MetaTrainSet(split, dataset.scale)
    return split, source, Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


@pytest.fixture(scope="module", params=["user-cold", "both-cold", "warm"])
def fitted(request):
    split, source, ctx = setting(request.param)
    learner = GP(GPConfig(**SMALL, selection=0.5))
    learner.meta_fit(source, ctx)
    return learner, split, source, ctx


def known_ratings(support, user, source) -> tuple[np.ndarray, np.ndarray]:
    mine = (support.user == user).numpy()
    item, rating = support.item.numpy()[mine], support.rating.numpy()[mine]
    if support.meta_user[user] >= 0:
        rows = source.table.user == int(support.meta_user[user])
        item = np.concatenate([item, source.table.item[rows]])
        rating = np.concatenate([rating, source.table.rating[rows]])
    return item, rating


def dense_gp(model, item, rating, selection) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of every item's rating: function space, with a K x K solve."""
    mean, x, precision, noise, tilt, tilt_mean, spread = (model[name].numpy() for name in MODEL)
    before = np.linalg.inv(precision + selection * len(item) * spread)
    mean = mean + x @ before @ (selection * (tilt[item] - tilt_mean).sum(0))
    covariance = x @ before @ x.T
    solve = np.linalg.inv(covariance[np.ix_(item, item)] + noise * np.eye(len(item)))
    posterior = covariance - covariance[:, item] @ solve @ covariance[item]
    expected = mean + covariance[:, item] @ solve @ (rating - mean[item])
    if selection:
        given = before - before @ x[item].T @ solve @ x[item] @ before
        expected = expected + np.einsum("na,ab,nb->n", x, given, tilt)
    return expected, np.sqrt(np.diag(posterior) + noise)


@pytest.mark.parametrize("selection", [0.0, 0.5])
def test_the_posterior_is_that_of_dense_conditioning_on_ragged_supports(fitted, selection):
    learner, split, source, ctx = fitted
    learner.selection = selection
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    drawn = [sampler.sample(0, 1, n_users=3, k_shot=k, n_query=2).support[0] for k in (0, 1, 2, 5, 8)]
    predictor = learner.adapt_batch(SupportBatch.of(drawn), ctx)
    items = torch.arange(len(learner.model["mean"]))
    for e, support in enumerate(drawn):
        for user in range(3):
            item, rating = known_ratings(support, user, source)
            wanted_mean, wanted_sd = dense_gp(learner.model, item, rating, selection)
            mean, sd = predictor.distribution(torch.full_like(items, e), torch.full_like(items, user), items)
            np.testing.assert_allclose(mean.numpy(), wanted_mean, rtol=0, atol=1e-8)
            np.testing.assert_allclose(sd.numpy(), wanted_sd, rtol=0, atol=1e-8)


def test_without_evidence_from_the_choice_it_is_scikit_learns_gaussian_process(fitted):
    learner, split, source, ctx = fitted
    learner.selection = 0.0
    support = EpisodeSampler(split.pools["test"], 0, "test", k_max=8).sample(0, 1, n_users=1, k_shot=8, n_query=2)
    support = support.support[0]
    item, rating = known_ratings(support, 0, source)
    model = {name: tensor.numpy() for name, tensor in learner.model.items()}
    features = model["loading"] @ np.linalg.cholesky(np.linalg.inv(model["precision"]))
    noise = float(model["noise"][0])
    peer = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=noise, optimizer=None)
    peer.fit(features[item], rating - model["mean"][item])
    mean, sd = peer.predict(features, return_std=True)
    items = torch.arange(len(features))
    found_mean, found_sd = learner.adapt(support, ctx).distribution(torch.zeros_like(items), items)
    np.testing.assert_allclose(found_mean.numpy(), mean + model["mean"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found_sd.numpy(), np.sqrt(sd**2 + noise), rtol=0, atol=1e-8)


def test_a_ratings_weight_is_how_far_it_moves_the_prediction():
    split, source, ctx = setting("user-cold")
    learner = GP(GPConfig(**SMALL))
    learner.meta_fit(source, ctx)
    support = EpisodeSampler(split.pools["test"], 0, "test", k_max=8).sample(0, 1, n_users=2, k_shot=4, n_query=2)
    support = support.support[0]
    weight = learner.adapt(support, ctx).explain(1, 7)
    where = torch.tensor([1]), torch.tensor([7])
    before = learner.adapt(support, ctx).predict(*where)
    for row in range(len(support.item)):
        moved = support.rating.clone()
        moved[row] += 1.0
        changed = type(support)(**{**support.__dict__, "rating": moved})
        torch.testing.assert_close(learner.adapt(changed, ctx).predict(*where) - before, weight[row : row + 1])
    assert (weight[support.user == 0] == 0).all() and (weight[support.user == 1] != 0).all()


def targets_of(learner, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some items, one of them twice, and weights."""
    rng = np.random.default_rng(seed)
    items = np.append(rng.permutation(len(learner.model["mean"]))[:20], 3)
    return torch.from_numpy(items), torch.from_numpy(rng.random(len(items)) * 3)


@pytest.mark.parametrize("selection", [0.0, 0.5])
def test_information_is_what_an_update_with_that_rating_takes_from_the_variance_whatever_the_rating(fitted, selection):
    learner, split, _, ctx = fitted
    learner.selection = selection
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=8)
    drawn = SupportBatch.of(
        [sampler.sample(e, 1, n_users=2, k_shot=k, n_query=2).support[0] for e, k in enumerate((0, 1, 6))]
    )
    targets, weights = targets_of(learner)

    def variance(predictor, e, user):
        of = torch.full_like(targets, e), torch.full_like(targets, user), targets
        deviation = predictor.distribution(*of)[1]
        return float((deviation.square() * weights).sum() / weights.sum())

    predictor = learner.adapt_batch(drawn, ctx)
    asked = [(e, user, item) for e in range(3) for user in range(2) for item in (0, 7, 7, 31, 49)]
    found = predictor.information(*map(torch.tensor, zip(*asked, strict=True)), targets, weights)
    assert found.shape == (len(asked),) and found.dtype == torch.float64 and (found > 0).all()
    for rating in (1.0, 5.0):
        for (e, user, item), fall in zip(asked, found.tolist(), strict=True):
            more = [replace(s, user=s.user[:0], item=s.item[:0], rating=s.rating[:0]) for s in drawn]
            row = {
                "user": torch.tensor([user]),
                "item": torch.tensor([item]),
                "rating": torch.tensor([rating]).double(),
            }
            more[e] = replace(more[e], **row)
            after = predictor.update(SupportBatch.of(more), ctx)
            assert abs(variance(predictor, e, user) - variance(after, e, user) - fall) < 1e-10


def test_without_evidence_from_the_choice_information_is_that_of_dense_conditioning_on_one_rating_more(fitted):
    learner, split, source, ctx = fitted
    learner.selection = 0.0
    support = EpisodeSampler(split.pools["test"], 0, "test", k_max=8).sample(0, 1, n_users=1, k_shot=5, n_query=2)
    support = support.support[0]
    item, rating = known_ratings(support, 0, source)
    targets, weights = targets_of(learner)
    candidates = torch.tensor([1, 12, 30, 48])
    found = learner.adapt(support, ctx).information(torch.zeros_like(candidates), candidates, targets, weights)
    before = dense_gp(learner.model, item, rating, 0.0)[1][targets] ** 2
    for candidate, fall in zip(candidates.tolist(), found.tolist(), strict=True):
        after = dense_gp(learner.model, np.append(item, candidate), np.append(rating, 3.0), 0.0)[1][targets] ** 2
        assert abs(np.average(before - after, weights=weights) - fall) < 1e-10


def test_where_the_noise_is_larger_a_rating_tells_less(fitted, monkeypatch):
    learner, split, _, ctx = fitted
    support = EpisodeSampler(split.pools["test"], 0, "test", k_max=8).sample(0, 1, n_users=1, k_shot=2, n_query=2)
    predictor, items = learner.adapt(support.support[0], ctx), torch.tensor([4, 9])
    asked = torch.zeros_like(items), items, *targets_of(learner)
    before = predictor.information(*asked)
    monkeypatch.setattr(GPPredictor, "noise_of", lambda self, item: self.model["noise"] * (1 + 9 * (item == 9)))
    after = predictor.information(*asked)
    assert after[0] == before[0] and after[1] < before[1]


def bound(em: VariationalEM, of_items: bool = True) -> float:
    """Return the lower bound of the log marginal likelihood, one rating, one user and one item at a time."""
    total = 0.0
    y, y_cov, c, c_cov = (t.numpy() for t in (em.user, em.user_cov, em.item, em.item_cov))
    for u, i, r in zip(em.user_of.tolist(), em.item_of.tolist(), em.rating.numpy() - em.mu, strict=True):
        # r - b - m - w . z, squared: mean of the error, and the variances of its independent parts
        error = r - y[u, 0] - c[i, 0] - c[i, 1:] @ y[u, 1:]
        of_user, of_item = np.r_[1.0, c[i, 1:]], np.r_[1.0, y[u, 1:]]
        spread = of_user @ y_cov[u] @ of_user + of_item @ c_cov[i] @ of_item
        spread += np.trace(y_cov[u, 1:, 1:] @ c_cov[i, 1:, 1:])
        total += norm.logpdf(error, scale=np.sqrt(em.noise)) - spread / (2 * em.noise)
    prior = np.linalg.inv(em.prior.numpy()), np.diag(em.item_prior.numpy())
    seen = em.seen.nonzero().squeeze(1).tolist() if of_items else []
    for mean, cov, precision in [(y[u], y_cov[u], prior[0]) for u in range(len(y))] + [
        (c[i], c_cov[i], prior[1]) for i in seen
    ]:
        ratio = precision @ cov
        total -= 0.5 * (np.trace(ratio) + mean @ precision @ mean - len(mean) - np.linalg.slogdet(ratio)[1])
    return total


def test_no_step_of_em_lowers_the_bound_of_the_marginal_likelihood():
    _, source, ctx = setting("both-cold", n_users=30, n_items=20)
    em = VariationalEM(source.table, 2, ctx.generator(0), torch.device("cpu"))
    em.sweep()
    values = [bound(em)]
    for _ in range(6):
        for step in (em.users, em.items, em.scales):
            step()
            values.append(bound(em))
    assert all(after > before - 1e-8 for before, after in zip(values, values[1:], strict=False))
    assert values[-1] > values[0] + 1


def test_where_the_items_are_known_em_conditions_exactly_and_its_bound_is_the_marginal_likelihood():
    _, source, ctx = setting("user-cold", n_users=30, n_items=20)
    em = VariationalEM(source.table, 2, ctx.generator(0), torch.device("cpu"))
    em.sweep()
    em.item_cov = torch.zeros_like(em.item_cov)
    em.users()
    prior, item, evidence = em.prior.numpy(), em.item.numpy(), 0.0
    for u in range(source.table.n_users):
        rows = source.table.user == u
        at = source.table.item[rows]
        x = np.column_stack([np.ones(len(at)), item[at, 1:]])
        covariance, residual = x @ prior @ x.T + em.noise * np.eye(len(at)), source.table.rating[rows] - em.mu
        residual = residual - item[at, 0]
        gain = prior @ x.T @ np.linalg.inv(covariance)
        wanted = gain @ residual
        evidence += multivariate_normal.logpdf(residual, cov=covariance)
        np.testing.assert_allclose(em.user[u].numpy(), wanted, rtol=0, atol=1e-8)
        np.testing.assert_allclose(em.user_cov[u].numpy(), prior - gain @ x @ prior, rtol=0, atol=1e-8)
    np.testing.assert_allclose(bound(em, of_items=False), evidence, rtol=1e-10)


def drawn_from_the_model(n_users: int, n_items: int, seed: int):
    """Return a model's tensors, and ratings drawn from it: (user, item, rating) of every pair."""
    rng = np.random.default_rng(seed)
    loading = np.column_stack([np.ones(n_items), rng.normal(size=(n_items, 2))])
    root = rng.normal(size=(3, 3)) * 0.5
    mean, y = rng.normal(3.5, 0.5, n_items), rng.normal(size=(n_users, 3)) @ root.T
    rating = mean + y @ loading.T + rng.normal(0, 0.6, (n_users, n_items))
    zeros = np.zeros((n_items, 3)), np.zeros(3), np.zeros((3, 3))
    values = (mean, loading, np.linalg.inv(root @ root.T), np.array([0.36]), *zeros)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in zip(MODEL, values, strict=True)}, rating


@pytest.mark.parametrize("k_shot", [0, 1, 5, 15])
def test_its_intervals_cover_what_they_promise_on_data_drawn_from_the_model(k_shot):
    model, rating = drawn_from_the_model(2000, 25, seed=0)
    learner = GP(GPConfig(rank=2, selection=0.0))
    nobody = np.zeros(0, np.int64)
    learner.known = KnownUsers.of(RatingTable(nobody, nobody, np.zeros(0), None, 0, 25))
    learner.model, learner.selection = model, 0.0
    user = torch.arange(2000).repeat_interleave(k_shot)
    item = torch.arange(k_shot).repeat(2000)
    count = torch.tensor([2000])
    supports = SupportBatch(
        episode=torch.zeros_like(user),
        user=user,
        item=item,
        rating=torch.from_numpy(rating)[user, item],
        timestamp=None,
        offsets=torch.tensor([0, len(user)]),
        n_users=count,
        meta_user=torch.full((2000,), -1),
        seeds=torch.zeros(1, dtype=torch.int64),
    )
    users, asked = torch.arange(2000), torch.full((2000,), 20)
    mean, sd = learner.adapt_batch(supports, None).distribution(torch.zeros_like(users), users, asked)
    error = rating[:, 20] - mean.numpy()
    assert abs((np.abs(error) < 1.6449 * sd.numpy()).mean() - 0.9) < 0.025
    assert abs((error**2).mean() / (sd.numpy() ** 2).mean() - 1) < 0.1


def rmse(learner, source, ctx, k_shot) -> float:
    learner.meta_fit(source, ctx)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=k_shot, n_query=8)
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted - episodes.answers.rating).square().mean().sqrt())


def test_it_beats_the_bias_model_by_far_and_plain_factorization_where_ratings_have_low_rank():
    _, source, ctx = setting("user-cold", n_users=200, factor_std=1.0, noise=0.3)
    error = {learner.name: rmse(learner, source, ctx, 8) for learner in (Bias(), MFFoldIn(), GP())}
    assert error["gp"] < 0.75 * error["bias"] and error["gp"] < error["mf-foldin"]


def test_superfluous_factors_fade():
    _, source, ctx = setting("user-cold", n_users=200, factor_std=1.0, noise=0.3)
    few, many = (rmse(GP(GPConfig(rank=rank)), source, ctx, 8) for rank in (2, 16))
    assert many < few * 1.03


def test_the_choice_of_items_is_evidence_where_users_rate_what_they_like():
    _, source, ctx = setting("user-cold", n_users=400, n_items=120, density=1.0, factor_std=1.0)
    keep = np.random.default_rng(0).random(len(source.table)) < 0.4 / (1 + np.exp(-3 * (source.table.rating - 4)))
    source.table = source.table.select(keep)
    learner = GP(GPConfig(**SMALL, selection=1.0))
    learner.meta_fit(source, ctx)
    table, empty = source.table, torch.zeros(0, dtype=torch.int64)
    support = SupportBatch(
        episode=empty, user=empty, item=empty, rating=empty.double(), timestamp=None, offsets=torch.zeros(2).long(),
        n_users=torch.tensor([1]), meta_user=torch.tensor([-1]), seeds=torch.tensor([0]),
    )  # fmt: skip
    items = torch.tensor(table.item)
    error = {}
    for learner.selection in (0.0, 1.0):
        at = torch.zeros_like(items)
        predicted = learner.adapt_batch(support, ctx).predict(at, at, items).numpy()
        error[learner.selection] = abs((table.rating - predicted).mean())
    assert error[1.0] < 0.5 * error[0.0]


def test_an_unseen_item_has_the_rating_weighted_mean_and_an_offset_alone():
    _, source, ctx = setting("both-cold")
    learner = GP(GPConfig(**SMALL))
    learner.meta_fit(source, ctx)
    unseen, model = torch.from_numpy(~source.catalog.seen), learner.model
    assert unseen.any() and (model["loading"][unseen, 1:] == 0).all() and (model["tilt"][unseen] == 0).all()
    assert torch.allclose(model["mean"][unseen], model["mean"][torch.tensor(source.table.item)].mean())


def test_group_sums_agree_with_a_loop():
    rng = np.random.default_rng(0)
    group, of_row = rng.integers(0, 30, 200), rng.integers(0, 15, 200)
    group[group == 7] = 8  # an empty group
    table, weight = rng.normal(size=(15, 4)), rng.normal(size=200)
    sums = GroupSums(torch.from_numpy(group), 30)
    for w in (None, weight):
        found = sums(torch.from_numpy(table), torch.from_numpy(of_row), None if w is None else torch.from_numpy(w))
        rows = table[of_row] if w is None else table[of_row] * w[:, None]
        np.testing.assert_allclose(found.numpy(), [rows[group == g].sum(0) for g in range(30)], atol=1e-12)


def test_meta_fitting_logs_its_score_and_keeps_the_best_sweep_and_selection():
    _, source, ctx = setting("user-cold")
    scores = []
    seen = Context(
        ctx.device, ctx.catalog, ctx.scale, ctx.cache, record=lambda step, s: scores.append(s["validation_rmse"])
    )
    learner = GP(GPConfig(rank=4, sweeps=12, patience=2))
    learner.meta_fit(source, seen)
    validation, chosen = Validation(source, (1, 5, 10), 10), learner.selection
    grid = []
    for learner.selection in (0.0, 0.25, 0.5, 0.75, 1.0):
        grid.append(validation.rmse(learner, ctx))
    assert grid[2] == min(scores) and grid[int(chosen * 4)] == min(grid)


class TestConformance(LearnerConformance):
    learner = GP
    config = SMALL
    rounding = 1e-9
