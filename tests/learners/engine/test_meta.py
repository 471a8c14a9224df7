"""The outer loop: splitting, memory, early stopping, drawing, and prediction in batches."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.learners.base import Context
from fewrec.learners.engine.meta import TaskPredictor
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.meta_mf import ANILMF, FOMAMLMF, MAMLMF, MetaSGDMF, ReptileMF
from fewrec.learners.validation import Validation

FAMILY = [MAMLMF, FOMAMLMF, ANILMF, ReptileMF, MetaSGDMF]


def setting(state="user-cold", **synthetic):
    dataset = make_synthetic(**({"n_users": 80, "n_items": 40, "density": 0.7, "rank": 2, "seed": 1} | synthetic))
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def fitted(cls, source, ctx, **options):
    learner = cls(cls.Config(**({"meta_steps": 4, "evaluate_every": 2, "meta_batch": 30, "rank": 3} | options)))
    learner.meta_fit(source, ctx)
    return learner


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("split", [1, 4, 7])
def test_a_split_meta_batch_gives_the_same_learner(cls, split):
    source, ctx = setting()
    options = {"dtype": "float64", "meta_lr": 1e-3, "proximal": 0.0}
    whole, parts = fitted(cls, source, ctx, **options), fitted(cls, source, ctx, split=split, **options)
    start = fitted(cls, source, ctx, meta_steps=0, **options)
    moved = [(a - b).abs().max() for a, b in zip(whole.module.parameters(), start.module.parameters(), strict=True)]
    assert max(moved) > 1e-4, "nothing was learnt, so nothing is compared"
    for one, other in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_split_gradient_is_the_whole_one():
    source, ctx = setting()
    learner = fitted(MAMLMF, source, ctx, dtype="float64")
    learner.module.requires_grad_(True)
    episodes = source.train_episodes(0, 10, n_users=3, k_shot=5, n_query=6)
    tasks, found = Tasks.of_episodes(episodes, ctx.device, torch.float64), []
    for split in (0, 1, 7, 30):
        learner.config = learner.config.model_copy(update={"split": split})
        learner.module.zero_grad()
        objective = learner.meta_gradient(tasks)
        found.append([torch.tensor(objective).double(), *(p.grad.clone() for p in learner.module.parameters())])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


MEMORY = """
import re, sys, torch
from pathlib import Path
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.learners.base import Context
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.meta_mf import MAMLMF
torch.set_num_threads(1)
dataset = make_synthetic(n_users=300, n_items=200, ratings_per_user=40, seed=1)
split = split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0)
source = MetaTrainSet(split, dataset.scale)
ctx = Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))
def peak():
    status = Path("/proc/self/status").read_text()  # getrusage would count what the parent held at the fork
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
def learner(inner_steps):
    made = MAMLMF(MAMLMF.Config(rank=32, inner_steps=inner_steps, meta_steps=0, pretrain_sweeps=1))
    made.meta_fit(source, ctx)
    made.module.requires_grad_(True)
    return made
def step(made, tasks):
    made.module.zero_grad()
    made.meta_gradient(tasks)
tasks = Tasks.of_episodes(source.train_episodes(0, 1200, n_users=5, k_shot=10, n_query=10), ctx.device, torch.float32)
made = learner(5)
step(made, tasks[:50])
peaks = [peak()]
for what in sys.argv[1].split(","):
    size, inner_steps, repeats = (int(number) for number in what.split("x"))
    made = learner(inner_steps)
    for _ in range(repeats):
        step(made, tasks[:size])
    peaks.append(peak())
print(*peaks)
"""


NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


def peaks(*runs: str) -> list[float]:
    """Return the peak memory of a process in MB before and after each of the runs "tasks x inner steps x repeats"."""
    returned = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once, so that only what is held counts
    command = [sys.executable, "-P", "-c", MEMORY, ",".join(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | returned)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split()]


@NEEDS_PROC
def test_peak_memory_does_not_grow_with_the_number_of_meta_steps():
    _, few, many = peaks("1000x5x5", "1000x5x45")
    assert many - few < 5  # a step holds 12 at its height


@NEEDS_PROC
def test_peak_memory_grows_no_faster_than_the_meta_batch_and_than_the_inner_steps():
    for runs in (("2000x5x1", "4000x5x1", "6000x5x1"), ("2000x5x1", "2000x10x1", "2000x15x1")):
        _, once, twice, thrice = peaks(*runs)
        assert twice - once > 5 and thrice - twice < 1.2 * (twice - once)  # squares would give 1.67


@pytest.mark.parametrize("cls", FAMILY)
def test_the_best_of_what_was_trained_is_kept_by_meta_validation(cls, monkeypatch):
    source, ctx = setting()
    options = {"meta_lr": 0.05, "evaluate_every": 10, "patience": 9}
    falling = iter([9.0, 8.0, 7.0])
    monkeypatch.setattr(Validation, "rmse", lambda *_: next(falling))
    wanted = fitted(cls, source, ctx, meta_steps=20, **options)
    scores, curve = iter([0.5, 3.0, 1.0, 2.0]), {}  # of the start, which is no candidate, and after 10, 20 and 25 steps
    monkeypatch.setattr(Validation, "rmse", lambda *_: next(scores))
    seen = replace(ctx, record=lambda step, scalars: curve.update({step: scalars["validation_rmse"]}))
    learner = fitted(cls, source, seen, meta_steps=25, **options)
    assert curve == {0: 0.5, 10: 3.0, 20: 1.0, 25: 2.0}
    for kept, expected in zip(learner.module.parameters(), wanted.module.parameters(), strict=True):
        assert torch.equal(kept, expected)


def test_patience_ends_meta_training():
    source, ctx = setting()
    steps = []
    seen = replace(ctx, record=lambda step, scalars: steps.append(step))
    fitted(MAMLMF, source, seen, meta_lr=0.5, meta_steps=100, evaluate_every=5, patience=3, proximal=0.0)
    assert steps == [0, 5, 10, 15, 20]


def test_a_task_trains_with_every_number_of_shots():
    source, ctx = setting()
    learner = fitted(MAMLMF, source, ctx, max_shots=6)
    tasks = learner.draw_tasks(source, 0, 10, ctx, ctx.generator(0))
    assert sorted(set(tasks.support.mask.sum(1).tolist())) == [1, 2, 3, 4, 5, 6]
    assert len(tasks) == 300 and (tasks.query.mask == 1).all()


def test_where_users_have_few_ratings_they_train_with_fewer_shots():
    source, ctx = setting(ratings_per_user=12, density=None)
    learner = fitted(MAMLMF, source, ctx, max_shots=10, n_query=8)
    tasks = learner.draw_tasks(source, 0, 1, ctx, ctx.generator(0))
    assert tasks.row.shape[1] == 4 and tasks.query.item.shape[1] == 8


def test_predicting_in_parts_changes_nothing(monkeypatch):
    source, ctx = setting()
    learner = fitted(MAMLMF, source, ctx, dtype="float64")
    episodes = source.validation_episodes(0, 7, n_users=3, k_shot=4, n_query=6)
    query, predictor = episodes.query, learner.adapt_batch(episodes.support, ctx)
    whole = predictor.predict(query.episode, query.user, query.item)
    monkeypatch.setattr(TaskPredictor, "LARGEST", 13)
    torch.testing.assert_close(predictor.predict(query.episode, query.user, query.item), whole, rtol=0, atol=1e-10)
    assert predictor.predict(query.episode[:0], query.user[:0], query.item[:0]).shape == (0,)


def test_a_known_users_meta_train_ratings_join_the_support():
    source, ctx = setting("warm")
    learner = fitted(MAMLMF, source, ctx, dtype="float64", max_known=100)
    episodes = source.validation_episodes(0, 2, n_users=2, k_shot=3, n_query=4)
    support = episodes.support[0]
    predictor = learner.adapt(support, ctx)
    items = torch.arange(source.table.n_items)
    for user in range(2):
        mine = support.user == user
        rows = source.table.user == int(support.meta_user[user])
        assert rows.sum() > 0
        new = replace(
            support,
            user=torch.zeros(int(mine.sum()) + int(rows.sum()), dtype=torch.int64),
            item=torch.cat([support.item[mine], torch.from_numpy(source.table.item[rows])]),
            rating=torch.cat([support.rating[mine], torch.from_numpy(source.table.rating[rows])]),
            timestamp=None,
            n_users=1,
            meta_user=torch.tensor([-1]),
            user_features=support.user_features[user : user + 1],
        )
        expected = learner.adapt(new, ctx).predict(torch.zeros_like(items), items)
        found = predictor.predict(torch.full_like(items, user), items)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_at_most_so_many_known_ratings_join_and_no_rating_twice():
    source, ctx = setting("warm")
    learner = fitted(MAMLMF, source, ctx, max_known=5)
    supports = source.validation_episodes(0, 2, n_users=2, k_shot=3, n_query=4).support
    joined = learner.known.joined(supports, 5)
    for e in range(2):
        support = joined[e]
        for user in range(2):
            items = support.item[support.user == user]
            assert len(items) == 8 and len(set(items.tolist())) == 8
            assert items[:3].tolist() == supports[e].item[supports[e].user == user].tolist()


def test_users_without_attributes_get_zeros_from_a_learner_that_was_fitted_with_some():
    from fewrec.learners.melu import MeLU

    source, ctx = setting()
    learner = MeLU(MeLU.Config(meta_steps=2, meta_batch=10, hidden=(4,)))
    learner.meta_fit(source, ctx)
    support = source.validation_episodes(0, 1, n_users=2, k_shot=3, n_query=1).support[0]
    assert support.user_features.abs().max() > 0
    items = torch.arange(source.table.n_items)
    known, unknown, zeros = (
        learner.adapt(replace(support, user_features=features), ctx).predict(torch.zeros_like(items), items)
        for features in (support.user_features, None, torch.zeros_like(support.user_features))
    )
    assert torch.equal(unknown, zeros) and not torch.equal(unknown, known)
