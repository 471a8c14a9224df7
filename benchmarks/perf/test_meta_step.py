"""``maml-mf`` beside a plain learn2learn loop over the same model: meta-steps, and adapting to test users."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.support import Episodes
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.registry import learner_class

RANK, K_SHOT, N_QUERY = 32, 5, 10
INNER_LR, INNER_STEPS, META_LR = 0.05, 5, 0.01
SHAPE = {"n_users": 5, "k_shot": K_SHOT, "n_query": N_QUERY}
# The plain recipe: the support's mean squared error, and nothing that draws items to their start.
OPTIONS = {
    "rank": RANK, "inner_steps": INNER_STEPS, "inner_lr": INNER_LR, "inner_prior": 0.0, "meta_lr": META_LR,
    "pretrain_sweeps": 2, "proximal": 0.0, "meta_steps": 0,
}  # fmt: skip

Task = tuple[Tensor, Tensor, Tensor, Tensor]


class PlainMF(nn.Module):
    """Matrix factorization for one user, as one writes it for learn2learn; values are those of a ``maml-mf``."""

    def __init__(self, learner) -> None:
        super().__init__()
        start = {name: value.detach().clone() for name, value in learner.module.named_parameters()}
        self.user_bias, self.user_vector = nn.Parameter(start["user_bias"]), nn.Parameter(start["user_vector"])
        self.item_bias = nn.Embedding.from_pretrained(start["item_bias"].unsqueeze(1), freeze=False)
        self.item_factor = nn.Embedding.from_pretrained(start["item_factor"], freeze=False)

    def forward(self, item: Tensor) -> Tensor:
        return self.user_bias + self.item_bias(item).squeeze(1) + self.item_factor(item) @ self.user_vector

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by the names that they have in fewrec's model."""
        return {
            name.removesuffix(".weight"): value.grad.squeeze(1) if name == "item_bias.weight" else value.grad
            for name, value in self.named_parameters()
        }


def meta_fitted(name: str, source, ctx, **options):
    """Return a learner at its start, with a user vector that is not zero so that every derivative counts."""
    cls = learner_class(name)
    learner = cls(cls.Config(**(OPTIONS | options)))
    learner.prepare(ctx)
    learner.meta_fit(source, ctx)
    learner.module.user_vector += torch.linspace(-0.3, 0.3, RANK, dtype=learner.dtype)
    learner.module.requires_grad_()
    return learner


def separate(episodes: Episodes, dtype: torch.dtype) -> list[Task]:
    """Return each user's (items, ratings, items to predict, their ratings)."""
    tasks = Tasks.of_episodes(episodes, torch.device("cpu"), dtype)
    support, query = tasks.support, tasks.query
    assert support.mask.all() and query.mask.all()
    return list(zip(support.item, support.rating, query.item, query.rating, strict=True))


def theirs_meta_gradient(maml, tasks: list[Task], n_tasks: int) -> float:
    total = 0.0
    for item, rating, query_item, query_rating in tasks:
        learner = maml.clone()
        for _ in range(INNER_STEPS):
            learner.adapt(F.mse_loss(learner(item), rating))
        loss = F.mse_loss(learner(query_item), query_rating) / n_tasks
        loss.backward()
        total += loss.item()
    return total


@pytest.fixture(scope="module")
def source(user_cold, ml_100k) -> MetaTrainSet:
    return MetaTrainSet(user_cold, ml_100k.scale)


@pytest.fixture(scope="module", params=["maml-mf", "fomaml-mf"])
def agree(request, learn2learn, source, ctx) -> None:
    """See to it, in float64, that both sides compute the same meta-gradient before they are timed."""
    learner = meta_fitted(request.param, source, ctx, dtype="float64")
    episodes = source.train_episodes(0, 4, **SHAPE)
    objective = learner.meta_gradient(Tasks.of_episodes(episodes, ctx.device, torch.float64))
    maml = learn2learn.algorithms.MAML(PlainMF(learner), lr=INNER_LR, first_order=learner.first_order)
    tasks = separate(episodes, torch.float64)
    assert abs(theirs_meta_gradient(maml, tasks, len(tasks)) - objective) < 1e-8
    theirs = maml.module.gradients()
    for name, value in learner.module.named_parameters():
        torch.testing.assert_close(theirs[name], value.grad, rtol=0, atol=1e-8)


def meta_step(compare, learn2learn, source, ctx, name: str, meta_batch: int, share: float, wanted: int) -> None:
    learner = meta_fitted(name, source, ctx, meta_batch=meta_batch)
    episodes = source.train_episodes(0, -(-meta_batch // SHAPE["n_users"]), **SHAPE)
    tasks = Tasks.of_episodes(episodes, ctx.device, torch.float32)[:meta_batch]
    plain = separate(episodes, torch.float32)[: round(meta_batch * share)]
    maml = learn2learn.algorithms.MAML(PlainMF(learner), lr=INNER_LR, first_order=learner.first_order)
    optimisers = learner.make_optimiser(), torch.optim.Adam(maml.parameters(), lr=META_LR)

    def ours(number: int) -> None:
        optimisers[0].zero_grad()
        learner.meta_gradient(tasks)
        optimisers[0].step()

    def theirs(number: int) -> None:
        optimisers[1].zero_grad()
        theirs_meta_gradient(maml, plain, meta_batch)
        optimisers[1].step()

    order = "first" if learner.first_order else "second"
    n_items = source.table.n_items
    notes = [f"{n_items:,} items x {RANK}, K={K_SHOT}, Q={N_QUERY}, {INNER_STEPS} inner steps, Adam; same gradients"]
    notes += [f"theirs runs {len(plain)} tasks a round, time scaled to {meta_batch:,}"] * (share < 1)
    notes += [f"wanted: at least {wanted} times"] * (wanted > 0)
    compare(
        f"meta-step of MAML over MF, {order} order, meta-batch {meta_batch:,}",
        ours,
        theirs,
        other_name="learn2learn 0.2.0, task after task",
        other_share=share,
        note="; ".join(notes),
        rounds=5,
    )


@pytest.mark.parametrize("agree", ["maml-mf"], indirect=True)
@pytest.mark.parametrize(("meta_batch", "share", "wanted"), [(32, 1.0, 10), (256, 0.5, 60), (1024, 0.125, 120)])
def test_second_order_meta_step(agree, compare, learn2learn, source, ctx, meta_batch, share, wanted):
    meta_step(compare, learn2learn, source, ctx, "maml-mf", meta_batch, share, wanted)


@pytest.mark.parametrize("agree", ["fomaml-mf"], indirect=True)
def test_first_order_meta_step(agree, compare, learn2learn, source, ctx):
    meta_step(compare, learn2learn, source, ctx, "fomaml-mf", 32, 1.0, 0)


def test_adapting_and_predicting_test_users(compare, learn2learn, user_cold, source, ctx):
    n_users, share = 1_000, 0.1
    learner = meta_fitted("maml-mf", source, ctx)
    learner.module.requires_grad_(False)  # as after meta-fit
    sampler = EpisodeSampler(user_cold.pools["test"], 0, "test", k_max=K_SHOT)
    episodes = sampler.sample(0, n_users // SHAPE["n_users"], **SHAPE)
    query = episodes.query
    plain = separate(episodes, torch.float32)[: round(n_users * share)]
    maml = learn2learn.algorithms.MAML(PlainMF(learner), lr=INNER_LR, first_order=True)  # the faster one, same values

    def ours(number: int) -> Tensor:
        return learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)

    def theirs(number: int) -> Tensor:
        found = []
        for item, rating, query_item, _ in plain:
            adapted = maml.clone()
            for _ in range(INNER_STEPS):
                adapted.adapt(F.mse_loss(adapted(item), rating))
            with torch.no_grad():
                found.append(adapted(query_item))
        return torch.cat(found)

    # Both predict the same: the users' queries follow one another in the episodes' order.
    torch.testing.assert_close(ours(0)[: len(plain) * N_QUERY], theirs(0), rtol=0, atol=1e-4)
    compare(
        f"adapting to and predicting {n_users:,} test users, MAML over MF",
        ours,
        theirs,
        other_name="learn2learn 0.2.0, user after user",
        other_share=share,
        note=f"K={K_SHOT}, Q={N_QUERY}; theirs takes {len(plain)} users a round, scaled; wanted: at least 100 times",
        rounds=9,
    )
