"""Batched factorization of single episodes against a plain loop, and its independence of the batch."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.mf_scratch import MFScratch, MFScratchConfig

N_ITEMS = 30
CTX = Context(torch.device("cpu"), Catalog(np.arange(N_ITEMS)), Scale(1, 5, 1), Path("."))
PRECISE = {"dtype": "float64", "rank": 3, "steps": 25, "initial_scale": 0.5, "factor_ridge": 0.3}


def episode(seed: int, n_users: int = 4, k_shot: int = 5, n_items: int = N_ITEMS) -> Support:
    rng = np.random.default_rng(seed)
    item = np.concatenate([rng.permutation(n_items)[:k_shot] for _ in range(n_users)])
    rating = rng.integers(1, 6, len(item)).astype(float)
    user = torch.arange(n_users).repeat_interleave(k_shot)
    meta_user = torch.full((n_users,), -1)
    return Support(n_users, user, torch.from_numpy(item), torch.from_numpy(rating), None, meta_user, 1000 + seed)


def plain_loop(support: Support, config: MFScratchConfig) -> np.ndarray:
    """Return predictions (n_users, N_ITEMS) of the same model, one rating at a time, in float64 NumPy."""
    items = sorted(set(support.item.tolist()))
    drawn = torch.randn(
        support.n_users + len(items),
        config.rank,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(support.seed),
    )
    factors = drawn.numpy() * config.initial_scale
    p, q = factors[: support.n_users], factors[support.n_users :]
    params = {"a": np.zeros(len(p)), "b": np.zeros(len(q)), "p": p.copy(), "q": q.copy()}
    ridge = {"a": config.user_ridge, "b": config.item_ridge, "p": config.factor_ridge, "q": config.factor_ridge}
    first = {name: np.zeros_like(value) for name, value in params.items()}
    second = {name: np.zeros_like(value) for name, value in params.items()}
    mu = support.rating.numpy().mean()
    for step in range(1, config.steps + 1):
        gradient = {name: ridge[name] * value for name, value in params.items()}
        for u, code, r in zip(support.user.tolist(), support.item.tolist(), support.rating.tolist(), strict=True):
            i = items.index(code)
            error = mu + params["a"][u] + params["b"][i] + params["p"][u] @ params["q"][i] - r
            gradient["a"][u] += error
            gradient["b"][i] += error
            gradient["p"][u] += error * params["q"][i]
            gradient["q"][i] += error * params["p"][u]
        for name, g in gradient.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            scaled = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
            params[name] = params[name] - config.learning_rate * first[name] / (1 - 0.9**step) / scaled
    out = np.repeat((mu + params["a"])[:, None], N_ITEMS, axis=1)
    for i, code in enumerate(items):
        out[:, code] += params["b"][i] + params["p"] @ params["q"][i]
    return out


def everything(predictor, n_users: int, e: int = 0) -> torch.Tensor:
    user = torch.arange(n_users).repeat_interleave(N_ITEMS)
    item = torch.arange(N_ITEMS).repeat(n_users)
    return predictor.predict(torch.full_like(user, e), user, item).reshape(n_users, N_ITEMS)


def test_it_agrees_with_a_plain_loop():
    config = MFScratchConfig(**PRECISE)
    predictor = MFScratch(config).adapt_batch(SupportBatch.of([episode(0), episode(1, n_users=2, k_shot=7)]), CTX)
    for e, support in enumerate((episode(0), episode(1, n_users=2, k_shot=7))):
        found = everything(predictor, support.n_users, e).numpy()
        np.testing.assert_allclose(found, plain_loop(support, config), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_the_batch_that_an_episode_came_in_changes_nothing(dtype, tolerance):
    learner = MFScratch(MFScratchConfig(dtype=dtype))
    supports = [episode(s, n_users=2 + s % 3, k_shot=1 + s) for s in range(6)]
    together = learner.adapt_batch(SupportBatch.of(supports), CTX)
    backwards = learner.adapt_batch(SupportBatch.of(supports[::-1]), CTX)
    for e, support in enumerate(supports):
        alone = everything(learner.adapt_batch(SupportBatch.of([support]), CTX), support.n_users)
        assert torch.allclose(everything(together, support.n_users, e), alone, rtol=0, atol=tolerance)
        assert torch.allclose(everything(backwards, support.n_users, 5 - e), alone, rtol=0, atol=tolerance)


def test_an_item_outside_the_support_is_predicted_by_the_user_alone():
    support = episode(0, n_items=10)  # items 10 and above are never rated
    predicted = everything(MFScratch().adapt_batch(SupportBatch.of([support]), CTX), 4)
    assert (predicted[:, 10:] == predicted[:, 10:11]).all()
    assert len(predicted[:, 10].unique()) > 1


def test_another_seed_starts_from_other_factors():
    learner = MFScratch(MFScratchConfig(**PRECISE))
    support = episode(0)
    other = Support(4, support.user, support.item, support.rating, None, support.meta_user, seed=7)
    same, different = (everything(learner.adapt_batch(SupportBatch.of([s]), CTX), 4) for s in (support, other))
    assert not torch.allclose(same, different)


def test_training_fits_the_support_better_than_its_mean():
    support = episode(3, n_users=5, k_shot=10)
    learner = MFScratch(MFScratchConfig(user_ridge=0.1, item_ridge=0.1, factor_ridge=0.1, steps=300))
    fitted = learner.adapt(support, CTX).predict(support.user, support.item)
    error = (fitted - support.rating).square().mean()
    assert error < 0.2 * (support.rating - support.rating.mean()).square().mean()


def test_a_hundred_episodes_at_once_are_much_faster_than_one_at_a_time():
    supports = [episode(s, n_users=5) for s in range(100)]
    batch, learner = SupportBatch.of(supports), MFScratch()
    learner.adapt_batch(batch, CTX)
    together, alone = [], []
    for _ in range(3):
        start = time.perf_counter()
        learner.adapt_batch(batch, CTX)
        together.append(time.perf_counter() - start)
        start = time.perf_counter()
        for support in supports[:10]:
            learner.adapt(support, CTX)
        alone.append(10 * (time.perf_counter() - start))
    assert min(alone) > 5 * min(together)  # far below what is measured in benchmarks/perf, for busy machines
