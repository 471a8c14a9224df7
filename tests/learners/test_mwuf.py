"""The Meta Warm Up Framework against a plain computation of its warmed embeddings, and on data that reward it."""

from dataclasses import replace
from math import sqrt, tanh
from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Catalog
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.cold_base import Ratings
from fewrec.learners.mwuf import MWUF, MWUFConfig
from fewrec.testing import LearnerConformance

SMALL = {"rank": 3, "sweeps": 3, "meta_steps": 20, "evaluate_every": 10, "hidden": 4}
LEARNABLE = {"n_users": 200, "n_items": 120, "density": 0.3, "genre_share": 0.9, "factor_std": 1.0, "noise": 0.3}


class TestConformance(LearnerConformance):
    learner = MWUF
    config = SMALL
    rounding = 1e-10


def setting(state: str, item_shots: int = 3, attributes: bool = True, **synthetic):
    arguments = {"n_users": 80, "n_items": 60, "density": 0.6, "rank": 2, "seed": 1} | synthetic
    dataset = make_synthetic(**arguments)
    if not attributes:
        dataset = replace(dataset, catalog=Catalog(item_ids=dataset.catalog.item_ids))
    split = split_dataset(dataset, Protocol(state=state, k_max=4, item_shots=item_shots), 0)
    source = MetaTrainSet(split, dataset.scale)
    ctx = Context(torch.device("cpu"), split.catalog, dataset.scale, Path("."))
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=4, item_shots=item_shots)
    return split, source, ctx, sampler


def randomised(learner: MWUF, n_attributes: int, generator: torch.Generator) -> dict:
    params = learner.initial_params(n_attributes, generator)
    return {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in params.items()}


def network(params: dict, name: str, x: list[float]) -> list[float]:
    """Return a meta network's output for one input, in plain Python."""
    bias, linear, inner, outer = (params[f"{name}_{part}"].tolist() for part in ("bias", "linear", "inner", "outer"))
    hidden = [tanh(sum(x[a] * inner[a][h] for a in range(len(x)))) for h in range(len(outer))]
    return [
        bias[c]
        + sum(x[a] * linear[a][c] for a in range(len(x)))
        + sum(hidden[h] * outer[h][c] for h in range(len(hidden)))
        for c in range(len(bias))
    ]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_warmed_embedding_is_the_trained_cold_one_scaled_by_attributes_and_shifted_by_raters(steps):
    generator = torch.Generator().manual_seed(0)
    learner = MWUF(MWUFConfig(rank=2, hidden=4, warm_steps=steps, warm_rate=1.1, warm_prior=0.6))
    params = randomised(learner, 5, generator)
    n, size, k = 6, 4, 3
    mask = torch.arange(size) < torch.tensor([[4], [0], [1], [3], [2], [4]])  # one item has no shots
    z, y, user, attributes = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n, size, k), (n, size), (n, size, k), (n, 5))
    )
    shots = Ratings(z, y, user, torch.ones(n, size, dtype=torch.float64)).masked(mask.double())
    found = learner.warmed(params, learner.of_items(params, attributes), shots)
    for i in range(n):
        given = [s for s in range(size) if mask[i, s]]
        cold = [0.0] * k
        curvature = 0.6 + sum(float(z[i, s, c]) ** 2 for s in given for c in range(k))
        for _ in range(steps):
            error = {s: float(y[i, s]) - sum(float(z[i, s, c]) * cold[c] for c in range(k)) for s in given}
            pull = [sum(float(z[i, s, c]) * error[s] for s in given) - 0.6 * cold[c] for c in range(k)]
            cold = [cold[c] + 1.1 * pull[c] / curvature for c in range(k)]
        raters = [sum(float(user[i, s, c]) for s in given) / max(len(given), 1) for c in range(k)]
        scale = [1 + v for v in network(params, "scale", attributes[i].tolist())]
        shift = network(params, "shift", raters)
        # In the coordinates of the base model the common embedding is zero, in those of the scaling it is one.
        expected = [scale[c] * (1 + cold[c]) + shift[c] - 1 for c in range(k)]
        np.testing.assert_allclose(found[i].tolist(), expected, atol=1e-12)


def test_before_meta_training_it_is_the_trained_cold_embedding_from_the_mean_of_the_existing_items():
    _, source, ctx, sampler = setting("both-cold")
    learner = MWUF(MWUFConfig(**SMALL | {"meta_steps": 0}))
    learner.meta_fit(source, ctx)
    base, unseen = learner.base, torch.from_numpy(~source.catalog.seen)
    weight = torch.bincount(torch.tensor(source.table.item), minlength=60).double()
    assert unseen.any() and (base.e[unseen] == 0).all() and (learner.given == 1).all()
    mean = (weight.unsqueeze(1) * base.e).sum(0) / weight.sum()
    torch.testing.assert_close(mean, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_warm_loss_is_of_the_query_and_its_gradient_reaches_both_networks_alone():
    generator = torch.Generator().manual_seed(1)
    learner = MWUF(MWUFConfig(rank=2, hidden=3))
    params = randomised(learner, 4, generator)
    attributes = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    shots, query = (
        Ratings(*(torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes), torch.ones(5, s))
        for s, shapes in ((s, ((5, s, 3), (5, s), (5, s, 3))) for s in (3, 6))
    )

    def loss(*values):
        named = dict(zip(params, values, strict=True))
        return learner.loss(named, learner.of_items(named, attributes), shots, query)

    leaves = [value.requires_grad_() for value in params.values()]
    assert torch.autograd.gradcheck(loss, leaves, rtol=1e-6, atol=1e-8)  # against finite differences
    with torch.no_grad():
        warm = learner.warmed(params, learner.of_items(params, attributes), shots)
        errors = [float(query.y[i, s] - query.z[i, s] @ warm[i]) for i in range(5) for s in range(6)]
        assert sqrt(float(loss(*leaves))) == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def rmse(learner, drawn, ctx) -> float:
    predicted = learner.adapt_batch(drawn.support, ctx).predict(*vars(drawn.query).values())
    return float((predicted - drawn.answers.rating).square().mean().sqrt())


@pytest.mark.parametrize("state", ["both-cold", "item-cold"])
def test_it_beats_the_bias_model_with_shots_and_its_own_start_where_genres_tell_the_items(state):
    _, source, ctx, sampler = setting(state, **LEARNABLE)
    drawn = sampler.sample(0, 40, n_users=5, k_shot=4, n_query=4)
    error = {}
    for label, learner in (
        ("bias", Bias()),
        ("mwuf", MWUF(MWUFConfig(rank=4, meta_steps=120))),
        ("untrained", MWUF(MWUFConfig(rank=4, meta_steps=0))),
    ):
        learner.meta_fit(source, ctx)
        error[label] = rmse(learner, drawn, ctx)
    assert error["mwuf"] < 0.85 * error["bias"] and error["mwuf"] < 0.95 * error["untrained"], error


def test_more_shots_make_a_smaller_error():
    split, source, ctx, _ = setting("both-cold", item_shots=16, **LEARNABLE | {"genre_share": 0.3, "n_users": 400})
    learner = MWUF(MWUFConfig(rank=4, meta_steps=60))
    learner.meta_fit(source, ctx)
    errors = []
    for shots in (0, 1, 4, 16):
        sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=4, item_shots=shots)
        errors.append(rmse(learner, sampler.sample(0, 40, n_users=5, k_shot=4, n_query=4), ctx))
    assert all(more < 0.97 * less for less, more in zip(errors, errors[1:], strict=False)), errors


def test_without_attributes_it_still_beats_the_bias_model_that_has_shots():
    _, source, ctx, sampler = setting("item-cold", item_shots=10, attributes=False, **LEARNABLE)
    drawn = sampler.sample(0, 40, n_users=4, k_shot=4, n_query=4)
    error = {}
    for learner in (Bias(), MWUF(MWUFConfig(rank=4, meta_steps=60))):
        learner.meta_fit(source, ctx)
        error[learner.name] = rmse(learner, drawn, ctx)
    assert learner.params["scale_linear"].shape[0] == 0 and error["mwuf"] < 0.9 * error["bias"], error
