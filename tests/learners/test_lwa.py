"""LWA and NLBA against numpy loops of the paper's equations, and on users with tastes."""

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
from fewrec.learners.lwa import LWA, NLBA
from fewrec.testing import LearnerConformance

SMALL = {"meta_steps": 30, "meta_batch": 20, "rank": 3, "pretrain_sweeps": 3, "evaluate_every": 10}


def setting(state="user-cold", **synthetic):
    arguments = {"n_users": 80, "n_items": 40, "density": 0.6, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


@pytest.fixture(scope="module", params=[LWA, NLBA])
def random_one(request):
    """A learner in float64 whose parameters are random numbers, and ragged tasks, the first without support."""
    source, ctx = setting()
    learner = request.param(request.param.Config(**SMALL | {"meta_steps": 0, "dtype": "float64"}))
    learner.meta_fit(source, ctx)
    generator = torch.Generator().manual_seed(3)
    for value in learner.module.parameters():
        value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64) * 0.5)
    learner.module.requires_grad_(True)
    episodes = source.train_episodes(0, 3, n_users=2, k_shot=5, n_query=4)
    tasks = Tasks.of_episodes(episodes, ctx.device, torch.float64)
    shots = torch.tensor([[0], [1], [5], [2], [3], [4]])
    return learner, tasks.with_support_mask((torch.arange(5) < shots).double()), source


def plain_predictions(learner, tasks, t: int) -> np.ndarray:
    """Return the predictions of task t's query, rating after rating, from the paper's equations."""
    module = {name: value.detach().numpy() for name, value in learner.module.state_dict().items()}
    config = learner.config
    base, attributes = module["items.base"], learner.module.items.attributes.numpy()
    embedded = module["items.id.weight"] + attributes @ module["items.content.weight"].T
    k = int(tasks.support.mask[t].sum())
    item, rating = tasks.support.item[t, :k].numpy(), tasks.support.rating[t, :k].numpy()
    effect = sum(rating[j] - base[item[j]] for j in range(k)) / (k + config.user_ridge)
    total, count = np.zeros((2, config.rank)), np.full(2, config.prior)
    for j in range(k):
        liked = 1 / (1 + np.exp(-(rating[j] - base[item[j]] - effect) / config.temperature))
        for c, share in ((0, 1 - liked), (1, liked)):
            total[c] += share * embedded[item[j]]
            count[c] += share
    r0, r1 = total[0] / count[0], total[1] / count[1]
    found = []
    for i in tasks.query.item[t].numpy():
        if learner.name == "lwa":
            w = module["class_weight"]
            score = module["bias"] + (w[0] * r0 + w[1] * r1) @ embedded[i]
        else:
            v, outer = module["inner_bias.weight"], module["outer_bias.weight"][0]
            d = config.rank
            hidden = module["inner.weight"] @ embedded[i] + module["inner.bias"] + v[:, :d] @ r0 + v[:, d:] @ r1
            score = module["outer.weight"][0] @ np.maximum(hidden, 0) + module["outer.bias"][0]
            score += outer[:d] @ r0 + outer[d:] @ r1
        found.append(base[i] + effect + score)
    return np.array(found)


def test_predictions_are_those_of_the_papers_equations_on_ragged_supports(random_one):
    learner, tasks, _ = random_one
    with torch.no_grad():
        found = learner.predict_items(tasks, learner.adapt_tasks(tasks), tasks.query.item).numpy()
    for t in range(len(tasks)):
        np.testing.assert_allclose(found[t], plain_predictions(learner, tasks, t), rtol=0, atol=1e-12)


def plain_objective(learner, tasks) -> float:
    rating = tasks.query.rating.numpy()
    return float(np.mean([(plain_predictions(learner, tasks, t) - rating[t]) ** 2 for t in range(len(tasks))]))


def test_the_meta_gradient_is_the_slope_of_the_mean_squared_error(random_one):
    learner, tasks, _ = random_one
    learner.module.zero_grad()
    assert learner.meta_gradient(tasks) == pytest.approx(plain_objective(learner, tasks), abs=1e-12)
    generator, step = torch.Generator().manual_seed(0), 1e-6
    for value in learner.module.parameters():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            value += step * direction
            above = plain_objective(learner, tasks)
            value -= 2 * step * direction
            below = plain_objective(learner, tasks)
            value += step * direction
        slope = float((value.grad * direction).sum())
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_parts_of_a_meta_batch_add_up_to_the_same_gradient(random_one):
    learner, tasks, _ = random_one
    gradients = []
    for split in (0, 4):
        learner.config = learner.config.model_copy(update={"split": split})
        learner.module.zero_grad()
        learner.meta_gradient(tasks)
        gradients.append([value.grad.clone() for value in learner.module.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)


def test_cold_classes_without_prior_are_the_mean_embeddings_of_liked_and_disliked_items(random_one):
    learner, tasks, _ = random_one
    hard = type(learner)(learner.config.model_copy(update={"temperature": 1e-6, "prior": 0.0}))
    hard.module = learner.module
    with torch.no_grad():
        effect, residual = learner.module.items.residuals(tasks.support, learner.config.user_ridge)
        found, embedded = hard.adapt_tasks(tasks)["prototypes"], learner.module.items(tasks.support.item)
    for t in range(len(tasks)):
        given = tasks.support.mask[t] > 0
        for c, chosen in enumerate((given & (residual[t] < 0), given & (residual[t] > 0))):
            wanted = embedded[t, chosen].mean(0) if chosen.any() else torch.zeros(learner.config.rank).double()
            torch.testing.assert_close(found[t, c], wanted, rtol=0, atol=1e-12)
    assert (found[1] == 0).all(1).any(), "a support of one rating has a class without any"


def test_before_meta_training_nlba_predicts_what_the_additive_model_does():
    source, ctx = setting()
    learner = NLBA(NLBA.Config(**SMALL | {"meta_steps": 0}))
    learner.meta_fit(source, ctx)
    support = source.validation_episodes(0, 2, n_users=2, k_shot=3, n_query=2).support
    predictor = learner.adapt_batch(support, ctx)
    item = torch.arange(source.table.n_items)
    found = predictor.predict(torch.zeros_like(item), torch.zeros_like(item), item)
    torch.testing.assert_close(found, learner.module.items.base + predictor.adapted["effect"][0])


def test_an_unseen_item_is_embedded_by_its_attributes_alone():
    source, ctx = setting("both-cold")
    learner = LWA(LWA.Config(**SMALL))
    learner.meta_fit(source, ctx)
    items, unseen = learner.module.items, torch.from_numpy(~source.catalog.seen).nonzero().squeeze(1)
    assert len(unseen) and (items.id.weight[unseen] == 0).all() and (items(unseen) != 0).any()
    torch.testing.assert_close(items(unseen), items.attributes[unseen] @ items.content.weight.T)


def rmse(learner, source, ctx, k_shot=8) -> float:
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=k_shot, n_query=8)
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted - episodes.answers.rating).square().mean().sqrt())


@pytest.mark.parametrize("kind", [LWA, NLBA])
def test_it_beats_the_bias_model_where_users_have_tastes_and_more_so_when_meta_trained(kind):
    source, ctx = setting(n_users=200, factor_std=1.0, noise=0.3)
    options = {"meta_steps": 150, "meta_batch": 50, "rank": 3, "pretrain_sweeps": 5}
    learner, untrained, bias = kind(kind.Config(**options)), kind(kind.Config(**options | {"meta_steps": 0})), Bias()
    for each in (learner, untrained, bias):
        each.meta_fit(source, ctx)
    assert rmse(learner, source, ctx) < 0.9 * rmse(bias, source, ctx)
    assert rmse(learner, source, ctx) < 0.97 * rmse(untrained, source, ctx)


class TestLWAConformance(LearnerConformance):
    learner = LWA
    config = SMALL


class TestNLBAConformance(LearnerConformance):
    learner = NLBA
    config = SMALL | {"hidden": 6}
