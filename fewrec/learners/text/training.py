"""Training on supports: what makes the features and the heads, many episodes in one pass, each as if alone.

The linear part starts at its exact solution for the features as they are; then everything is trained together ("linear
probing, then fine-tuning": Kumar et al., ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewrec.learners.text.augment import Augmentation
from fewrec.learners.text.config import TextConfig
from fewrec.learners.text.features import Plan, TextFeatures
from fewrec.learners.text.heads import Heads, Rows
from fewrec.learners.text.stack import Params


@dataclass(frozen=True, eq=False)
class Slots:
    """Which texts an episode's rows need, each once: ``items`` (G, U), -1 for none; ``group``, ``slot`` (E, n): where a
    row's text is among them."""

    items: Tensor
    group: Tensor
    slot: Tensor

    def to(self, device: torch.device) -> Slots:
        there = device.type == "cuda"
        group, slot = (rows.to(device, non_blocking=there) for rows in (self.group, self.slot))
        return Slots(self.items, group, slot)

    def of(self, features: Tensor) -> Tensor:
        """Return (E, n, d) features of the rows, from those of the texts (G, U, d)."""
        return features[self.group, self.slot]


def slots(user: Tensor, item: Tensor, per_user: int = 0) -> Slots:
    """Return the texts of rows (E, n); with ``per_user`` = N users an episode, each user is a group of its own."""
    episodes, device = len(item), item.device
    user, item = user.cpu(), item.cpu()
    group = torch.arange(episodes).unsqueeze(1).expand_as(item)
    n_groups = episodes
    if per_user:
        group, n_groups = group * per_user + user, episodes * per_user
    size = int(item.max()) + 1 if item.numel() else 1
    pairs, place = torch.unique(group * size + item, return_inverse=True)
    of_pair = pairs // size
    first = torch.searchsorted(of_pair, torch.arange(n_groups))
    slot = torch.arange(len(pairs)) - first[of_pair]
    items = torch.full((n_groups, int(slot.max()) + 1 if len(pairs) else 1), -1)
    items[of_pair, slot] = pairs % size
    return Slots(items, group.to(device), slot[place].reshape(item.shape).to(device))


# Adam's first steps have the size of the rate whatever that of the gradient, rounding errors included: BERT's own
# epsilon (Devlin et al., 2019) damps them, and the heads, which start where their gradient is zero, need a larger one.
_EPS, _HEAD_EPS = 1e-6, 1e-5


def fine_tune(
    features: TextFeatures,
    params: Params,
    heads: Heads,
    rows: Rows,
    config: TextConfig,
    generators: Sequence[torch.Generator],
    prior_head: Tensor,
    per_user: int = 0,
) -> tuple[Params, Heads]:
    """Train what makes the features, (G, ...) each, and offsets and heads on the rows; returns new tensors.

    Loss of an episode: mean loss of its rows + penalty / n. A text is run once a batch, however many of its ratings are
    in it. Each episode draws from its own generator alone, so that it is trained as it would be alone.
    """
    n = len(rows)
    if n == 0 or config.epochs == 0 or not (params or any(config.variances)):
        return params, heads
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    heads = Heads(*(p.clone().requires_grad_(v > 0) for p, v in zip(heads.parts(), config.variances, strict=True)))
    # Batches are drawn and laid out on the CPU, so that the device is not waited for inside of the loop.
    device, rows = rows.target.device, rows.to(torch.device("cpu"))
    rows, held = _split(rows, config.holdout, generators)
    best = _Best(features, held, config, params, heads, per_user) if held is not None else None
    n = len(rows)
    size = min(config.batch_size, n)
    steps = config.epochs * -(-n // size)
    step = make_stepper(config, list(params.values()), [p for p in heads.parts() if p.requires_grad], steps)
    augmentation = Augmentation(config, generators)
    plan: Plan | None = None
    for _ in range(config.epochs):
        batches = [rows] if size == n else _shuffled(rows, size, generators)
        for batch in batches:
            if plan is None or size < n:
                texts = slots(batch.user, batch.item, per_user).to(device)
                plan = features.plan(texts.items)
                batch_there = batch.to(device)
            kept = augmentation.kept(plan, len(generators))
            x = texts.of(features.run(params, plan, kept))
            x, target = augmentation.of_rows(x, batch_there.target, batch)
            error = heads(batch_there.user, x) - target
            loss = row_loss(error, config.loss).mean(1) + heads.penalty(config, prior_head) / n
            step(loss.sum())  # episodes don't mix: each one's parameters enter one term
        if best is not None and best.update(params, heads):
            break
    if best is not None:
        params, heads = best.params, best.heads
    return {name: p.detach() for name, p in params.items()}, Heads(*(p.detach() for p in heads.parts()))


def row_loss(error: Tensor, kind: str) -> Tensor:
    """Return the loss of each row by its error; squared ones so that "huber" equals "mse" up to one."""
    if kind == "mse":
        return error.square()
    if kind == "mae":
        return error.abs()
    size = error.abs()
    return torch.where(size <= 1, error.square(), 2 * size - 1)


def make_stepper(config: TextConfig, made: list[Tensor], head: list[Tensor], steps: int) -> Callable[[Tensor], None]:
    """Return a function that takes one step of the configured optimiser, downhill in the loss that it is given."""
    groups = [
        {"params": made, "lr": config.learning_rate, "weight_decay": config.weight_decay, "eps": _EPS},
        {"params": head, "lr": config.head_learning_rate, "weight_decay": 0.0, "eps": _HEAD_EPS},
    ]
    optimiser = make_optimiser(config.optimizer, [group for group in groups if group["params"]])
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule(config.schedule, config.warmup, steps))

    def step(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()

    return step


def make_optimiser(name: str, groups: list[dict]) -> torch.optim.Optimizer:
    """Return the optimiser over parameter groups; AdamW is fused where the device has it."""
    device = groups[0]["params"][0].device
    if name != "adamw":
        groups = [{key: value for key, value in group.items() if key != "eps"} for group in groups]
        return torch.optim.SGD(groups) if name == "sgd" else torch.optim.Adafactor(groups)
    return torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))


def schedule(kind: str, warmup: float, steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step, counted from 0: a linear rise, then the fall."""
    rise = warmup * steps

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        if kind == "constant":
            return 1.0
        done = (step - rise) / max(steps - rise, 1)
        return max(0.0, 1 - done) if kind == "linear" else 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor


def _shuffled(rows: Rows, size: int, generators: Sequence[torch.Generator]) -> list[Rows]:
    order = torch.stack([torch.randperm(len(rows), generator=g) for g in generators])
    return [rows.pick(part) for part in order.split(size, 1)]


def _split(rows: Rows, share: float, generators: Sequence[torch.Generator]) -> tuple[Rows, Rows | None]:
    n = len(rows)
    apart = round(share * n)
    if share == 0 or apart == 0 or apart == n:
        return rows, None
    order = torch.stack([torch.randperm(n, generator=g) for g in generators])
    return rows.pick(order[:, apart:]), rows.pick(order[:, :apart])


class _Best:
    """The state of each episode at its lowest loss on the rows that were kept apart."""

    def __init__(
        self, features: TextFeatures, held: Rows, config: TextConfig, params: Params, heads: Heads, per_user: int
    ) -> None:
        self.features, self.config, self.per_user = features, config, per_user
        self.texts = slots(held.user, held.item, per_user).to(heads.offset.device)
        self.held = held.to(heads.offset.device)
        self.plan = features.plan(self.texts.items)
        self.params = {name: p.detach().clone() for name, p in params.items()}
        self.heads = Heads(*(p.detach().clone() for p in heads.parts()))
        self.loss = self._loss(params, heads)
        self.waited = torch.zeros_like(self.loss, dtype=torch.int64)

    @torch.no_grad()
    def _loss(self, params: Params, heads: Heads) -> Tensor:
        x = self.texts.of(self.features.run(params, self.plan))
        return row_loss(heads(self.held.user, x) - self.held.target, self.config.loss).mean(1)

    @torch.no_grad()
    def update(self, params: Params, heads: Heads) -> bool:
        """Keep what is better than before; return whether every episode has waited long enough."""
        loss = self._loss(params, heads)
        # An episode that has waited long enough has stopped, whatever the others still train for.
        better = (loss < self.loss) & (self.waited < self.config.patience)
        self.loss = torch.where(better, loss, self.loss)
        self.waited = torch.where(better, 0, self.waited + 1)
        each = better.repeat_interleave(self.per_user) if self.per_user else better
        for name, value in params.items():
            self.params[name] = _where(each, value.detach(), self.params[name])
        parts = zip(heads.parts(), self.heads.parts(), strict=True)
        self.heads = Heads(*(_where(better, value.detach(), kept) for value, kept in parts))
        return bool((self.waited >= self.config.patience).all())


def _where(chosen: Tensor, value: Tensor, other: Tensor) -> Tensor:
    """Return a copy: ``value`` for the episodes (E,) that are chosen, ``other`` elsewhere, both (E, ...)."""
    return torch.where(chosen.reshape(-1, *[1] * (value.dim() - 1)), value, other)
