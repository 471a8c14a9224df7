"""``maml-mf`` through the real learn2learn: the same numbers as the engine's, to rounding in float64."""

import functools
import sys
from pathlib import Path

import pytest
import torch

from fewrec.bridges.learn2learn import import_learn2learn
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.l2l import MAMLMFL2L
from fewrec.learners.meta_mf import MAMLMF
from fewrec.learners.validation import Validation
from fewrec.testing import LearnerConformance

try:
    import_learn2learn()
    MISSING = ""
except NotApplicable as error:
    MISSING = str(error)

needs_learn2learn = pytest.mark.skipif(bool(MISSING), reason=MISSING)
OPTIONS = {"dtype": "float64", "rank": 3, "inner_steps": 3, "meta_batch": 20, "max_shots": 6, "n_query": 6}


@pytest.fixture(scope="module", autouse=True)
def few_users_on_meta_validation():
    """learn2learn takes milliseconds a user, so 1,500 of them at every look would make up nearly all of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewrec.learners.engine.meta.Validation", functools.partial(Validation, users=30))
        yield


@pytest.fixture(scope="module")
def setting():
    dataset = make_synthetic(n_users=60, n_items=40, density=0.7, seed=1)
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=6), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def both(setting, **options):
    """Return maml-mf and maml-mf-l2l, meta-fitted alike, and the curves that they logged."""
    source, ctx = setting
    learners, curves = [], []
    for cls in (MAMLMF, MAMLMFL2L):
        curves.append([])
        watched = Context(ctx.device, ctx.catalog, ctx.scale, ctx.cache, record=lambda _, s: curves[-1].append(s))
        learner = cls(cls.Config(**(OPTIONS | options)))
        learner.prepare(watched)
        learner.meta_fit(source, watched)
        learners.append(learner)
    return *learners, curves


def everything(support: SupportBatch, n_items: int):
    """Return (episode, user, item) that ask for all items for all users."""
    pairs = [(e, user) for e, n in enumerate(support.n_users.tolist()) for user in range(n)]
    episode, user = torch.tensor(pairs).repeat_interleave(n_items, 0).T
    return episode, user, torch.arange(n_items).repeat(len(pairs))


@needs_learn2learn
def test_after_meta_training_predictions_and_learning_curves_are_those_of_maml_mf(setting):
    source, ctx = setting
    # A start without factors and a high rate, so that meta-training changes much.
    options = {"meta_steps": 8, "evaluate_every": 4, "meta_lr": 0.05, "pretrain_sweeps": 0, "factor_scale": 0.3}
    ours, theirs, curves = both(setting, **options)
    ragged = [source.validation_episodes(0, 1, n_users=3, k_shot=k, n_query=1).support[0] for k in (1, 4, 6)]
    ragged.append(ragged[2].joined(ragged[1]))  # pairs that occur twice
    nothing = torch.zeros(0, dtype=torch.int64)
    ragged.append(Support(2, nothing, nothing, nothing.double(), None, torch.tensor([-1, -1]), seed=0))
    support = SupportBatch.of(ragged)
    asked = everything(support, source.table.n_items)
    first, second = (learner.adapt_batch(support, ctx).predict(*asked) for learner in (ours, theirs))
    torch.testing.assert_close(second, first, rtol=0, atol=1e-8)
    for name, value in ours.module.named_parameters():
        torch.testing.assert_close(theirs.module.get_parameter(name), value, rtol=0, atol=1e-8)
    assert len(curves[0]) >= 2
    for mine, other in zip(*curves, strict=True):
        assert mine == pytest.approx(other, abs=1e-8)
    untrained = both(setting, **options | {"meta_steps": 0})[0]
    assert (untrained.adapt_batch(support, ctx).predict(*asked) - first).abs().max() > 0.01


@needs_learn2learn
def test_the_meta_gradient_is_that_of_maml_mf(setting):
    source, ctx = setting
    ours, theirs, _ = both(setting, meta_steps=0)
    tasks = Tasks.of_episodes(source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6), ctx.device, torch.float64)
    tasks = tasks.with_support_mask((torch.arange(5) < (torch.arange(12) % 6).unsqueeze(1)).double())  # K = 0 too
    objectives = []
    for learner in (ours, theirs):
        learner.module.requires_grad_()
        with torch.no_grad():
            learner.module.user_vector.copy_(torch.tensor([0.3, -0.2, 0.5]))  # so that every derivative counts
        objectives.append(learner.meta_gradient(tasks))
    assert objectives[1] == pytest.approx(objectives[0], abs=1e-12)
    for name, value in ours.module.named_parameters():
        assert value.grad.abs().max() > 1e-4
        torch.testing.assert_close(theirs.module.get_parameter(name).grad, value.grad, rtol=0, atol=1e-10)


@needs_learn2learn
def test_it_runs_learn2learns_wrapper_for_every_task_and_step(setting, monkeypatch):
    source, ctx = setting
    _, theirs, _ = both(setting, meta_steps=0)
    maml, calls = theirs.learn2learn.algorithms.MAML, {"clone": 0, "adapt": 0}

    def counted(name, method):
        def wrapped(*args, **kwargs):
            calls[name] += 1
            return method(*args, **kwargs)

        return wrapped

    for name in calls:
        monkeypatch.setattr(maml, name, counted(name, getattr(maml, name)))
    episodes = source.train_episodes(0, 2, n_users=3, k_shot=5, n_query=6)
    theirs.module.requires_grad_()
    theirs.meta_gradient(Tasks.of_episodes(episodes, ctx.device, torch.float64))
    assert calls == {"clone": 6, "adapt": 6 * theirs.config.inner_steps}
    theirs.adapt_batch(episodes.support, ctx)
    assert calls == {"clone": 12, "adapt": 12 * theirs.config.inner_steps}


def test_where_learn2learn_is_missing_the_row_is_not_applicable_and_says_how_to_install_it(setting, monkeypatch):
    _, ctx = setting
    monkeypatch.setitem(sys.modules, "learn2learn", None)
    with pytest.raises(NotApplicable, match=r"scripts/learn2learn\.sh") as raised:
        MAMLMFL2L().prepare(ctx)
    assert "\n" not in str(raised.value)


@needs_learn2learn
class TestConformance(LearnerConformance):
    learner = MAMLMFL2L
    config = {"meta_steps": 2, "meta_batch": 5, "rank": 3, "inner_steps": 2, "max_known": 0}
