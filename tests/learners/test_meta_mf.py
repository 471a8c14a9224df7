"""MAML and its relatives over MF: update rules against plain loops, and all of them on ratings of known rank."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.meta_mf import ANILMF, FOMAMLMF, MAMLMF, MetaSGDMF, ReptileMF

FAMILY = [MAMLMF, FOMAMLMF, ANILMF, ReptileMF, MetaSGDMF]
PRECISE = {"dtype": "float64", "rank": 3, "inner_lr": 0.1, "inner_steps": 4, "inner_prior": 2.0, "factor_scale": 1.0}


def setting(**synthetic):
    arguments = {"n_users": 80, "n_items": 40, "density": 0.7, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def started(cls, source, ctx, **options):
    """Return a learner at its start, with a user vector that is not zero so that every derivative counts."""
    learner = cls(cls.Config(**(PRECISE | {"meta_steps": 0} | options)))
    learner.meta_fit(source, ctx)
    with torch.no_grad():
        learner.module.user_vector.copy_(torch.tensor([0.3, -0.2, 0.5]))
    learner.module.requires_grad_(True)
    return learner


def values(learner) -> dict[str, torch.Tensor]:
    """Return the model's four parameters, without learned rates."""
    return {name: p.detach() for name, p in learner.module.named_parameters() if not name.startswith("rate.")}


def predict_row(params, item):
    return params["user_bias"] + params["item_bias"][item] + params["item_factor"][item] @ params["user_vector"]


def plain_meta_gradient(learner, tasks):
    """Return (loss, gradient of every parameter) by one autograd graph over whole tables, task after task."""
    config, total = learner.config, 0.0
    leaves = {name: value.detach().clone().requires_grad_() for name, value in learner.module.named_parameters()}
    rate = {n: leaves.get(f"rate.{n}", torch.tensor(config.inner_lr, dtype=torch.float64)) for n in learner.adapts}
    for task in range(len(tasks)):
        real = tasks.support.mask[task] > 0
        item, rating = tasks.support.item[task][real], tasks.support.rating[task][real]
        fast = dict(leaves)
        for _ in range(config.inner_steps):
            loss = (predict_row(fast, item) - rating).square().sum() / (len(item) + config.inner_prior)
            wanted = [fast[name] for name in learner.adapts]
            gradients = torch.autograd.grad(loss, wanted, create_graph=not learner.first_order)
            fast |= {n: fast[n] - rate[n] * g for n, g in zip(learner.adapts, gradients, strict=True)}
        total = total + (predict_row(fast, tasks.query.item[task]) - tasks.query.rating[task]).square().sum()
    loss = total / tasks.query.mask.sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return float(loss.detach()), dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("cls", [MAMLMF, FOMAMLMF, ANILMF, MetaSGDMF])
def test_the_meta_gradient_is_that_of_a_plain_loop(cls):
    source, ctx = setting()
    learner = started(cls, source, ctx)
    episodes = source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6)
    tasks = Tasks.of_episodes(episodes, ctx.device, torch.float64)
    tasks = tasks.with_support_mask((torch.arange(5) < (1 + torch.arange(12) % 5).unsqueeze(1)).double())
    expected_loss, expected = plain_meta_gradient(learner, tasks)
    assert abs(learner.meta_gradient(tasks) - expected_loss) < 1e-12
    for name, value in learner.module.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-10)


def test_the_members_of_the_family_have_different_meta_gradients():
    source, ctx = setting()
    tasks = Tasks.of_episodes(source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6), ctx.device, torch.float64)
    gradients = []
    for cls in FAMILY[:4]:  # as long as Meta-SGD's rates are equal, its gradient is MAML's but for the rates'
        learner = started(cls, source, ctx)
        learner.meta_gradient(tasks)
        gradients.append(learner.module.user_vector.grad)
    for one in range(4):
        for other in range(one):
            assert (gradients[one] - gradients[other]).abs().max() > 1e-4


def hand_step(params, item, rating, rate, prior, adapts):
    """Take one inner step in place by gradients written out by hand over whole tables."""
    error = predict_row(params, item) - rating
    slope = 2 * error / (len(item) + prior)
    gradient = {
        "user_bias": slope.sum(),
        "user_vector": slope @ params["item_factor"][item],
        "item_bias": torch.zeros_like(params["item_bias"]).index_add(0, item, slope),
        "item_factor": torch.zeros_like(params["item_factor"]).index_add(
            0, item, slope.unsqueeze(1) * params["user_vector"]
        ),
    }
    for name in adapts:
        params[name] = params[name] - rate * gradient[name]


def test_reptiles_gradient_is_the_mean_way_back_from_the_adapted_tasks():
    source, ctx = setting()
    learner = started(ReptileMF, source, ctx, train_steps=3, minibatch=4)
    episodes = source.train_episodes(0, 4, n_users=3, k_shot=9, n_query=1)
    tasks = Tasks.of_episodes(episodes, ctx.device, torch.float64)
    learner.generator = torch.Generator().manual_seed(5)
    learner.meta_gradient(tasks)
    generator = torch.Generator().manual_seed(5)
    chosen = torch.rand(3, 12, 9, generator=generator).argsort(2).argsort(2) < 4
    start = values(learner)
    expected = {name: torch.zeros_like(value) for name, value in start.items()}
    for task in range(12):
        fast = dict(start)
        for step in range(3):
            rows = chosen[step, task]
            item, rating = tasks.support.item[task][rows], tasks.support.rating[task][rows]
            hand_step(fast, item, rating, learner.config.inner_lr, learner.config.inner_prior, learner.adapts)
        for name in expected:
            expected[name] += (start[name] - fast[name]) / 12
    for name, value in learner.module.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("cls", FAMILY)
def test_adaptation_is_that_of_a_plain_loop_for_every_item_and_ragged_supports(cls):
    source, ctx = setting()
    learner = started(cls, source, ctx)
    drawn = [source.validation_episodes(0, 1, n_users=2, k_shot=k, n_query=1).support[0] for k in (1, 3, 8)]
    drawn.append(drawn[2].joined(drawn[1]))  # some pairs twice: one row adapts to both
    predictor = learner.adapt_batch(SupportBatch.of(drawn), ctx)
    items = torch.arange(source.table.n_items)
    for e, support in enumerate(drawn):
        for user in range(2):
            mine, params = support.user == user, values(learner)
            for _ in range(learner.config.inner_steps):
                hand_step(params, support.item[mine], support.rating[mine], 0.1, 2.0, learner.adapts)
            found = predictor.predict(torch.full_like(items, e), torch.full_like(items, user), items)
            np.testing.assert_allclose(found, predict_row(params, items), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cls", FAMILY)
def test_without_support_the_start_is_the_prediction(cls):
    source, ctx = setting()
    learner = started(cls, source, ctx)
    nothing, ratings = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    support = Support(2, nothing, nothing, ratings, None, torch.tensor([-1, -1]), seed=0)
    items = torch.arange(source.table.n_items)
    predicted = learner.adapt(support, ctx).predict(torch.ones_like(items), items)
    torch.testing.assert_close(predicted, predict_row(values(learner), items))


def error_of(learner, episodes, ctx) -> float:
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted.double() - episodes.answers.rating).square().mean().sqrt())


@pytest.fixture(scope="module")
def low_rank():
    source, ctx = setting(n_users=250, factor_std=1.0, noise=0.3)
    bias = Bias()
    bias.meta_fit(source, ctx)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)
    return source, ctx, episodes, error_of(bias, episodes, ctx)


@pytest.mark.parametrize("cls", FAMILY)
def test_it_beats_the_bias_model_where_ratings_have_low_rank(low_rank, cls):
    source, ctx, episodes, error_of_bias = low_rank
    learner = cls(cls.Config(meta_steps=50))
    learner.meta_fit(source, ctx)
    assert error_of(learner, episodes, ctx) < 0.9 * error_of_bias


@pytest.mark.parametrize("cls", FAMILY)
def test_meta_training_alone_finds_the_factors_from_a_random_start(low_rank, cls):
    source, ctx, episodes, _ = low_rank
    options = {"pretrain_sweeps": 0, "factor_scale": 0.3, "meta_lr": 0.02, "proximal": 0.0, "patience": 100, "rank": 4}
    errors = []
    for steps in (0, 200):
        learner = cls(cls.Config(meta_steps=steps, meta_batch=100, **options))
        learner.meta_fit(source, ctx)
        errors.append(error_of(learner, episodes, ctx))
    assert errors[1] < 0.9 * errors[0]


def test_learned_rates_are_learnt_for_rows_that_tasks_touch(low_rank):
    source, ctx, _, _ = low_rank
    learner = MetaSGDMF(MetaSGDMF.Config(meta_steps=25))
    learner.meta_fit(source, ctx)
    rate = learner.module.rate
    assert rate["item_factor"].shape == learner.module.item_factor.shape
    assert all((value - learner.config.inner_lr).abs().max() > 1e-3 for value in rate.values())


@pytest.mark.parametrize("cls", FAMILY)
def test_the_state_restores_every_prediction(low_rank, cls):
    source, ctx, episodes, _ = low_rank
    learner, other = (cls(cls.Config(meta_steps=3, evaluate_every=3)) for _ in range(2))
    learner.meta_fit(source, ctx)
    other.load_state(*learner.state(), ctx)
    query = episodes.query
    first, second = (
        each.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        for each in (learner, other)
    )
    assert torch.equal(first, second)
