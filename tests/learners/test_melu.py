"""MeLU: its meta-gradient against a plain loop over tasks, and what it learns from ratings of known rank."""

import importlib.util
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
from fewrec.learners.melu import MeLU
from fewrec.testing import LearnerConformance

PLAIN = Path(__file__).parents[2] / "benchmarks" / "perf" / "plain_melu.py"
SMALL = {"rank": 3, "user_dim": 2, "hidden": (6, 5), "inner_prior": 2.0}


def setting(**synthetic):
    arguments = {"n_users": 80, "n_items": 40, "density": 0.7, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def plain():
    spec = importlib.util.spec_from_file_location("plain_melu", PLAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(source, ctx, **options):
    """Return a learner in float64 at its start, with an output that is not zero so that every derivative counts."""
    learner = MeLU(MeLU.Config(**(SMALL | {"dtype": "float64", "meta_steps": 0} | options)))
    learner.meta_fit(source, ctx)
    with torch.no_grad():
        for value in learner.module.adapted.parameters():
            value += 0.4 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3), dtype=value.dtype)
    learner.module.requires_grad_(True)
    return learner


def ragged_tasks(source, ctx) -> Tasks:
    tasks = Tasks.of_episodes(source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6), ctx.device, torch.float64)
    return tasks.with_support_mask((torch.arange(5) < (torch.arange(12) % 6).unsqueeze(1)).double())  # K = 0 to 5


@pytest.mark.parametrize("options", [{"inner_steps": 3}, {"first_order": True}, {"split": 5}, {"hidden": (4,)}])
def test_the_meta_gradient_is_that_of_a_plain_loop_over_tasks(options):
    source, ctx = setting()
    learner, tasks = started(source, ctx, **options), ragged_tasks(source, ctx)
    objective, expected = plain().meta_step(learner, tasks)
    assert abs(learner.meta_gradient(tasks) - objective) < 1e-12
    for name, value in learner.module.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-10)
        assert value.grad.abs().max() > 1e-6


def test_the_second_order_meta_gradient_differs_from_the_first_order_one():
    source, ctx = setting()
    gradients = []
    for first_order in (False, True):
        learner = started(source, ctx, first_order=first_order)
        learner.meta_gradient(ragged_tasks(source, ctx))
        gradients.append(learner.module.items.id.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


def test_one_step_of_adapting_is_backpropagation_written_out_by_hand():
    source, ctx = setting()
    learner = started(source, ctx, hidden=(6,), inner_steps=1)
    support = source.validation_episodes(0, 1, n_users=2, k_shot=5, n_query=1).support[0]
    items, module = torch.arange(source.table.n_items), learner.module
    with torch.no_grad():
        content = module.items(items).numpy()
        people = module.user(support.user_features.double()).numpy()
    layer, output = module.adapted.decision.layers[0], module.adapted.decision.output
    w, c, v, b = (x.detach().numpy().copy() for x in (layer.weight, layer.bias, output.weight[0], output.bias))
    base, rate = module.items.base.numpy(), learner.config.inner_lr
    predictor = learner.adapt(support, ctx)
    for user in range(2):
        mine = (support.user == user).numpy()
        item, rating = support.item.numpy()[mine], support.rating.numpy()[mine]
        x = np.column_stack([content, np.tile(people[user], (len(items), 1))])
        before = x[item] @ w.T + c
        hidden = np.maximum(before, 0)
        slope = 2 * (base[item] + hidden @ v + b - rating) / (len(item) + learner.config.inner_prior)
        back = np.outer(slope, v) * (before > 0)
        new_w, new_c = w - rate * back.T @ x[item], c - rate * back.sum(0)
        new_v, new_b = v - rate * slope @ hidden, b - rate * slope.sum()
        expected = base + np.maximum(x @ new_w.T + new_c, 0) @ new_v + new_b
        found = predictor.predict(torch.full_like(items, user), items)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


def test_embeddings_are_the_same_for_all_users_and_only_the_decision_adapts():
    source, ctx = setting()
    learner = started(source, ctx)
    adapted = learner.adapt_tasks(ragged_tasks(source, ctx))
    assert set(adapted) == {name for name, _ in learner.module.adapted.named_parameters()}
    moved = {name: (value[5] - value[0]).abs().max() > 1e-6 for name, value in adapted.items()}  # K = 5 and K = 0
    assert all(moved.values())


def test_before_meta_training_and_without_support_it_predicts_the_items_effects():
    source, ctx = setting()
    learner = MeLU(MeLU.Config(meta_steps=0))
    learner.meta_fit(source, ctx)
    nothing, ratings = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    features = torch.zeros(1, source.n_user_attributes)
    support = Support(1, nothing, nothing, ratings, None, torch.tensor([-1]), seed=0, user_features=features)
    items = torch.arange(source.table.n_items)
    predicted = learner.adapt(support, ctx).predict(torch.zeros_like(items), items)
    torch.testing.assert_close(predicted, learner.module.items.base)


def error_of(learner, episodes, ctx) -> float:
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted.double() - episodes.answers.rating).square().mean().sqrt())


@pytest.fixture(scope="module")
def low_rank():
    source, ctx = setting(n_users=250, factor_std=1.0, noise=0.3)
    bias, learner = Bias(), MeLU(MeLU.Config(meta_steps=100, meta_batch=100))
    for each in (bias, learner):
        each.meta_fit(source, ctx)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)
    return source, ctx, episodes, error_of(bias, episodes, ctx), learner


def test_it_beats_the_bias_model_where_ratings_have_low_rank(low_rank):
    _, ctx, episodes, error_of_bias, learner = low_rank
    assert error_of(learner, episodes, ctx) < 0.85 * error_of_bias


def test_meta_training_is_better_than_the_start(low_rank):
    source, ctx, episodes, _, learner = low_rank
    untrained = MeLU(MeLU.Config(meta_steps=0))
    untrained.meta_fit(source, ctx)
    assert error_of(learner, episodes, ctx) < 0.95 * error_of(untrained, episodes, ctx)


def test_the_state_restores_every_prediction(low_rank):
    source, ctx, episodes, _, learner = low_rank
    other = MeLU(learner.config)
    other.load_state(*learner.state(), ctx)
    query, batch = episodes.query, SupportBatch.of([episodes.support[e] for e in range(60)])
    first, second = (
        each.adapt_batch(batch, ctx).predict(query.episode, query.user, query.item) for each in (learner, other)
    )
    assert torch.equal(first, second)


class TestConformance(LearnerConformance):
    learner = MeLU
    config = {"meta_steps": 6, "meta_batch": 10, "evaluate_every": 3, "max_shots": 4, "n_query": 4, "hidden": (8, 4)}
