"""Fine-tuning a text encoder on a support, against closed forms, and what it must not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewrec.data.table import Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.support import Support
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.bert import BertFinetune, BertFinetuneConfig, BertMeta, BertMetaConfig
from fewrec.learners.effects import ridge_effects
from fewrec.learners.text.backbone import load_backbone
from fewrec.learners.text.config import TextConfig
from fewrec.learners.text.heads import Rows, solve_heads
from fewrec.learners.text.regression import standard
from fewrec.learners.text.training import fine_tune
from fewrec.learners.validation import Validation
from fewrec.testing import LearnerConformance

SCALE = Scale(1, 5, 1)


@pytest.fixture
def make(tiny_bert, text_ctx):
    def prepared(cls, **options):
        learner = cls(cls.Config(backbone=tiny_bert, **options))
        learner.prepare(text_ctx)
        return learner

    return prepared


@pytest.fixture(scope="module")
def support(text_split) -> Support:
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    return sampler.sample(0, 1, n_users=3, k_shot=6, n_query=5).support[0]


@pytest.fixture(scope="module")
def everything(text_split) -> tuple[torch.Tensor, torch.Tensor]:
    n_items = len(text_split.catalog)
    return torch.arange(3).repeat_interleave(n_items), torch.arange(n_items).repeat(3)


class TestBertFinetuneKeepsTheContract(LearnerConformance):
    learner = BertFinetune

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "precision": "float32", "epochs": 2}


class TestBertMetaKeepsTheContract(LearnerConformance):
    learner = BertMeta

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "precision": "float32", "epochs": 2, "meta_epochs": 2, "n_query": 5}


def penalised_least_squares(x, user, target, n_users, variances, prior_head):
    """Return (offsets, head, own heads) from the normal equations of all of them at once, in float64."""
    n, d = x.shape
    design = np.zeros((n, n_users + d + n_users * d))
    design[np.arange(n), user] = 1
    design[:, n_users : n_users + d] = x
    for row in range(n):
        start = n_users + d + user[row] * d
        design[row, start : start + d] = x[row]
    prior = np.concatenate([np.zeros(n_users), prior_head, np.zeros(n_users * d)])
    precision = 1 / np.repeat(np.array(variances), [n_users, d, n_users * d])
    found = prior + np.linalg.solve(design.T @ design + np.diag(precision), design.T @ (target - design @ prior))
    return found[:n_users], found[n_users : n_users + d], found[n_users + d :].reshape(n_users, d)


def standardised(support) -> Rows:
    """Return a support as the rows of a batch of one episode."""
    middle, spread = standard(support.rating, SCALE)
    target = ((support.rating - middle) / spread).float()
    return Rows(support.user[None], support.item[None], target[None])


def test_heads_of_many_episodes_reach_the_penalised_least_squares_solutions():
    rng = np.random.default_rng(0)
    x, user, target = rng.normal(size=(5, 14, 4)), rng.integers(3, size=(5, 14)), rng.normal(size=(5, 14))
    prior = rng.normal(size=4)
    config = TextConfig(user_variance=0.3, head_variance=0.7, user_head_variance=0.2)
    rows = Rows(torch.tensor(user), torch.arange(14).expand(5, 14), torch.tensor(target))
    heads = solve_heads(torch.tensor(x), rows, 3, config, torch.tensor(prior))
    for e in range(5):
        expected = penalised_least_squares(x[e], user[e], target[e], 3, (0.3, 0.7, 0.2), prior)
        for found, wanted in zip(heads.parts(), expected, strict=True):
            np.testing.assert_allclose(found[e].numpy(), wanted, atol=1e-10)


def test_training_the_head_alone_ends_at_the_penalised_least_squares_solution(make, support):
    learner = make(BertFinetune, layers=0, epochs=1500, head_learning_rate=0.03)
    rows = standardised(support)
    x = learner.features.frozen({}, support.item)
    zero = torch.zeros(x.shape[1])
    start = solve_heads(x[None], rows, 3, learner.config, zero)
    far = replace(start, offset=start.offset + 1.0, head=start.head - 0.3)
    _, heads = fine_tune(learner.features, {}, far, rows, learner.config, [torch.Generator()], zero)
    x64, target, variances = x.double().numpy(), rows.target[0].double().numpy(), learner.config.variances
    expected = penalised_least_squares(x64, support.user.numpy(), target, 3, variances, zero.numpy())
    np.testing.assert_allclose(heads.offset[0].numpy(), expected[0], atol=2e-3)
    np.testing.assert_allclose(heads.head[0].numpy(), expected[1], atol=2e-3)


@pytest.mark.parametrize("method", ["last", "bias", "lora", "full"])
def test_training_lowers_the_penalised_loss_and_moves_only_copies(make, support, method):
    learner = make(BertFinetune, method=method, layers=2, epochs=8, learning_rate=1e-3)
    rows, features = standardised(support), learner.features
    before = {name: p.clone() for name, p in features.stack.backbone.trunk.named_parameters()}
    params = {name: p[None] for name, p in learner.initial(torch.Generator().manual_seed(0)).items()}
    start = {name: p.clone() for name, p in params.items()}
    zero = torch.zeros_like(features.centre)

    def x(params):
        return features.grouped(params, rows.item)

    def loss(params, heads):
        error = heads(rows.user, x(params)) - rows.target
        return float((error.square().mean(1) + heads.penalty(learner.config, zero) / len(rows)).sum())

    heads = solve_heads(x(params), rows, 3, learner.config, zero)
    tuned, tuned_heads = fine_tune(features, params, heads, rows, learner.config, [torch.Generator()], zero)
    assert loss(tuned, tuned_heads) < (0.995 if method == "bias" else 0.98) * loss(params, heads)
    assert all(torch.equal(p, before[name]) for name, p in features.stack.backbone.trunk.named_parameters())
    assert all(torch.equal(params[name], value) for name, value in start.items())
    assert any(not torch.equal(tuned[name], value) for name, value in start.items())


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_full_fine_tuning_takes_the_steps_of_a_plain_loop_over_the_whole_model(make, support, tiny_bert, optimizer):
    rate = 0.05 if optimizer == "sgd" else 1e-3
    options = {
        "epochs": 3,
        "learning_rate": rate,
        "head_learning_rate": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
    }
    learner = make(BertFinetune, method="full", optimizer=optimizer, states="last", **options)
    rows, features = standardised(support), learner.features
    params = {name: p[None] for name, p in learner.initial(torch.Generator()).items()}
    zero = torch.zeros_like(features.centre)
    heads = solve_heads(features.grouped(params, rows.item), rows, 3, learner.config, zero)
    tuned, _ = fine_tune(features, params, heads, rows, learner.config, [torch.Generator()], zero)

    plain = load_backbone(tiny_bert)
    model = plain.trunk.requires_grad_(True)
    ids = features.activations
    classes = {"adamw": torch.optim.AdamW, "adafactor": torch.optim.Adafactor, "sgd": torch.optim.SGD}
    extra = {} if optimizer == "sgd" else {"weight_decay": 0.0}
    extra |= {"eps": 1e-6} if optimizer == "adamw" else {}
    optimiser = classes[optimizer](model.parameters(), lr=rate, **extra)
    for _ in range(3):
        x = []
        for item in support.item.tolist():
            tokens = ids.ids[ids.offsets[item] : ids.offsets[item + 1]]
            state = model(input_ids=tokens[None]).last_hidden_state
            x.append(state.mean(1)[0])
        found = heads(rows.user, ((torch.stack(x) - features.centre) / features.spread)[None])
        optimiser.zero_grad()
        (found - rows.target).square().mean().backward()
        optimiser.step()
    for name, value in model.named_parameters():
        # Of a key's bias the gradient is zero, the softmax being what it is, and Adam makes steps of its rounding.
        if "word_embeddings" not in name and "key.bias" not in name and optimizer != "adafactor":
            torch.testing.assert_close(tuned[f"trunk.{name}"][0], value.detach(), rtol=0, atol=5e-5)
    # Adafactor's steps depend on the whole table of words, of which only the catalog's are trained.
    if optimizer != "adafactor":
        words = model.get_input_embeddings().weight[features.vocabulary].detach()
        torch.testing.assert_close(tuned["words"][0], words, rtol=0, atol=5e-5)


@pytest.mark.parametrize("options", [{"method": "last"}, {"method": "lora", "layers": 2}, {"method": "full"}])
def test_bfloat16_predicts_nearly_what_float32_does(make, support, everything, text_ctx, options):
    found = []
    for precision in ("float32", "bfloat16"):
        learner = make(BertFinetune, epochs=3, learning_rate=1e-3, precision=precision, **options)
        found.append(learner.adapt(support, text_ctx).predict(*everything))
    assert found[0].std() > 0.1
    off = float((found[0] - found[1]).square().mean().sqrt())
    assert 0 < off < 0.02  # half a percent of the scale; not zero, or bfloat16 was not used


def test_without_text_a_user_is_the_shrunk_support_mean(make, support, everything, text_ctx):
    learner = make(BertFinetune, epochs=0, head_variance=0, user_head_variance=0, user_variance=0.25)
    found = learner.adapt(support, text_ctx).predict(*everything).reshape(3, -1)
    overall = support.rating.mean()
    for user in range(3):
        own = support.rating[support.user == user]
        expected = overall + (own - overall).sum() / (len(own) + 4)  # a variance of 1/4 is a ridge of 4 ratings
        torch.testing.assert_close(found[user], expected.expand_as(found[user]), rtol=0, atol=1e-5)


def test_one_rating_and_equal_ratings_predict_that_rating(make, everything, text_ctx, support):
    learner = make(BertFinetune)
    four = torch.tensor([4.0]).double()
    one = replace(support, user=support.user[:1], item=support.item[:1], rating=four, timestamp=None)
    equal = replace(support, rating=torch.full_like(support.rating, 2.0))
    for given, rating in ((one, 4.0), (equal, 2.0)):
        found = learner.adapt(given, text_ctx).predict(*everything)
        torch.testing.assert_close(found, torch.full_like(found, rating), rtol=0, atol=1e-6)


def test_minibatches_are_drawn_from_the_episodes_seed_alone(make, support, everything, text_ctx):
    learner = make(BertFinetune, epochs=2, batch_size=4)
    same, again, other = (
        learner.adapt(replace(support, seed=seed), text_ctx).predict(*everything) for seed in (7, 7, 8)
    )
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_data_without_text_is_not_applicable(tiny_bert, text_ctx):
    learner = BertFinetune(BertFinetuneConfig(backbone=tiny_bert))
    with pytest.raises(NotApplicable, match="needs item text"):
        learner.prepare(replace(text_ctx, catalog=replace(text_ctx.catalog, text=None)))


def test_more_layers_than_the_backbone_has_is_not_applicable(tiny_bert, text_ctx):
    with pytest.raises(NotApplicable, match="layers = 9, but .* has 3"):
        BertFinetune(BertFinetuneConfig(backbone=tiny_bert, layers=9)).prepare(text_ctx)


def test_meta_head_is_the_weighted_ridge_of_item_means_on_text(make, text_split, text_ctx):
    learner = make(BertMeta, meta_epochs=0)
    source = MetaTrainSet(text_split, text_ctx.scale)
    learner.meta_fit(source, text_ctx)
    table, config = source.table, learner.config
    effects = ridge_effects(table, config.item_ridge, config.meta_user_ridge)
    residual = table.rating - effects.mu - effects.user[table.user]
    items = np.unique(table.item)
    mean = np.array([residual[table.item == i].mean() for i in items])
    count = np.array([(table.item == i).sum() for i in items])
    weight = count / (count + config.weight_ridge)
    centre = np.average(mean, weights=weight)
    x = learner.features.frozen(learner.initial(torch.Generator()), torch.from_numpy(items)).double().numpy()
    root = np.sqrt(weight)[:, None]
    stacked = np.vstack([root * x, np.sqrt(config.text_ridge) * np.eye(x.shape[1])])
    head = np.linalg.lstsq(stacked, np.concatenate([root[:, 0] * (mean - centre), np.zeros(x.shape[1])]), rcond=None)[0]
    np.testing.assert_allclose(learner.prior.head.numpy() * learner.prior.spread, head, atol=1e-4)
    text = x @ head
    text += np.average(effects.mu + mean - text, weights=count)  # right for the average rating
    np.testing.assert_allclose(learner.prior.text_effect()[items].numpy(), text, atol=1e-4)
    corrected = text + (effects.mu + mean - text) * count / (count + config.effect_ridge)
    both = learner.prior.text_effect() + learner.prior.correction
    np.testing.assert_allclose(both[items].numpy(), corrected, atol=1e-4)
    unseen = np.setdiff1d(np.arange(table.n_items), items)
    assert len(unseen) and torch.all(learner.prior.correction[unseen] == 0)


def test_the_text_only_row_shares_the_meta_fit_without_item_effects(make, text_split, text_ctx, support, everything):
    assert "item_effects" in BertMeta.adapt_options
    learner = make(BertMeta, meta_epochs=1, n_query=5)
    learner.meta_fit(MetaTrainSet(text_split, text_ctx.scale), text_ctx)
    text_only = make(BertMeta, meta_epochs=1, n_query=5, item_effects=False)
    text_only.load_state(*learner.state(), text_ctx)
    empty = replace(support, user=support.user[:0], item=support.item[:0], rating=support.rating[:0], timestamp=None)
    with_effects, without = (each.adapt(empty, text_ctx).predict(*everything) for each in (learner, text_only))
    item = everything[1]
    torch.testing.assert_close(without, learner.prior.text_effect()[item], rtol=0, atol=1e-4)
    torch.testing.assert_close(with_effects - without, learner.prior.correction[item], rtol=0, atol=1e-6)


def test_options_of_adapting_do_not_move_the_meta_fit(make, text_split, text_ctx):
    source = MetaTrainSet(text_split, text_ctx.scale)
    options = {
        "item_effects": False,
        "epochs": 3,
        "batch_size": 3,
        "learning_rate": 0.1,
        "weight_decay": 0.3,
        "jitter": 0.1,
    }
    states = []
    for given in ({}, options):
        learner = make(BertMeta, meta_epochs=2, n_query=5, **given)
        learner.meta_fit(source, text_ctx)
        states.append(learner.state())
    assert set(options) <= BertMeta.adapt_options
    assert states[0][1] == states[1][1]
    assert all(torch.equal(tensor, states[1][0][name]) for name, tensor in states[0][0].items())


def test_a_known_user_brings_the_ratings_of_meta_train(make, text_split, text_ctx, support, everything):
    learner = make(BertMeta, meta_epochs=0, epochs=0)
    learner.meta_fit(MetaTrainSet(text_split, text_ctx.scale), text_ctx)
    start, end = learner.known.offsets[4:6].tolist()
    spelt_out = replace(
        support,
        user=torch.cat([support.user, torch.zeros(end - start, dtype=torch.int64)]),
        item=torch.cat([support.item, learner.known.item[start:end]]),
        rating=torch.cat([support.rating, learner.known.rating[start:end]]),
        timestamp=None,
    )
    known = replace(support, meta_user=torch.tensor([4, -1, -1]))
    found, expected = (learner.adapt(each, text_ctx).predict(*everything) for each in (known, spelt_out))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_meta_training_keeps_the_best_epoch_on_meta_validation(make, text_split, text_ctx):
    curve: list[float] = []
    ctx: Context = replace(text_ctx, record=lambda step, scalars: curve.append(scalars["validation_rmse"]))
    learner = make(
        BertMeta, meta_epochs=4, meta_learning_rate=0.05, meta_head_learning_rate=0.5, meta_patience=4, n_query=5
    )
    source = MetaTrainSet(text_split, text_ctx.scale)
    learner.meta_fit(source, ctx)
    assert len(curve) == 5 and max(curve) > min(curve)
    judge = BertMeta(BertMetaConfig(**{**learner.config.model_dump(), "item_effects": False, "epochs": 0}))
    judge.features, judge.known, judge.prior = learner.features, learner.known, learner.prior
    assert Validation(source, (5, 10), 5).rmse(judge, text_ctx) == min(curve)
