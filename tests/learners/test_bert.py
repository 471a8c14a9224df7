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
from fewrec.learners.text_regression import Rows, TextConfig, fine_tune, solve_heads, standard
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
        cls.config = {"backbone": tiny_bert, "epochs": 2}


class TestBertMetaKeepsTheContract(LearnerConformance):
    learner = BertMeta

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "epochs": 2, "meta_epochs": 2, "n_query": 5}


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


def test_heads_reach_the_penalised_least_squares_solution():
    rng = np.random.default_rng(0)
    x, user, target, prior = rng.normal(size=(14, 4)), rng.integers(3, size=14), rng.normal(size=14), rng.normal(size=4)
    config = TextConfig(user_variance=0.3, head_variance=0.7, user_head_variance=0.2)
    rows = Rows(torch.tensor(user), torch.arange(14), torch.tensor(target))
    heads = solve_heads(torch.tensor(x), rows, 3, config, torch.tensor(prior))
    expected = penalised_least_squares(x, user, target, 3, (0.3, 0.7, 0.2), prior)
    for found, wanted in zip((heads.offset, heads.head, heads.user_head), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-10)


def test_training_the_head_alone_ends_at_the_penalised_least_squares_solution(make, support):
    learner = make(BertFinetune, layers=0, epochs=1500, head_learning_rate=0.03)
    middle, spread = standard(support.rating, SCALE)
    rows = Rows(support.user, support.item, ((support.rating - middle) / spread).float())
    x = learner.features.frozen({}, support.item)
    zero = torch.zeros(x.shape[1])
    start = solve_heads(x, rows, 3, learner.config, zero)
    far = replace(start, offset=start.offset + 1.0, head=start.head - 0.3)
    _, heads = fine_tune(learner.features, {}, far, rows, learner.config, torch.Generator(), zero)
    x64, target, variances = x.double().numpy(), rows.target.double().numpy(), learner.config.variances
    expected = penalised_least_squares(x64, support.user.numpy(), target, 3, variances, zero.numpy())
    np.testing.assert_allclose(heads.offset.numpy(), expected[0], atol=2e-3)
    np.testing.assert_allclose(heads.head.numpy(), expected[1], atol=2e-3)


def test_training_layers_lowers_the_penalised_loss_and_moves_only_copies(make, support):
    learner = make(BertFinetune, layers=2, epochs=8, learning_rate=1e-3)
    middle, spread = standard(support.rating, SCALE)
    rows = Rows(support.user, support.item, ((support.rating - middle) / spread).float())
    before = {name: p.clone() for name, p in learner.features.upper.named_parameters()}
    params = learner.features.initial(torch.Generator())
    zero = torch.zeros_like(learner.features.centre)

    def loss(params, heads):
        error = heads(rows.user, learner.features.frozen(params, rows.item)) - rows.target
        return float(error.square().mean() + heads.penalty(learner.config, zero) / len(rows.target))

    heads = solve_heads(learner.features.frozen(params, rows.item), rows, 3, learner.config, zero)
    tuned, tuned_heads = fine_tune(learner.features, params, heads, rows, learner.config, torch.Generator(), zero)
    assert loss(tuned, tuned_heads) < 0.95 * loss(params, heads)
    assert all(torch.equal(p, before[name]) for name, p in learner.features.upper.named_parameters())
    assert all(torch.equal(params[name], before[name]) for name in params)


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
    x = learner.features.frozen(learner.features.initial(torch.Generator()), torch.from_numpy(items)).double().numpy()
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
    options = {"item_effects": False, "epochs": 3, "batch_size": 3, "learning_rate": 0.1, "weight_decay": 0.3}
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
    learner = make(BertMeta, meta_epochs=4, meta_learning_rate=0.05, meta_head_learning_rate=0.5, patience=4, n_query=5)
    source = MetaTrainSet(text_split, text_ctx.scale)
    learner.meta_fit(source, ctx)
    assert len(curve) == 5 and max(curve) > min(curve)
    judge = BertMeta(BertMetaConfig(**{**learner.config.model_dump(), "item_effects": False, "epochs": 0}))
    judge.features, judge.known, judge.prior = learner.features, learner.known, learner.prior
    assert Validation(source, (5, 10), 5).rmse(judge, text_ctx) == min(curve)
