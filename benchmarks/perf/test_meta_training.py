"""Meta-training steps of ``melu``, ``mamo`` and ``tanp`` beside plain PyTorch loops over tasks, plain_*.py."""

import importlib.util
import statistics
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fewrec.episodes.meta import MetaTrainSet
from fewrec.learners.registry import learner_class

# Seconds an epoch over its tasks that were measured of RecBole-MetaRec (commit dd36cd7), on another machine.
LIBRARY_MS_A_TASK = {"melu": 940 / 466, "mamo": 1510 / 466, "tanp": 2890 / 497}
WANTED = 20
PLAIN_TASKS = 25  # tasks that the plain loop runs in a round


def plain_loop(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"plain_{name}", Path(__file__).with_name(f"plain_{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(user_cold, ml_100k) -> MetaTrainSet:
    return MetaTrainSet(user_cold, ml_100k.scale)


def at_start(name: str, source, ctx, **options):
    """Return a learner after a few meta-steps, ready for more, and a generator for its next tasks."""
    cls = learner_class(name)
    learner = cls(cls.Config(meta_steps=5, evaluate_every=5, **options))
    learner.prepare(ctx)
    learner.meta_fit(source, ctx)
    learner.module.requires_grad_()
    return learner, ctx.generator(1)


def drawn(learner, source, ctx, generator) -> tuple:
    """Return what both sides get for one meta-step: tasks, and the noise for z where the learner has one."""
    tasks = learner.draw_tasks(source, 1_000, 1, ctx, generator)[: learner.config.meta_batch]
    if learner.name != "tanp":
        return (tasks,)
    noise = torch.randn(len(tasks), learner.config.latent, generator=generator, dtype=torch.float64)
    return tasks, noise.to(learner.dtype)


@pytest.mark.parametrize("name", ["melu", "mamo", "tanp"])
def test_meta_training_step(compare, source, ctx, name):
    plain = plain_loop(name)
    learner, generator = at_start(name, source, ctx, dtype="float64")
    some = tuple(each[:8] for each in drawn(learner, source, ctx, generator))
    before = {key: value.clone() for key, value in learner.module.state_dict().items()}
    learner.module.zero_grad()
    objective = learner.meta_gradient(*some)
    learner.module.load_state_dict(before)  # mamo writes to its memories
    other_objective, gradients = plain.meta_step(learner, *some)
    assert abs(other_objective - objective) < 1e-8
    for key, value in learner.module.named_parameters():
        torch.testing.assert_close(gradients[key], value.grad, rtol=0, atol=1e-8)

    learner, generator = at_start(name, source, ctx, dtype="float32")
    given = drawn(learner, source, ctx, generator)
    part = tuple(each[:PLAIN_TASKS] for each in given)
    optimiser, seconds = learner.make_optimiser(), []

    def ours(number: int) -> None:
        optimiser.zero_grad()
        learner.meta_gradient(*given)
        optimiser.step()

    def theirs(number: int) -> None:
        start = time.perf_counter()
        plain.meta_step(learner, *part)
        seconds.append(time.perf_counter() - start)

    def note(ours_s: float, other_s: float) -> str:
        ms = 1000 * statistics.median(seconds[1:]) / len(part[0])
        return (
            f"MovieLens-100K, float32 on both sides, ours with Adam; "
            f"theirs runs {len(part[0])} tasks a round, {ms:.2f} ms a task "
            f"(RecBole-MetaRec elsewhere: {LIBRARY_MS_A_TASK[name]:.1f}); wanted: at least {WANTED} times"
        )

    compare(
        f"meta-step of {name}, meta-batch {len(given[0])}",
        ours,
        theirs,
        other_name="plain PyTorch, task after task",
        other_share=len(part[0]) / len(given[0]),
        note=note,
        rounds=5,
    )
