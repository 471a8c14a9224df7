"""Gradient-based adaptation of a whole batch of tasks at once, on local tables: the engine that meta-learners share.

A task is one user. A meta-learner writes the loss of *one* task; ``inner_sgd`` adapts all tasks of a batch together,
each with its own copy of what adapts. Item tables are gathered first: a task's local table holds the few items that its
support and query touch, so that the work does not grow with the catalog, and differentiating the gather scatters the
outer gradient back into the whole table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import grad, vmap

from fewrec.episodes.support import Episodes, SupportBatch

Params = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class PaddedRatings:
    """Ratings of T tasks, padded to one length n; all of shape (T, n).

    ``row`` indexes the task's local table, ``mask`` is 1.0, or 0.0 for padding; ``rating`` is 0 where the mask is.
    """

    row: Tensor
    rating: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Tasks:
    """T tasks, one a user: ``items`` (T, L) are the catalog codes of the local tables' rows, ascending.

    Rows behind a task's ``n_items`` (T,) are padding: item 0, to which no rating refers.
    """

    items: Tensor
    n_items: Tensor
    support: PaddedRatings
    query: PaddedRatings

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, tasks: slice | Tensor) -> Tasks:
        def part(r: PaddedRatings) -> PaddedRatings:
            return PaddedRatings(r.row[tasks], r.rating[tasks], r.mask[tasks])

        return Tasks(self.items[tasks], self.n_items[tasks], part(self.support), part(self.query))

    def with_support_mask(self, mask: Tensor) -> Tasks:
        """Return the tasks with a smaller support: only ratings under ``mask`` (T, K) of 0.0 and 1.0 are kept."""
        kept = self.support.mask * mask
        return replace(self, support=replace(self.support, rating=self.support.rating * kept, mask=kept))

    def local_rows(self, task: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return, for (n,) pairs of task and item, the row in the task's local table and whether the item is there."""
        here = (self.items[task] == item.unsqueeze(1)) & (
            torch.arange(self.items.shape[1], device=task.device) < self.n_items[task].unsqueeze(1)
        )
        return here.int().argmax(1), here.any(1)

    @classmethod
    def of_supports(cls, supports: SupportBatch, device: torch.device, dtype: torch.dtype) -> Tasks:
        """Return one task for each user of the batch, without a query."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls._of(supports, nothing, nothing, nothing.double(), device, dtype)

    @classmethod
    def of_episodes(cls, episodes: Episodes, device: torch.device, dtype: torch.dtype) -> Tasks:
        """Return one task for each user of the episodes, with its answers as the query's ratings."""
        query, support = episodes.query, episodes.support
        user = support.flat_user(query.episode, query.user)
        return cls._of(support, user, query.item, episodes.answers.rating, device, dtype)

    @classmethod
    def _of(cls, supports: SupportBatch, query_user, query_item, query_rating, device, dtype) -> Tasks:
        n_tasks = supports.total_users
        user = torch.cat([supports.flat_user().to(device), query_user.to(device)])
        item = torch.cat([supports.item.to(device), query_item.to(device)])
        # One local row a (task, item), so that an item which occurs twice in a task adapts as one.
        n_items = int(item.max()) + 1 if len(item) else 1
        pairs, pair = torch.unique(user * n_items + item, return_inverse=True)
        pair_task = pairs // n_items
        row, length = _places(pair_task, n_tasks)
        items = torch.zeros(n_tasks, max(length, 1), dtype=torch.int64, device=device)
        items[pair_task, row] = pairs % n_items
        n = len(supports.item)
        support = _padded(user[:n], row[pair[:n]], supports.rating.to(device, dtype), n_tasks)
        query = _padded(user[n:], row[pair[n:]], query_rating.to(device, dtype), n_tasks)
        return cls(items, torch.bincount(pair_task, minlength=n_tasks), support, query)


def _places(group: Tensor, n_groups: int) -> tuple[Tensor, int]:
    """Return each row's place within its group, counted from 0 in the rows' order, and the largest group's size."""
    order = group.argsort(stable=True)
    count = torch.bincount(group, minlength=n_groups)
    start = count.cumsum(0) - count
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - start[group[order]]
    return place, int(count.max()) if n_groups else 0


def _padded(task: Tensor, row: Tensor, rating: Tensor, n_tasks: int) -> PaddedRatings:
    place, length = _places(task, n_tasks)
    padded_row = row.new_zeros(n_tasks, length)
    padded_rating, mask = rating.new_zeros(n_tasks, length), rating.new_zeros(n_tasks, length)
    padded_row[task, place], padded_rating[task, place], mask[task, place] = row, rating, 1.0
    return PaddedRatings(padded_row, padded_rating, mask)


def local_table(table: Tensor, items: Tensor) -> Tensor:
    """Return the rows of a table of all items (I, ...) that the tasks' ``items`` (T, L) name: (T, L, ...).

    The backward pass adds a row's gradients up in one order whatever the number of threads, which that of plain
    indexing does not.
    """
    rows = torch.nn.functional.embedding(items, table.reshape(len(table), -1))
    return rows.reshape(*items.shape, *table.shape[1:])


TaskLoss = Callable[[Params, Params, Tensor, Tensor, Tensor], Tensor]


def task_losses(loss: TaskLoss, adapted: Params, given: Params, ratings: PaddedRatings) -> Tensor:
    """Return the loss of each task, (T,).

    ``loss(adapted, given, row, rating, mask)`` sees one task: its own parameters, and its ratings padded to one length.
    Outside of ``loss`` parameters carry a leading task axis, (T, ...).
    """
    return vmap(loss)(adapted, given, ratings.row, ratings.rating, ratings.mask)


def inner_sgd(
    loss: TaskLoss,
    adapted: Params,
    given: Params,
    support: PaddedRatings,
    *,
    steps: int,
    rate: float | Mapping[str, Tensor | float],
    first_order: bool = False,
) -> Params:
    """Adapt all tasks by ``steps`` of gradient descent on the support (Finn et al., ICML 2017, algorithm 1, line 6).

    ``adapted`` (each (T, ...)) is what changes, ``given`` what stays; ``rate`` is one learning rate or one for each
    name (a tensor may be learnt: Meta-SGD). The result can be differentiated with respect to everything that goes in;
    with ``first_order`` the inner gradients count as constants. Tasks don't mix: what is differentiated is the sum over
    tasks, of which each task's own parameters enter one term.
    """
    descend = grad(lambda params: task_losses(loss, params, given, support).sum())
    for _ in range(steps):
        gradients = descend(adapted)
        if first_order:
            gradients = {name: g.detach() for name, g in gradients.items()}
        rates = rate if isinstance(rate, Mapping) else dict.fromkeys(adapted, rate)
        adapted = {name: value - rates[name] * gradients[name] for name, value in adapted.items()}
    return adapted
