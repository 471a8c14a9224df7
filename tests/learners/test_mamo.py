"""MAMO: meta-gradient and memories against a plain loop over tasks, reading by hand, and what it learns."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.mamo import MAMO, Memories, Recommender
from fewrec.testing import LearnerConformance

PLAIN = Path(__file__).parents[2] / "benchmarks" / "perf" / "plain_mamo.py"
SMALL = {"rank": 3, "user_dim": 2, "dim": 4, "hidden": (6, 5), "inner_prior": 2.0, "memory": 3}
MEMORIES = ("profile", "weight", "bias", "preference")


def setting(**synthetic):
    arguments = {"n_users": 80, "n_items": 40, "density": 0.7, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def plain():
    spec = importlib.util.spec_from_file_location("plain_mamo", PLAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def jolt(tensors) -> None:
    generator = torch.Generator().manual_seed(3)
    for value in tensors:
        value += 0.4 * torch.randn(value.shape, generator=generator, dtype=value.dtype)


def started(source, ctx, **options):
    """Return a learner in float64 with an output and memories that are not zero, so that every derivative counts."""
    learner = MAMO(MAMO.Config(**(SMALL | {"dtype": "float64", "meta_steps": 0} | options)))
    learner.meta_fit(source, ctx)
    jolt(learner.module.adapted.parameters())
    jolt(learner.module.memories.buffers())
    learner.module.requires_grad_(True)
    return learner


def ragged_tasks(source, ctx) -> Tasks:
    tasks = Tasks.of_episodes(source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6), ctx.device, torch.float64)
    return tasks.with_support_mask((torch.arange(5) < (torch.arange(12) % 6).unsqueeze(1)).double())  # K = 0 to 5


@pytest.mark.parametrize("options", [{"inner_steps": 3}, {"first_order": True}, {"split": 5}, {"hidden": (4,)}])
def test_meta_gradient_and_written_memories_are_those_of_a_plain_loop_over_tasks(options):
    source, ctx = setting()
    learner, tasks = started(source, ctx, **options), ragged_tasks(source, ctx)
    other = copy.deepcopy(learner)
    objective, expected = plain().meta_step(other, tasks)
    before = {name: getattr(learner.module.memories, name).clone() for name in MEMORIES}
    assert abs(learner.meta_gradient(tasks) - objective) < 1e-12
    for name, value in learner.module.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-10)
        assert value.grad.abs().max() > 1e-6
    for name in MEMORIES:
        found = getattr(learner.module.memories, name)
        torch.testing.assert_close(found, getattr(other.module.memories, name), rtol=0, atol=1e-10)
        assert (found - before[name]).abs().max() > 1e-6


def test_a_user_starts_from_what_the_slots_that_fit_the_profile_hold():
    source, ctx = setting()
    learner, tasks = started(source, ctx), ragged_tasks(source, ctx)
    network, memories, config = learner.module.adapted, learner.module.memories, learner.config
    with torch.no_grad():
        profile = learner.profiles(tasks)
        attention = memories.attend(profile, config.sharpness)
        start = learner.start(tasks, attention)
    keys, wanted = memories.profile.numpy(), profile.numpy()
    cosine = wanted @ keys.T / np.linalg.norm(keys, axis=1) / np.maximum(np.linalg.norm(wanted, axis=1), 1e-9)[:, None]
    expected = np.exp(config.sharpness * cosine)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(attention.numpy(), expected, rtol=0, atol=1e-4)  # but for the 1e-6 below the root
    for name, memory, initial, factor in (
        ("user.weight", memories.weight, network.user.weight, -config.tau),
        ("user.bias", memories.bias, network.user.bias, -config.tau),
        ("preference", memories.preference, network.preference, 1.0),
    ):
        read = np.einsum("tk,k...->t...", attention.numpy(), memory.numpy())
        np.testing.assert_allclose(start[name].detach(), initial.detach().numpy() + factor * read, atol=1e-12)
    assert all((start[name][0] == start[name][1]).all() for name in start if name.startswith(("item", "decision")))


def test_an_empty_profile_attends_to_all_slots_alike():
    memories = Memories(4, Recommender(3, 3, 2, (2,)))
    jolt(memories.buffers())
    assert torch.equal(memories.attend(torch.zeros(1, 3), 5.0), torch.full((1, 4), 0.25))


def test_writing_moves_a_slot_to_what_its_own_users_say_and_leaves_the_other_slots():
    memories = Memories(2, Recommender(3, 3, 2, (2,))).double()
    jolt(memories.buffers())
    before = memories.profile.clone()
    attention = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    said = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    memories.write({"profile": attention.mT @ said / 2}, attention.mean(0), {"profile": 0.25})
    torch.testing.assert_close(memories.profile[0], 0.75 * before[0] + 0.25 * said.mean(0))
    assert torch.equal(memories.profile[1], before[1])


def test_memories_that_hold_the_same_in_every_slot_keep_it_when_users_say_the_same():
    memories = Memories(3, Recommender(3, 3, 2, (2,))).double()
    memories.profile.fill_(2.0)
    attention = torch.full((5, 3), 1 / 3, dtype=torch.float64)
    for _ in range(50):
        sums = {"profile": attention.mT @ torch.full((5, 3), 2.0, dtype=torch.float64) / 5}
        memories.write(sums, attention.mean(0), {"profile": 0.5})
    torch.testing.assert_close(memories.profile, torch.full((3, 3), 2.0, dtype=torch.float64))


def error_of(learner, episodes, ctx) -> float:
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted.double() - episodes.answers.rating).square().mean().sqrt())


@pytest.fixture(scope="module")
def low_rank():
    source, ctx = setting(n_users=250, factor_std=1.0, noise=0.3)
    bias, learner = Bias(), MAMO(MAMO.Config(meta_steps=75, meta_batch=100))
    for each in (bias, learner):
        each.meta_fit(source, ctx)
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=8, n_query=8)
    return source, ctx, episodes, error_of(bias, episodes, ctx), learner


def test_it_beats_the_bias_model_where_ratings_have_low_rank(low_rank):
    _, ctx, episodes, error_of_bias, learner = low_rank
    assert error_of(learner, episodes, ctx) < 0.85 * error_of_bias


def test_meta_training_is_better_than_the_start_and_writes_to_the_memories(low_rank):
    source, ctx, episodes, _, learner = low_rank
    untrained = MAMO(MAMO.Config(meta_steps=0))
    untrained.meta_fit(source, ctx)
    assert error_of(learner, episodes, ctx) < 0.95 * error_of(untrained, episodes, ctx)
    assert all(getattr(learner.module.memories, name).abs().max() > 1e-4 for name in MEMORIES)


def test_memories_are_frozen_after_meta_training(low_rank):
    _, ctx, episodes, _, learner = low_rank
    before = {name: getattr(learner.module.memories, name).clone() for name in MEMORIES}
    error_of(learner, episodes, ctx)
    assert all(torch.equal(getattr(learner.module.memories, name), before[name]) for name in MEMORIES)


def test_the_state_restores_every_prediction_memories_included(low_rank):
    source, ctx, episodes, _, learner = low_rank
    other = MAMO(learner.config)
    other.load_state(*learner.state(), ctx)
    query = episodes.query
    first, second = (
        each.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        for each in (learner, other)
    )
    assert torch.equal(first, second)
    assert torch.equal(other.module.memories.weight, learner.module.memories.weight)


class TestConformance(LearnerConformance):
    learner = MAMO
    config = {
        "meta_steps": 6,
        "meta_batch": 10,
        "evaluate_every": 3,
        "max_shots": 4,
        "n_query": 4,
        "hidden": (8,),
        "dim": 8,
    }
