"""The linear part of an episode's model, for many episodes at once: users' offsets, the shared head, users' own heads.

A rating, standardised, is ``offset_u + (head + user_head_u) . x_i`` plus noise, x_i being the item's features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fewrec.learners.text.config import HeadConfig


@dataclass(frozen=True, eq=False)
class Rows:
    """Standardised ratings to be explained, n in each of E episodes.

    ``user`` (E, n) counts from 0 within an episode, ``item`` (E, n), ``target`` (E, n); on one device.
    """

    user: Tensor
    item: Tensor
    target: Tensor

    def __len__(self) -> int:
        return self.target.shape[1]

    def to(self, device: torch.device) -> Rows:
        there = device.type == "cuda"  # the way back must have arrived before it is read
        return Rows(*(value.to(device, non_blocking=there) for value in (self.user, self.item, self.target)))

    def pick(self, rows: Tensor) -> Rows:
        """Return the rows (E, m) of each episode."""
        return Rows(*(value.gather(1, rows) for value in (self.user, self.item, self.target)))


@dataclass(frozen=True, eq=False)
class Heads:
    """``offset`` (E, N), ``head`` (E, d) and ``user_head`` (E, N, d)."""

    offset: Tensor
    head: Tensor
    user_head: Tensor

    def __call__(self, user: Tensor, features: Tensor) -> Tensor:
        """Return (E, n) predictions for (E, n) users and (E, n, d) features."""
        own = self.user_head.gather(1, user.unsqueeze(2).expand(-1, -1, self.user_head.shape[2]))
        return self.offset.gather(1, user) + ((self.head.unsqueeze(1) + own) * features).sum(2)

    def penalty(self, config: HeadConfig, prior_head: Tensor) -> Tensor:
        """Return minus twice the log prior of each episode, (E,), up to a constant; ``prior_head`` is (d,)."""
        total = self.offset.new_zeros(len(self.offset))
        for part, variance in zip((self.offset, self.head - prior_head, self.user_head), config.variances, strict=True):
            if variance > 0:
                total = total + part.square().flatten(1).sum(1) / variance
        return total

    def parts(self) -> Iterator[Tensor]:
        return iter((self.offset, self.head, self.user_head))


def solve_heads(features: Tensor, rows: Rows, n_users: int, config: HeadConfig, prior_head: Tensor) -> Heads:
    """Return the minimiser of ``sum (target - prediction)^2 + penalty`` for fixed features (E, n, d).

    Solved in float64 through the n x n kernel of an episode's rows, which is small where d is not; without rows,
    offsets and own heads are zero and the head is ``prior_head`` (d,).
    """
    x, prior = features.double(), prior_head.double()
    target = rows.target.double() - x @ prior
    same = (rows.user.unsqueeze(2) == rows.user.unsqueeze(1)).to(x.dtype)
    kernel = same * config.user_variance + (x @ x.mT) * (config.head_variance + same * config.user_head_variance)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(kernel + eye, target.unsqueeze(2)).squeeze(2)
    of_user = (rows.user.unsqueeze(1) == torch.arange(n_users, device=x.device).view(1, -1, 1)).to(x.dtype)
    by_user = of_user * weight.unsqueeze(1)
    offset = config.user_variance * by_user.sum(2)
    head = prior + config.head_variance * (weight.unsqueeze(1) @ x).squeeze(1)
    user_head = config.user_head_variance * (by_user @ x)
    return Heads(*(part.to(features.dtype) for part in (offset, head, user_head)))
