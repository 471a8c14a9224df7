"""TaNP against a plain loop over tasks and numpy loops of the paper's equations, and on users with tastes."""

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
from fewrec.learners.tanp import TaNP
from fewrec.testing import LearnerConformance

SMALL = {"meta_steps": 30, "meta_batch": 20, "rank": 3, "hidden": 8, "latent": 4, "task_dim": 5, "clusters": 3,
         "pretrain_sweeps": 3, "evaluate_every": 10}  # fmt: skip
PLAIN = Path(__file__).parents[2] / "benchmarks" / "perf" / "plain_tanp.py"


@pytest.fixture(scope="module")
def plain():
    spec = importlib.util.spec_from_file_location("plain_tanp", PLAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def setting(state="user-cold", **synthetic):
    arguments = {"n_users": 80, "n_items": 40, "density": 0.6, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    split = split_dataset(dataset, Protocol(state=state, k_max=8), 0)
    return MetaTrainSet(split, dataset.scale), Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))


def random_one(**options):
    """Return a float64 learner whose parameters are random numbers, ragged tasks (one without support), and noise."""
    source, ctx = setting()
    learner = TaNP(TaNP.Config(**SMALL | {"meta_steps": 0, "dtype": "float64"} | options))
    learner.meta_fit(source, ctx)
    generator = torch.Generator().manual_seed(3)
    for value in learner.module.parameters():
        value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64) * 0.4)
    learner.module.requires_grad_(True)
    tasks = Tasks.of_episodes(
        source.train_episodes(0, 3, n_users=2, k_shot=5, n_query=4), ctx.device, torch.float64
    ).with_support_mask((torch.arange(5) < torch.tensor([[0], [1], [5], [2], [3], [4]])).double())
    return learner, tasks, torch.randn(6, learner.config.latent, generator=generator, dtype=torch.float64)


CASES = {
    "one layer": {},
    "three layers": {"layers": 3},
    "film": {"decoder": "film", "layers": 2, "alpha": 2.5, "aggregate_prior": 0.5},
    "in parts": {"split": 4, "cluster_weight": 2.0},
}


@pytest.mark.parametrize("case", CASES)
def test_a_meta_step_has_the_loss_and_the_gradients_of_a_plain_loop_over_tasks(plain, case):
    learner, tasks, noise = random_one(**CASES[case])
    wanted, gradients = plain.meta_step(learner, tasks, noise)
    assert learner.meta_gradient(tasks, noise) == pytest.approx(wanted, abs=1e-10)
    parameters = dict(learner.module.named_parameters())
    assert parameters.keys() == gradients.keys()
    for name, value in parameters.items():
        torch.testing.assert_close(value.grad, gradients[name], rtol=0, atol=1e-10)
        assert (gradients[name] != 0).any(), name


def test_predictions_are_those_of_the_papers_equations_with_z_at_its_mean():
    learner, tasks, _ = random_one(layers=2)
    p = {name: value.detach().numpy() for name, value in learner.module.state_dict().items()}
    config, attributes = learner.config, learner.module.items.attributes.numpy()
    item_embedding = p["items.id.weight"] + attributes @ p["items.content.weight"].T

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0.0)

    def mean_of(name, pairs):
        total = np.zeros(len(p[f"{name}.2.bias"]))
        for pair in pairs:
            total += linear(f"{name}.2", np.maximum(linear(f"{name}.0", pair), 0))
        return total / (len(pairs) + config.aggregate_prior)

    with torch.no_grad():
        found = learner.predict_items(tasks, learner.adapt_tasks(tasks), tasks.query.item).numpy()
    for t in range(len(tasks)):
        k = int(tasks.support.mask[t].sum())
        item, rating = tasks.support.item[t, :k].numpy(), tasks.support.rating[t, :k].numpy()
        left = [r - p["items.base"][i] for i, r in zip(item, rating, strict=True)]
        effect = sum(left) / (k + config.user_ridge)
        user = linear("user", tasks.user[t].numpy())
        pairs = [
            np.concatenate([item_embedding[i], user, [y - effect, effect]]) for i, y in zip(item, left, strict=True)
        ]
        z = linear("mean", np.maximum(linear("to_latent", mean_of("encoder", pairs)), 0))
        temporary = mean_of("identity", pairs)
        kernel = [(1 + np.sum((temporary - a) ** 2) / config.alpha) ** (-(config.alpha + 1) / 2) for a in p["centres"]]
        o = temporary + sum(c * a for c, a in zip(kernel / np.sum(kernel), p["centres"], strict=True))
        for column, i in enumerate(tasks.query.item[t].numpy()):
            g = np.concatenate([item_embedding[i], user, z])
            for layer in ("decoder.0", "decoder.1"):
                gamma, beta, eta = (np.tanh(linear(f"{layer}.{part}", o)) for part in ("gamma", "beta", "eta"))
                delta = 1 / (1 + np.exp(-linear(f"{layer}.delta", o)))
                gamma, beta = gamma * delta + eta * (1 - delta), beta * delta + eta * (1 - delta)
                g = np.maximum(gamma * linear(f"{layer}.linear", g) + beta, 0)
            wanted = p["items.base"][i] + effect + linear("output", g)[0]
            assert found[t, column] == pytest.approx(wanted, abs=1e-12)


def test_what_the_query_does_not_change_costs_no_divergence():
    learner, tasks, noise = random_one(kl_weight=1.0, cluster_weight=0.0)
    last, objective = learner.module.encoder[2], []
    for _ in range(2):
        with torch.no_grad():
            adapted = learner.adapt_tasks(tasks)
            z = {"z": adapted["z"] + noise * (adapted["log_variance"] / 2).exp()}
            errors = (learner.predict_items(tasks, adapted | z, tasks.query.item) - tasks.query.rating).square().sum(1)
            objective.append((learner.objectives(tasks, noise) - errors).abs().max())
            last.weight.zero_()  # now every pair says the same to the latent path: nothing
            last.bias.zero_()
    assert objective[0] > 0.1 and objective[1] < 1e-12


def test_the_clustering_loss_is_zero_where_all_tasks_are_assigned_alike_and_else_positive():
    learner, tasks, noise = random_one(kl_weight=0.0, cluster_weight=1.0)
    without = TaNP(learner.config.model_copy(update={"cluster_weight": 0.0}))
    without.module, loss = learner.module, []
    for _ in range(2):
        with torch.no_grad():
            loss.append(learner.objectives(tasks, noise) - without.objectives(tasks, noise))
            learner.module.identity[2].weight.zero_()
            learner.module.identity[2].bias.zero_()
    assert (loss[0] > 1e-4).all() and loss[1].abs().max() < 1e-12


def test_before_meta_training_it_predicts_what_the_additive_model_does():
    source, ctx = setting()
    learner = TaNP(TaNP.Config(**SMALL | {"meta_steps": 0}))
    learner.meta_fit(source, ctx)
    support = source.validation_episodes(0, 2, n_users=2, k_shot=3, n_query=2).support
    predictor = learner.adapt_batch(support, ctx)
    item = torch.arange(source.table.n_items)
    found = predictor.predict(torch.zeros_like(item), torch.zeros_like(item), item)
    torch.testing.assert_close(found, learner.module.items.base + predictor.adapted["effect"][0])


def rmse(learner, source, ctx, k_shot=8) -> float:
    episodes = source.validation_episodes(1000, 60, n_users=5, k_shot=k_shot, n_query=8)
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    return float((predicted - episodes.answers.rating).square().mean().sqrt())


def test_it_beats_the_bias_model_where_users_have_tastes():
    source, ctx = setting(n_users=200, factor_std=1.0, noise=0.3)
    options = {"meta_steps": 150, "meta_batch": 50, "rank": 3, "pretrain_sweeps": 5, "hidden": 32}
    learner, untrained, bias = (TaNP(TaNP.Config(**options)), TaNP(TaNP.Config(**options | {"meta_steps": 0})), Bias())
    for each in (learner, untrained, bias):
        each.meta_fit(source, ctx)
    assert rmse(learner, source, ctx) < 0.9 * min(rmse(bias, source, ctx), rmse(untrained, source, ctx))


class TestTaNPConformance(LearnerConformance):
    learner = TaNP
    config = SMALL
