"""maml-lm: both inner loops and their meta-gradients against plain loops over tasks, and what it starts from."""

from dataclasses import replace

import pytest
import torch

from fewrec.data.table import Catalog
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Support
from fewrec.errors import NotApplicable
from fewrec.learners.embed_ridge import EmbedRidge
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.maml_lm import MAMLLM
from fewrec.learners.text.maml_model import principal_directions
from fewrec.testing import LearnerConformance

SMALL = {"meta_batch": 10, "evaluate_every": 3, "max_shots": 4, "n_query": 4, "rank": 3}


@pytest.fixture(scope="module")
def source(text_split, text_ctx):
    return MetaTrainSet(text_split, text_ctx.scale)


@pytest.fixture
def make(tiny_bert, text_ctx, source):
    def fitted(**options) -> MAMLLM:
        learner = MAMLLM(MAMLLM.Config(**(SMALL | {"backbone": tiny_bert, "meta_steps": 0} | options)))
        learner.prepare(text_ctx)
        learner.meta_fit(source, text_ctx)
        return learner

    return fitted


@torch.no_grad()
def shaken(learner: MAMLLM) -> MAMLLM:
    """Move what starts at zero or one, so that every derivative counts."""
    generator = torch.Generator().manual_seed(3)
    for value in (learner.module.user.head, *learner.module.rate.values()):
        value += 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    learner.module.requires_grad_(True)
    return learner


def ragged_tasks(source, ctx, dtype=torch.float64) -> Tasks:
    drawn = source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6)
    tasks = Tasks.of_episodes(drawn, ctx.device, dtype)
    return tasks.with_support_mask((torch.arange(5) < (torch.arange(12) % 6).unsqueeze(1)).to(dtype))  # K = 0 to 5


def plainly(learner: MAMLLM, tasks: Tasks, t: int, second_order: bool) -> tuple[dict, torch.Tensor]:
    """Return what task t adapts to, and the squared error of its query, written out for one task."""
    module, config, k = learner.module, learner.config, int(tasks.support.mask[t].sum())
    rates = {"offset": config.inner_lr, "head": config.head_lr, "prompt": config.prompt_lr}
    rates = {name: rates[name] * module.rate[name] for name in module.starts()}

    def predicted(own, items):
        if "prompt" in own:
            x = learner.features.run({"prompt": own["prompt"]}, learner.features.plan(items[None]))[0]
        else:
            x = module.features[items]
        weights = module.text + module.map @ own["head"]
        return own["offset"] + module.item_effect[items] + x @ weights

    own = dict(module.starts())
    for _ in range(config.inner_steps if k else 0):
        at = own if second_order else {name: value.detach().requires_grad_() for name, value in own.items()}
        error = predicted(at, tasks.support.item[t, :k]) - tasks.support.rating[t, :k]
        loss = (error**2).sum() / (k + config.inner_prior)
        gradients = torch.autograd.grad(loss, list(at.values()), create_graph=second_order)
        own = {name: own[name] - rates[name] * g for name, g in zip(own, gradients, strict=True)}
    return own, ((predicted(own, tasks.query.item[t]) - tasks.query.rating[t]) ** 2).sum()


def plain_gradients(learner, tasks, second_order):
    total = sum(plainly(learner, tasks, t, second_order)[1] for t in range(len(tasks)))
    parameters = dict(learner.module.named_parameters())
    found = torch.autograd.grad(total / tasks.query.mask.sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_of_heads_is_that_of_a_plain_loop_over_tasks(make, source, text_ctx, first_order):
    learner = shaken(make(dtype="float64", first_order=first_order, inner_prior=1.0))
    tasks = ragged_tasks(source, text_ctx)
    adapted = learner.adapt_tasks(tasks)
    for t in range(len(tasks)):
        own, _ = plainly(learner, tasks, t, second_order=False)
        assert adapted["head"].shape == (12, 3)
        for name, value in own.items():
            torch.testing.assert_close(adapted[name][t], value, rtol=0, atol=1e-12)
    expected = plain_gradients(learner, tasks, not first_order)
    learner.meta_gradient(tasks)
    for name, value in learner.module.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-10)
        assert value.grad.abs().max() > 1e-6


def test_the_second_order_meta_gradient_differs_from_the_first_order_one(make, source, text_ctx):
    learner = shaken(make(dtype="float64", inner_prior=1.0))
    both = [plain_gradients(learner, ragged_tasks(source, text_ctx), order)["map"] for order in (False, True)]
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_prompts_of_many_users_in_one_pass_adapt_and_learn_as_one_by_one(make, source, text_ctx):
    learner = shaken(make(adapts="prompt", tokens=2, layers=2, prompt_lr=0.5, inner_prior=1.0))
    tasks = ragged_tasks(source, text_ctx, torch.float32)
    adapted = learner.adapt_tasks(tasks)
    assert adapted["prompt"].shape == (12, 2, 32)
    moved = (adapted["prompt"] - learner.module.prompt).flatten(1).abs().amax(1)
    assert torch.equal(moved > 1e-4, tasks.support.mask.sum(1) > 0)  # without a support nothing moves
    for t in range(len(tasks)):
        own, _ = plainly(learner, tasks, t, second_order=False)
        for name, value in own.items():
            torch.testing.assert_close(adapted[name][t], value, rtol=0, atol=1e-4)
    expected = plain_gradients(learner, tasks, second_order=False)
    learner.meta_gradient(tasks)
    for name, value in learner.module.named_parameters():
        size = float(expected[name].abs().max())
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=2e-3 * size)
        assert size > 1e-6


def test_predictions_with_prompts_do_not_depend_on_how_many_tasks_fit_into_memory(make, source, text_ctx):
    learner = make(adapts="prompt", prompt_lr=0.5)
    query = source.validation_episodes(0, 3, n_users=2, k_shot=4, n_query=5)
    found = []
    for memory_mb in (1, 512):
        learner.config = learner.config.model_copy(update={"memory_mb": memory_mb})
        asked = query.query
        predictor = learner.adapt_batch(query.support, text_ctx)
        found.append(predictor.predict(asked.episode, asked.user, asked.item))
    assert learner.at_once(5) > 3
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("adapts", ["head", "prompt"])
def test_adapting_lowers_the_loss_of_the_support(make, source, text_ctx, adapts):
    learner = make(adapts=adapts, inner_prior=1.0, inner_lr=0.1, head_lr=0.1, prompt_lr=0.02, inner_steps=3)
    tasks = Tasks.of_episodes(
        source.train_episodes(0, 4, n_users=3, k_shot=5, n_query=6), text_ctx.device, torch.float32
    )
    support = tasks.support
    with torch.no_grad():
        adapted = learner.adapt_tasks(tasks)
        start = {name: value.expand(12, *value.shape) for name, value in learner.module.starts().items()}
        before, after = (
            (learner.predict_items(tasks, own, support.item) - support.rating).square().sum(1)
            for own in (start, adapted)
        )
        assert (after < before).all()
        if adapts == "prompt":  # the prompt alone does its part
            own = start | {"prompt": adapted["prompt"]}
            alone = (learner.predict_items(tasks, own, support.item) - support.rating).square().sum(1)
            assert alone.sum() < before.sum() - 1e-4


def without_ratings() -> Support:
    nothing, ratings = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    return Support(1, nothing, nothing, ratings, None, torch.tensor([-1]), seed=0)


def predicted_without_ratings(learner, ctx, catalog: Catalog) -> torch.Tensor:
    items = torch.arange(len(catalog))
    return learner.adapt(without_ratings(), ctx).predict(torch.zeros_like(items), items).double()


def test_before_meta_training_and_without_support_it_predicts_as_embed_ridge(make, tiny_bert, source, text_ctx):
    ridge = EmbedRidge(EmbedRidge.Config(backbone=tiny_bert))
    ridge.prepare(text_ctx)
    ridge.meta_fit(source, text_ctx)
    expected = predicted_without_ratings(ridge, text_ctx, source.catalog)
    found = predicted_without_ratings(make(), text_ctx, source.catalog)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("adapts", ["head", "prompt"])
def test_meta_training_leaves_unseen_items_to_their_texts(make, source, text_ctx, adapts):
    learner = make(adapts=adapts, meta_steps=3, meta_lr=0.05)
    unseen = torch.from_numpy(~source.catalog.seen)
    assert unseen.any() and torch.equal(learner.module.item_effect[unseen], torch.zeros(int(unseen.sum())))
    assert learner.module.item_effect[~unseen].abs().min() > 0
    found = predicted_without_ratings(learner, text_ctx, source.catalog)[unseen]
    assert found.std() > 1e-3


def test_without_item_effects_all_items_are_left_to_their_texts(make):
    learner = make(item_effects=False, meta_steps=3)
    assert not learner.module.item_effect.any()


def test_meta_training_lowers_the_error_of_meta_train_queries(make, source, text_ctx):
    tasks = ragged_tasks(source, text_ctx, torch.float32)
    start, trained = make(), make(meta_steps=80, meta_batch=40, meta_lr=0.005, evaluate_every=80, proximal=1.0)
    with torch.no_grad():
        before, after = (float(learner.objectives(tasks).sum()) for learner in (start, trained))
    assert after < 0.97 * before


def test_rates_are_learnt_only_where_they_are_to_be(make):
    learnt, fixed = (make(meta_steps=3, learn_rates=value) for value in (True, False))
    assert not len(fixed.module.rate) and fixed.rates()["offset"] == fixed.config.inner_lr
    assert all((value != 1).all() for value in learnt.module.rate.values())


def test_item_effects_text_and_directions_are_drawn_to_their_start(make):
    far, near = (make(meta_steps=30, meta_lr=0.01, proximal=value) for value in (0.0, 1e5))
    for name, start in near.started_at.items():
        moved = [(getattr(learner.module, name) - start).square().mean() for learner in (far, near)]
        assert moved[1] < 0.3 * moved[0]


def test_prompts_take_fewer_steps_unless_they_are_given():
    plain, prompt = MAMLLM.Config(), MAMLLM.Config(adapts="prompt")
    assert prompt.meta_steps < plain.meta_steps and prompt.meta_batch < plain.meta_batch
    assert MAMLLM.Config(adapts="prompt", meta_steps=500).meta_steps == 500
    assert MAMLLM.Config(**prompt.model_dump()) == prompt


def test_meta_validation_looks_at_as_many_users_as_are_asked_for(make, source, text_ctx, monkeypatch):
    seen = []
    original = MetaTrainSet.validation_episodes
    monkeypatch.setattr(
        MetaTrainSet,
        "validation_episodes",
        lambda self, first, count, **sizes: (
            seen.append(count * sizes["n_users"]) or original(self, first, count, **sizes)
        ),
    )
    make(meta_steps=1, validation_users=10)
    assert seen and max(seen) < 15


def test_texts_of_another_data_set_are_refused(make, source, text_ctx):
    learner = make()
    other = replace(text_ctx, catalog=replace(source.catalog, template="{title}: a film"))
    with pytest.raises(NotApplicable, match="own item texts"):
        learner.meta_fit(source, other)


def test_products_with_principal_directions_are_uncorrelated_and_of_mean_square_norm_one():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 9, 4, 2, 1, 0])
    z = x @ principal_directions(x, 2)
    covariance = z.T @ z / 200
    largest = torch.linalg.eigvalsh(x.T @ x).flip(0)[:2]
    torch.testing.assert_close(covariance, torch.diag(largest / largest.sum()))


class TestHeadsKeepTheContract(LearnerConformance):
    learner = MAMLLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = SMALL | {"backbone": tiny_bert, "precision": "float32", "meta_steps": 6}


class TestPromptsKeepTheContract(LearnerConformance):
    learner = MAMLLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        small = {"precision": "float32", "meta_steps": 3, "validation_users": 20}
        cls.config = SMALL | small | {"backbone": tiny_bert, "adapts": "prompt"}
