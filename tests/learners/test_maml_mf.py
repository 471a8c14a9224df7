"""MAML over MF: meta-gradients and adaptation against plain loops, on local tables against whole ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.adaptation import Tasks, local_table
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.maml_mf import MAMLMF, MAMLMFConfig

PRECISE = {"dtype": "float64", "rank": 3, "inner_lr": 0.1, "inner_steps": 4, "inner_prior": 2.0, "factor_scale": 1.0}


def setting(**synthetic):
    arguments = {"n_users": 80, "n_items": 40, "density": 0.7, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def started(source, ctx, **options) -> MAMLMF:
    """Return a learner at its start, with a user vector that is not zero so that every derivative counts."""
    learner = MAMLMF(MAMLMFConfig(**(PRECISE | options)))
    learner.params = learner.initial_params(source, ctx, ctx.generator(0))
    learner.params["user_vector"] = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    return learner


def predict_row(params, item):
    return params["user_bias"] + params["item_bias"][item] + params["item_factor"][item] @ params["user_vector"]


def plain_meta_gradient(learner, episodes, shots, config):
    """Return d meta-loss / d params by one autograd graph over whole tables, task after task."""
    params = {name: value.clone().requires_grad_() for name, value in learner.params.items()}
    names = list(params) if config.adapts == "all" else ["user_bias", "user_vector"]
    support, total, count = episodes.support, 0.0, 0
    pairs = [(e, u) for e in range(len(support)) for u in range(int(support.n_users[e]))]
    for task, (e, u) in enumerate(pairs):
        rows = ((support.episode == e) & (support.user == u)).nonzero().squeeze(1)[: shots[task]]
        fast = dict(params)
        for _ in range(config.inner_steps):
            error = predict_row(fast, support.item[rows]) - support.rating[rows]
            loss = error.square().sum() / (len(rows) + config.inner_prior)
            gradients = torch.autograd.grad(loss, [fast[n] for n in names], create_graph=not config.first_order)
            fast = fast | {n: fast[n] - config.inner_lr * g for n, g in zip(names, gradients, strict=True)}
        asked = (episodes.query.episode == e) & (episodes.query.user == u)
        error = predict_row(fast, episodes.query.item[asked]) - episodes.answers.rating[asked]
        total, count = total + error.square().sum(), count + int(asked.sum())
    loss = total / count
    return loss, dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


@pytest.mark.parametrize("adapts", ["user", "all"])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_a_plain_loop(adapts, first_order):
    source, ctx = setting()
    learner = started(source, ctx, adapts=adapts, first_order=first_order)
    episodes = source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6)
    shots = [1 + task % 5 for task in range(12)]
    expected_loss, expected = plain_meta_gradient(learner, episodes, shots, learner.config)
    tasks = Tasks.of_episodes(episodes, ctx.device, torch.float64)
    tasks = tasks.with_support_mask((torch.arange(5) < torch.tensor(shots).unsqueeze(1)).double())
    params = {name: value.clone().requires_grad_() for name, value in learner.params.items()}
    loss = learner.meta_loss(params, tasks)
    loss.backward()
    torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-12)
    for name, value in params.items():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-10)


def test_first_and_second_order_gradients_differ():
    source, ctx = setting()
    tasks = Tasks.of_episodes(source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6), ctx.device, torch.float64)
    gradients = []
    for first_order in (False, True):
        learner = started(source, ctx, first_order=first_order)
        vector = learner.params["user_vector"].clone().requires_grad_()
        learner.meta_loss(learner.params | {"user_vector": vector}, tasks).backward()
        gradients.append(vector.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def numpy_adaptation(learner, item, rating):
    """Return the adapted copies of all parameters, by gradients written out by hand over whole tables."""
    config = learner.config
    a, p, b, q = (value.numpy().copy() for value in learner.params.values())
    for _ in range(config.inner_steps):
        error = a + b[item] + q[item] @ p - rating
        step = config.inner_lr * 2 * error / (len(item) + config.inner_prior)
        new_a, new_p = a - step.sum(), p - step @ q[item]
        if config.adapts == "all":
            b, q = b.copy(), q.copy()
            change = step[:, None] * p
            np.subtract.at(b, item, step)
            np.subtract.at(q, item, change)
        a, p = new_a, new_p
    return a + b + q @ p


@pytest.mark.parametrize("adapts", ["user", "all"])
def test_adaptation_is_that_of_a_plain_loop_for_every_item_and_ragged_supports(adapts):
    source, ctx = setting()
    learner = started(source, ctx, adapts=adapts)
    drawn = [source.validation_episodes(0, 1, n_users=2, k_shot=k, n_query=1).support[0] for k in (1, 3, 8)]
    drawn.append(drawn[2].joined(drawn[1]))  # some pairs twice: one row adapts to both
    predictor = learner.adapt_batch(SupportBatch.of(drawn), ctx)
    items = torch.arange(source.table.n_items)
    for e, support in enumerate(drawn):
        for user in range(2):
            mine = support.user == user
            expected = numpy_adaptation(learner, support.item[mine].numpy(), support.rating[mine].numpy())
            found = predictor.predict(torch.full_like(items, e), torch.full_like(items, user), items)
            np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_the_batch_that_a_user_came_in_changes_nothing(dtype, tolerance):
    source, ctx = setting()
    learner = started(source, ctx, dtype=dtype, adapts="all")
    learner.params = {name: value.to(getattr(torch, dtype)) for name, value in learner.params.items()}
    episodes = source.validation_episodes(0, 5, n_users=3, k_shot=4, n_query=6)
    query = episodes.query
    together = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    for e in range(5):
        rows = query.episode == e
        alone = learner.adapt(episodes.support[e], ctx).predict(query.user[rows], query.item[rows])
        assert torch.allclose(together[rows], alone, rtol=0, atol=tolerance)


@pytest.mark.parametrize("adapts", ["user", "all"])
def test_without_support_the_start_is_the_prediction(adapts):
    source, ctx = setting()
    learner = started(source, ctx, adapts=adapts)
    nothing, ratings = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    support = Support(2, nothing, nothing, ratings, None, torch.tensor([-1, -1]), seed=0)
    items = torch.arange(source.table.n_items)
    predicted = learner.adapt(support, ctx).predict(torch.ones_like(items), items)
    torch.testing.assert_close(predicted, predict_row(learner.params, items))


def test_a_local_table_holds_the_items_that_a_task_touches_and_gives_their_gradient_back():
    source, ctx = setting()
    episodes = source.train_episodes(0, 2, n_users=3, k_shot=4, n_query=5)
    tasks = Tasks.of_episodes(episodes, ctx.device, torch.float64)
    assert tasks.items.shape == (6, 9)
    flat = episodes.support.flat_user()
    for task in range(6):
        items = tasks.items[task][tasks.support.row[task]]
        assert items.tolist() == episodes.support.item[flat == task].tolist()
        row, known = tasks.local_rows(torch.full((40,), task), torch.arange(40))
        assert sorted(tasks.items[task].tolist()) == torch.arange(40)[known].tolist()
        assert (tasks.items[task][row[known]] == torch.arange(40)[known]).all()
    table = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    local_table(table, tasks.items).sum().backward()
    expected = torch.bincount(tasks.items.flatten(), minlength=40).double()
    torch.testing.assert_close(table.grad, expected.unsqueeze(1).expand(40, 3))


def error_of(learner, episodes, ctx) -> float:
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted.double() - episodes.answers.rating).square().mean().sqrt())


@pytest.fixture(scope="module")
def low_rank():
    source, ctx = setting(n_users=250, factor_std=1.0, noise=0.3)
    return source, ctx, source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)


def test_it_beats_the_bias_model_where_ratings_have_low_rank(low_rank):
    source, ctx, episodes = low_rank
    bias, learner = Bias(), MAMLMF(MAMLMFConfig(meta_steps=50))
    for each in (bias, learner):
        each.meta_fit(source, ctx)
    assert error_of(learner, episodes, ctx) < 0.9 * error_of(bias, episodes, ctx)


def test_meta_training_alone_finds_the_factors_from_a_random_start(low_rank):
    source, ctx, episodes = low_rank
    options = {"pretrain_sweeps": 0, "factor_scale": 0.3, "meta_lr": 0.02, "proximal": 0.0, "patience": 100, "rank": 4}
    errors = []
    for steps in (0, 200):
        learner = MAMLMF(MAMLMFConfig(meta_steps=steps, meta_batch=100, **options))
        learner.meta_fit(source, ctx)
        errors.append(error_of(learner, episodes, ctx))
    assert errors[1] < 0.9 * errors[0]


def test_meta_fitting_is_never_worse_on_meta_validation_than_its_start():
    source, ctx = setting()
    scores = []
    seen = replace(ctx, record=lambda step, scalars: scores.append(scalars["validation_rmse"]))
    learner = MAMLMF(MAMLMFConfig(meta_lr=0.5, meta_steps=30, evaluate_every=10, proximal=0.0))
    learner.meta_fit(source, seen)
    start = learner.initial_params(source, ctx, ctx.generator(source.seed))
    assert len(scores) == 3 and min(scores) > 0
    assert all(torch.equal(learner.params[name], value) for name, value in start.items())


def test_the_state_restores_every_prediction(low_rank):
    source, ctx, episodes = low_rank
    learner, other = MAMLMF(MAMLMFConfig(meta_steps=3)), MAMLMF(MAMLMFConfig(meta_steps=3))
    learner.meta_fit(source, ctx)
    other.load_state(*learner.state(), ctx)
    query = episodes.query
    first, second = (
        each.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        for each in (learner, other)
    )
    assert torch.equal(first, second)
