"""Sums and ridge regressions of many groups at once; a group is one user's ratings, or one item's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class GroupedRidge:
    """Solves one small ridge regression for each group of rows.

    ``group`` (n,) int64 says which of ``n_groups`` groups a row belongs to. Groups of similar size are padded to one
    length and solved as one batch, so that the work is at most twice that of the rows alone, however ragged they are.
    """

    def __init__(self, group: Tensor, n_groups: int) -> None:
        self.n_groups = n_groups
        order = group.argsort(stable=True)
        count = torch.bincount(group, minlength=n_groups)
        start = count.cumsum(0) - count
        largest = int(count.max()) if n_groups else 0
        self.batches: list[tuple[Tensor, Tensor, Tensor]] = []  # groups (g,), rows (g, length), mask (g, length)
        low = 1
        while low <= largest:
            groups = ((count >= low) & (count < 2 * low)).nonzero().squeeze(1)
            if len(groups):
                step = torch.arange(int(count[groups].max()), device=group.device)
                mask = step < count[groups].unsqueeze(1)
                rows = order[torch.where(mask, start[groups].unsqueeze(1) + step, 0)]
                self.batches.append((groups, rows, mask))
            low *= 2

    def solve(self, features: Tensor, of_row: Tensor, target: Tensor, ridge: Tensor) -> Tensor:
        """Return (n_groups, d): each group's minimiser of ``sum (target - x . w)^2 + sum ridge w^2``.

        Row *r*'s features x are ``features[of_row[r]]`` (d,), its target ``target[r]``; ``ridge`` (d,) must be
        positive. A group without rows gets zeros.
        """
        solution = features.new_zeros(self.n_groups, features.shape[1])
        for groups, rows, mask in self.batches:
            x = features[of_row[rows]] * mask.unsqueeze(2)
            normal = x.mT @ x + torch.diag(ridge)
            moment = x.mT @ (target[rows] * mask).unsqueeze(2)
            solution[groups] = torch.cholesky_solve(moment, torch.linalg.cholesky(normal)).squeeze(2)
        return solution


class GroupSums:
    """Sums over the rows of each group (a user's ratings, or an item's), in one pass without padding.

    ``group`` (n,) int64 says which of ``n_groups`` groups a row belongs to; ``count`` (n_groups,) their sizes.
    """

    def __init__(self, group: Tensor, n_groups: int) -> None:
        self.order = group.argsort(stable=True)
        self.count = torch.bincount(group, minlength=n_groups)
        self.start = self.count.cumsum(0) - self.count

    def __call__(self, table: Tensor, of_row: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return (n_groups, ...): sums of ``weight[r] * table[of_row[r]]`` over each group's rows; table (m, ...)."""
        shape = (len(self.count), *table.shape[1:])
        if not len(self.order):
            return table.new_zeros(shape)
        weight = None if weight is None else weight[self.order]
        flat = table.flatten(1)
        return embedding_bag(of_row[self.order], flat, self.start, mode="sum", per_sample_weights=weight).reshape(shape)
