"""Meta-Embedding against numpy, autograd and finite differences, and the parts that it shares with ``mwuf``."""

from dataclasses import replace
from itertools import islice
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
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias
from fewrec.learners.cold_base import Ratings, SimulatedColdItems, leave_one_out
from fewrec.learners.item_shots import ItemShots, padded
from fewrec.learners.metaemb import MetaEmb, MetaEmbConfig
from fewrec.testing import LearnerConformance

SMALL = {"rank": 3, "sweeps": 3, "meta_steps": 20, "evaluate_every": 10, "hidden": 4}


class TestConformance(LearnerConformance):
    learner = MetaEmb
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


def folded(learner, item, rating) -> np.ndarray:
    """Return (1, p_u) and b_u, as one (k + 1,) array, of one call of ``lstsq`` on rows augmented with the ridge."""
    base = learner.base
    raw = (base.centre + base.spread * base.e).numpy()
    x = np.column_stack([np.ones(len(item)), raw[item, 1:]])
    design = np.concatenate([x, np.diag(base.ridge.numpy() ** 0.5)])
    target = np.concatenate([rating - raw[item, 0], np.zeros(x.shape[1])])
    bias, *vector = np.linalg.lstsq(design, target, rcond=None)[0]
    return np.array([1.0, *vector, bias])


@pytest.mark.parametrize("state", ["both-cold", "item-cold"])
@pytest.mark.parametrize("steps", [1, 3])
def test_warming_up_is_gradient_descent_on_each_items_own_ratings(state, steps):
    _, source, ctx, sampler = setting(state)
    learner = MetaEmb(MetaEmbConfig(**SMALL, warm_steps=steps, warm_rate=1.3, warm_prior=0.7))
    learner.meta_fit(source, ctx)
    table, base = source.table, learner.base
    drawn = sampler.sample(0, 3, n_users=2, k_shot=2, n_query=3)
    predicted = learner.adapt_batch(drawn.support, ctx).predict(*vars(drawn.query).values())
    for n, (e, user, item) in enumerate(zip(*(column.tolist() for column in vars(drawn.query).values()), strict=True)):
        support = drawn.support[e]
        shots = support.item_ratings
        given = (shots.item == item).nonzero().flatten().tolist()
        assert given
        embedding = learner.given[item].clone().requires_grad_()
        for _ in range(steps):
            loss, curvature = 0.7 * (embedding - learner.given[item]).square().sum() / 2, 0.7
            for row in given:
                theirs = table.user == int(shots.meta_user[row])
                rater = torch.from_numpy(folded(learner, table.item[theirs], table.rating[theirs]))
                fitted = rater[-1] + rater[:-1] @ (base.centre + base.spread * embedding)
                loss = loss + ((shots.rating[row] - fitted) / base.sigma) ** 2 / 2
                curvature += float((rater[:-1] * base.spread / base.sigma).square().sum())
            (gradient,) = torch.autograd.grad(loss / curvature, embedding)
            embedding = (embedding - 1.3 * gradient).detach().requires_grad_()
        mine = (support.user == user).numpy()
        known_item, known_rating = support.item.numpy()[mine], support.rating.numpy()[mine]
        if support.meta_user[user] >= 0:
            rows = table.user == int(support.meta_user[user])
            known_item = np.concatenate([known_item, table.item[rows]])
            known_rating = np.concatenate([known_rating, table.rating[rows]])
        who = folded(learner, known_item, known_rating)
        vector = (base.centre + base.spread * embedding).detach().numpy()
        assert float(predicted[n]) == pytest.approx(who[-1] + who[:-1] @ vector, abs=1e-9)


def random_ratings(generator, n: int, size: int, k: int) -> Ratings:
    def numbers(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = (torch.rand(n, size, generator=generator) < 0.7).double()
    return Ratings(numbers(n, size, k) * mask.unsqueeze(2), numbers(n, size) * mask, numbers(n, size, k), mask)


def test_the_meta_gradient_is_taken_through_the_warm_up_step():
    generator = torch.Generator().manual_seed(0)
    learner = MetaEmb(MetaEmbConfig(rank=2, hidden=3, alpha=0.3, warm_steps=2))
    params = learner.initial_params(4, generator)
    params = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in params.items()}
    attributes = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    shots, query = (random_ratings(generator, 5, size, 3) for size in (4, 6))

    def loss(*values):
        named = dict(zip(params, values, strict=True))
        return learner.loss(named, learner.of_items(named, attributes), shots, query)

    leaves = [value.requires_grad_() for value in params.values()]
    assert torch.autograd.gradcheck(loss, leaves, rtol=1e-6, atol=1e-8)  # against finite differences


def test_the_loss_weighs_cold_and_warm_up_loss_by_alpha():
    generator = torch.Generator().manual_seed(1)
    shots, query = (random_ratings(generator, 5, size, 3) for size in (4, 6))
    e = torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def mean_square(ratings, of):
        n, s = ratings.mask.nonzero(as_tuple=True)
        return torch.stack([(ratings.y[i, j] - ratings.z[i, j] @ of[i]) ** 2 for i, j in zip(n, s, strict=True)]).mean()

    learner = MetaEmb(MetaEmbConfig(rank=2, alpha=0.25))
    after = learner.warmed({}, e, shots)
    expected = 0.25 * mean_square(shots, e) + 0.75 * mean_square(query, after)
    torch.testing.assert_close(learner.loss({}, e, shots, query), expected)


def test_warming_up_tends_to_the_posterior_mean_and_never_diverges():
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    for factor, size in ((0.1, 1), (1.0, 6), (100.0, 50)):
        shots = random_ratings(generator, 3, size, 4)
        shots = replace(shots, z=shots.z * factor)
        posterior = []
        for z, y, e in zip(shots.z.numpy(), shots.y.numpy(), start.numpy(), strict=True):
            posterior.append(e + np.linalg.solve(z.T @ z + 0.8 * np.eye(4), z.T @ (y - z @ e)))
        away = [
            float((shots.descend(start, steps, 1.9, 0.8) - torch.tensor(np.array(posterior))).norm())
            for steps in (0, 1, 4, 16, 64, 256)
        ]
        assert all(after <= before + 1e-12 for before, after in zip(away, away[1:], strict=False)), away
        if factor <= 1:
            assert away[-1] < 1e-6
    single = random_ratings(generator, 1, 1, 4)
    single = replace(single, z=torch.randn(1, 1, 4, generator=generator, dtype=torch.float64))
    z, y = single.z[0, 0].numpy(), float(single.y[0, 0])
    once = np.linalg.solve(np.eye(4) + np.outer(z, z), z * y) * float(single.mask)
    found = replace(single, z=single.z * single.mask).descend(torch.zeros(1, 4, dtype=torch.float64), 1, 1.0, 1.0)
    np.testing.assert_allclose(found[0].numpy(), once, atol=1e-12)


def test_leaving_one_out_equals_fitting_without_it():
    rng = np.random.default_rng(0)
    group, ridge = rng.integers(0, 6, 40), np.array([1.0, 2.0, 0.5])
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    arguments = (torch.from_numpy(a) for a in (x, y, group))
    solved, without = leave_one_out(*arguments, 6, torch.from_numpy(ridge))

    def ridge_fit(rows):
        return np.linalg.solve(x[rows].T @ x[rows] + np.diag(ridge), x[rows].T @ y[rows])

    for g in range(6):
        np.testing.assert_allclose(solved[g].numpy(), ridge_fit(group == g), atol=1e-12)
    for row in range(40):
        others = (group == group[row]) & (np.arange(40) != row)
        np.testing.assert_allclose(without[row].numpy(), ridge_fit(others), atol=1e-12)


def test_a_pass_over_simulated_cold_items_uses_each_rating_once():
    _, source, ctx, _ = setting("both-cold")
    learner = MetaEmb(MetaEmbConfig(**SMALL))
    learner.meta_fit(source, ctx)
    table = source.table
    # A row's own number stands in for its user and its rating, so that every draw can be traced back.
    marked = torch.arange(len(table), dtype=torch.float64)
    numbered = replace(table, rating=marked.numpy())
    without = marked.unsqueeze(1).expand(-1, SMALL["rank"] + 1)
    cold = SimulatedColdItems(learner.base, numbered, without, 4, 6, torch.device("cpu"))
    seen, sizes = [], set()
    passed = islice(cold.batches(torch.Generator().manual_seed(0), 16), -(-len(cold.task_item) // 16))
    for item, shots, query in passed:
        assert (shots.mask * query.mask).sum() == 0 and (query.mask.sum(1) >= 1).all()
        sizes |= set(shots.mask.sum(1).int().tolist())
        for ratings in (shots, query):
            task, position = ratings.mask.nonzero(as_tuple=True)
            rows = ratings.user[task, position, 0].long()
            assert torch.equal(torch.tensor(table.item)[rows], item[task])
            seen += rows.tolist()
    assert sorted(seen) == list(range(len(table))) and sizes == {0, 1, 2, 3, 4}


def test_item_shots_are_found_by_episode_and_item_and_padded_in_order():
    _, source, ctx, sampler = setting("both-cold")
    supports = sampler.sample(0, 4, n_users=2, k_shot=1, n_query=3).support
    supports = replace(supports, item_ratings=(supports.item_ratings[0], None, *supports.item_ratings[2:]))
    shots = ItemShots.of(supports, torch.ones(60, dtype=torch.bool))
    rows, mask = padded(shots.pair, len(shots))
    for e in range(4):
        for item in range(60):
            pair, found = shots.find(torch.tensor([e]), torch.tensor([item]))
            own = supports.item_ratings[e]
            wanted = own.rating[own.item == item].tolist() if own is not None else []
            assert bool(found) == bool(wanted)
            if wanted:
                assert shots.rating[rows[pair[0]][mask[pair[0]]]].tolist() == wanted
    nothing = ItemShots.of(replace(supports, item_ratings=None), torch.ones(60, dtype=torch.bool))
    assert len(nothing) == 0 and not nothing.find(torch.tensor([0]), torch.tensor([3]))[1].any()


def test_without_shots_an_item_has_its_generated_embedding_and_seen_items_keep_their_own():
    _, source, ctx, sampler = setting("both-cold")
    learner = MetaEmb(MetaEmbConfig(**SMALL))
    learner.meta_fit(source, ctx)
    unseen = torch.from_numpy(~source.catalog.seen)
    assert unseen.any() and torch.equal(learner.base.e[unseen], learner.given[unseen])
    with_shots = sampler.sample(0, 2, n_users=2, k_shot=2, n_query=3)
    support = with_shots.support
    bare = replace(support, item_ratings=None)
    item = torch.arange(60)
    found, plain = (
        learner.adapt_batch(s, ctx).predict(torch.zeros_like(item), torch.zeros_like(item), item)
        for s in (support, bare)
    )
    shot = torch.zeros(60, dtype=torch.bool)
    shot[support.item_ratings[0].item] = True
    assert torch.equal(found[~shot], plain[~shot]) and (found[shot] != plain[shot]).all()


def rmse(learner, drawn, ctx) -> float:
    predicted = learner.adapt_batch(drawn.support, ctx).predict(*vars(drawn.query).values())
    return float((predicted - drawn.answers.rating).square().mean().sqrt())


LEARNABLE = {"n_users": 200, "n_items": 120, "density": 0.3, "genre_share": 0.9, "factor_std": 1.0, "noise": 0.3}


@pytest.mark.parametrize("state", ["both-cold", "item-cold"])
def test_it_beats_the_bias_model_with_shots_and_its_own_start_where_genres_tell_the_items(state):
    _, source, ctx, sampler = setting(state, **LEARNABLE)
    drawn = sampler.sample(0, 40, n_users=5, k_shot=4, n_query=4)
    error = {}
    for label, learner in (
        ("bias", Bias()),
        ("metaemb", MetaEmb(MetaEmbConfig(rank=4, meta_steps=120))),
        ("untrained", MetaEmb(MetaEmbConfig(rank=4, meta_steps=0))),
    ):
        learner.meta_fit(source, ctx)
        error[label] = rmse(learner, drawn, ctx)
    assert error["metaemb"] < 0.85 * error["bias"] and error["metaemb"] < 0.95 * error["untrained"], error


def test_more_shots_make_a_smaller_error():
    split, source, ctx, _ = setting("both-cold", item_shots=16, **LEARNABLE | {"genre_share": 0.3, "n_users": 400})
    learner = MetaEmb(MetaEmbConfig(rank=4, meta_steps=60))
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
    for learner in (Bias(), MetaEmb(MetaEmbConfig(rank=4, meta_steps=60))):
        learner.meta_fit(source, ctx)
        error[learner.name] = rmse(learner, drawn, ctx)
    assert learner.params["linear"].shape[0] == 0 and error["metaemb"] < 0.9 * error["bias"], error


def test_the_best_step_of_meta_validation_is_kept():
    from fewrec.learners.validation import Validation

    _, source, ctx, _ = setting("both-cold")
    scores = []
    watched = replace(ctx, record=lambda step, scalars: scores.append(scalars["validation_rmse"]))
    learner = MetaEmb(MetaEmbConfig(**SMALL | {"meta_steps": 50, "meta_lr": 0.1}))
    learner.meta_fit(source, watched)
    start = MetaEmb(MetaEmbConfig(**SMALL | {"meta_steps": 0}))
    start.meta_fit(source, ctx)
    validation = Validation(source, (1, 5, 10), learner.config.n_query)
    assert validation.rmse(learner, ctx) == min([validation.rmse(start, ctx), *scores]) and len(scores) >= 5


def test_saved_state_warms_up_items_alike():
    _, source, ctx, sampler = setting("item-cold")
    learner, again = (MetaEmb(MetaEmbConfig(**SMALL)) for _ in range(2))
    learner.meta_fit(source, ctx)
    again.load_state(*learner.state(), ctx)
    supports = SupportBatch.of(list(sampler.sample(0, 3, n_users=2, k_shot=2, n_query=3).support))
    item = supports.item_ratings[1].item
    asked = torch.ones_like(item), torch.zeros_like(item), item
    first, second = (one.adapt_batch(supports, ctx).predict(*asked) for one in (learner, again))
    assert torch.equal(first, second)
