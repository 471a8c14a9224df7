"""Training many episodes in one pass: each as if alone, with every option; and what the options do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewrec.episodes.sampler import EpisodeSampler
from fewrec.learners.bert import BertFinetune
from fewrec.learners.prompt import PromptLM
from fewrec.learners.text.config import TextConfig
from fewrec.learners.text.heads import Rows
from fewrec.learners.text.regression import TextRegressor
from fewrec.learners.text.training import row_loss, schedule, slots


@pytest.fixture(scope="module")
def episodes(text_split):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    return sampler.sample(0, 4, n_users=3, k_shot=6, n_query=5)


OPTIONS = {
    "last": {"layers": 2},
    "bias": {"method": "bias", "learning_rate": 1e-2},
    "lora of all linear layers": {"method": "lora", "layers": 2, "lora_targets": "all", "learning_rate": 1e-2},
    "full": {"method": "full"},
    "minibatches": {"batch_size": 4},
    "early stopping": {"holdout": 0.3, "epochs": 5, "learning_rate": 1e-2, "patience": 1},
    "masked tokens": {"mask_tokens": 0.5},
    "jitter": {"jitter": 0.5},
    "mixup": {"mixup": 0.4},
    "dropout": {"dropout": 0.5},
    "adafactor": {"optimizer": "adafactor", "learning_rate": 1e-2},
    "sgd": {"optimizer": "sgd", "learning_rate": 1e-2},
    "huber, cosine, warm-up": {"loss": "huber", "schedule": "cosine", "warmup": 0.5},
    "mean absolute error, constant": {"loss": "mae", "schedule": "constant"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_episodes_in_one_pass_predict_as_each_alone(tiny_bert, text_ctx, episodes, options, monkeypatch):
    learner = BertFinetune(BertFinetune.Config(backbone=tiny_bert, **{"epochs": 3, "learning_rate": 1e-3, **options}))
    learner.prepare(text_ctx)
    query = episodes.query
    together = learner.adapt_batch(episodes.support, text_ctx).predict(query.episode, query.user, query.item)
    assert learner.in_flight(18) == 1 or learner.in_flight(18) >= 4
    monkeypatch.setattr(TextRegressor, "in_flight", lambda self, n: 1)
    alone = learner.adapt_batch(episodes.support, text_ctx).predict(query.episode, query.user, query.item)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_every_option_changes_what_is_learnt(tiny_bert, text_ctx, episodes):
    query, found = episodes.query, {}
    for name, options in OPTIONS.items():
        given = {"epochs": 3, "learning_rate": 1e-3, **options}
        learner = BertFinetune(BertFinetune.Config(backbone=tiny_bert, **given))
        learner.prepare(text_ctx)
        found[name] = learner.adapt_batch(episodes.support, text_ctx).predict(query.episode, query.user, query.item)
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert float((found[one] - found[other]).abs().max()) > 1e-5, f"{one} and {other} are the same"


def test_supports_of_different_sizes_share_a_batch(tiny_bert, text_ctx, text_split):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    episodes = sampler.sample(0, 3, n_users=2, k_shot="rest", n_query=5)
    learner = PromptLM(PromptLM.Config(backbone=tiny_bert, epochs=2))
    learner.prepare(text_ctx)
    assert len({len(s.item) for s in episodes.support}) > 1
    query = episodes.query
    together = learner.adapt_batch(episodes.support, text_ctx).predict(query.episode, query.user, query.item)
    for e, support in enumerate(episodes.support):
        rows = query.episode == e
        alone = learner.adapt(support, text_ctx).predict(query.user[rows], query.item[rows])
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-4)


def test_a_text_is_run_once_however_many_of_its_ratings_there_are():
    user = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])
    item = torch.tensor([[5, 5, 9, 2], [7, 3, 7, 8]])
    shared, own = slots(user, item), slots(user, item, per_user=2)
    for texts, group in ((shared, torch.tensor([[0] * 4, [1] * 4])), (own, torch.tensor([[0, 1, 1, 0], [3, 3, 2, 2]]))):
        assert torch.equal(texts.group, group)
        assert torch.equal(texts.items[texts.group, texts.slot], item)
        for row in texts.items.tolist():
            assert len({i for i in row if i >= 0}) == len([i for i in row if i >= 0])
    assert shared.items.tolist() == [[2, 5, 9], [3, 7, 8]]


def test_more_memory_lets_more_episodes_into_one_pass(tiny_bert, text_ctx):
    sizes = []
    for memory in (1, 64, 512):
        learner = BertFinetune(BertFinetune.Config(backbone=tiny_bert, memory_mb=memory))
        learner.prepare(text_ctx)
        sizes.append(learner.in_flight(25))
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("linear", [1, 0.75, 0.5, 0.25]), ("cosine", [1, 0.853553, 0.5, 0.146447]), ("constant", [1] * 4)],
)
def test_schedules_fall_from_one(kind, expected):
    factor = schedule(kind, 0.0, 4)
    np.testing.assert_allclose([factor(step) for step in range(4)], expected, atol=1e-6)


def test_a_warm_up_rises_to_the_schedules_start():
    factor = schedule("constant", 0.5, 8)
    np.testing.assert_allclose([factor(step) for step in range(8)], [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_losses_of_rows():
    error = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0])
    assert row_loss(error, "mse").tolist() == [9, 1, 0, 0.25, 4]
    assert row_loss(error, "mae").tolist() == [3, 1, 0, 0.5, 2]
    torch.testing.assert_close(row_loss(error, "huber"), 2 * torch.nn.functional.huber_loss(
        error, torch.zeros(5), reduction="none"))  # fmt: skip


def test_early_stopping_keeps_the_best_on_what_was_kept_apart(tiny_bert, text_ctx, episodes):
    from fewrec.learners.text.training import _Best

    config = {"backbone": tiny_bert, "epochs": 6, "holdout": 0.4, "learning_rate": 0.05, "patience": 6}
    learner = BertFinetune(BertFinetune.Config(**config))
    learner.prepare(text_ctx)
    losses = []
    update = _Best.update

    def watched(self, params, heads):
        losses.append(self._loss(params, heads))
        done = update(self, params, heads)
        kept = self._loss(self.params, self.heads)
        torch.testing.assert_close(kept, self.loss, rtol=1e-4, atol=1e-5)
        assert (kept <= losses[-1] + 1e-5).all()
        return done

    _Best.update = watched
    try:
        learner.adapt_batch(episodes.support, text_ctx)
    finally:
        _Best.update = update
    assert len(losses) == 6


def test_mixed_ratings_are_of_one_user_and_targets_mix_as_features_do():
    from fewrec.learners.text.augment import Augmentation

    config = TextConfig(mixup=0.4)
    user = torch.tensor([[0, 0, 1, 1, 1, 2]])
    rows = Rows(user, torch.arange(6)[None], torch.tensor([[0.0, 1.0, 10.0, 11.0, 12.0, 20.0]]))
    x = rows.target.unsqueeze(2).repeat(1, 1, 2)
    for seed in range(20):
        mixed, target = Augmentation(config, [torch.Generator().manual_seed(seed)]).of_rows(x, rows.target, rows)
        torch.testing.assert_close(mixed[:, :, 0], target)
        assert ((target[0] / 10).floor().clamp(0, 2) == user[0]).all()
    assert not torch.equal(target, rows.target)


def test_other_seeds_draw_other_masks_and_the_same_seed_the_same(tiny_bert, text_ctx, episodes):
    learner = BertFinetune(BertFinetune.Config(backbone=tiny_bert, mask_tokens=0.5, learning_rate=1e-2))
    learner.prepare(text_ctx)
    items = torch.arange(10)
    found = [learner.adapt(replace(episodes.support[0], seed=s), text_ctx).predict(items * 0, items) for s in (1, 1, 2)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")]


@pytest.mark.parametrize(
    "options",
    [pytest.param(OPTIONS[name], marks=CUDA, id=name)
     for name in ("last", "lora of all linear layers", "full", "minibatches", "masked tokens", "jitter", "mixup")],
)  # fmt: skip
def test_on_cuda_the_steps_do_not_wait_for_the_host(tiny_bert, text_ctx, episodes, options, monkeypatch):
    from fewrec.learners.text import training

    ctx = replace(text_ctx, device=torch.device("cuda"))
    options = {"epochs": 4, "learning_rate": 1e-3, **options}
    learner = BertFinetune(BertFinetune.Config(backbone=tiny_bert, **options))
    learner.prepare(ctx)
    made, steps = training.make_stepper, []

    def watched(*args):
        step = made(*args)

        def counted(loss):
            step(loss)
            steps.append(1)
            torch.cuda.set_sync_debug_mode("error")  # from the first step on

        return counted

    def fine_tune(*args):
        try:
            return training.fine_tune(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(training, "make_stepper", watched)
    monkeypatch.setattr("fewrec.learners.text.regression.fine_tune", fine_tune)
    learner.adapt_batch(episodes.support, ctx)
    assert len(steps) >= 4


@pytest.mark.parametrize("precision,tolerance", [("float32", 2e-3), ("bfloat16", 0.05)])
@pytest.mark.parametrize("cls", [pytest.param(cls, marks=CUDA) for cls in (BertFinetune, PromptLM)])
def test_on_cuda_predictions_are_those_of_the_cpu(tiny_bert, text_ctx, episodes, cls, precision, tolerance):
    query, found = episodes.query, []
    for device, own in (("cpu", "float32"), ("cuda", precision)):
        ctx = replace(text_ctx, device=torch.device(device))
        learner = cls(cls.Config(backbone=tiny_bert, epochs=3, learning_rate=1e-3, precision=own))
        learner.prepare(ctx)
        predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
        found.append(predicted.cpu())
    assert float((found[0] - found[1]).square().mean().sqrt()) < tolerance


@pytest.mark.parametrize("memory_mb", [1, 512])
def test_as_many_episodes_share_a_pass_as_fit_into_the_budget(tiny_bert, text_ctx, episodes, memory_mb, monkeypatch):
    learner = BertFinetune(BertFinetune.Config(backbone=tiny_bert, epochs=1, memory_mb=memory_mb))
    learner.prepare(text_ctx)
    passes, adapt = [], learner.adapt_alike

    def counted(supports, members, ctx):
        passes.append(members)
        return adapt(supports, members, ctx)

    monkeypatch.setattr(learner, "adapt_alike", counted)
    learner.adapt_batch(episodes.support, text_ctx)
    assert sorted(e for members in passes for e in members) == [0, 1, 2, 3]
    assert max(map(len, passes)) == min(4, learner.in_flight(18)) and (memory_mb == 1) == (len(passes) > 1)
