"""Tasks, one a user, padded to one shape so that a whole batch of them is a handful of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewrec.episodes.support import Episodes, SupportBatch


@dataclass(frozen=True, eq=False)
class PaddedRatings:
    """Ratings of T tasks, padded to one length n; all of shape (T, n).

    ``item`` is the catalog code, ``mask`` is 1.0, or 0.0 for padding; item and rating are 0 where the mask is.
    """

    item: Tensor
    rating: Tensor
    mask: Tensor

    def part(self, tasks: slice | Tensor) -> PaddedRatings:
        return PaddedRatings(self.item[tasks], self.rating[tasks], self.mask[tasks])


@dataclass(frozen=True, eq=False)
class Tasks:
    """T tasks, one a user: the support, and where there are answers the query (else of length 0).

    A task's *local table* holds the items of its support and nothing else, so that the work of an inner loop does not
    grow with the catalog: ``items`` (T, L) are the catalog codes of its rows, in the order in which the support has
    them first; rows behind the task's ``n_items`` (T,) are padding. ``row`` (T, K) says which row a support rating's
    item has: an item that is rated twice has one. ``aligned``: no item is, so that rating j has row j in every task.
    ``user`` (T, f) are attributes of the users, f = 0 where there are none.
    """

    support: PaddedRatings
    query: PaddedRatings
    items: Tensor
    n_items: Tensor
    row: Tensor
    user: Tensor
    aligned: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, tasks: slice | Tensor) -> Tasks:
        support, query = self.support.part(tasks), self.query.part(tasks)
        own = self.items[tasks], self.n_items[tasks], self.row[tasks], self.user[tasks]
        return Tasks(support, query, *own, self.aligned)

    def split(self, size: int) -> Iterator[Tasks]:
        """Yield the tasks in parts of ``size`` (0: all of them at once)."""
        size = size or max(len(self), 1)
        return (self[start : start + size] for start in range(0, len(self), size))

    def with_support_mask(self, mask: Tensor) -> Tasks:
        """Return the tasks with a smaller support: only ratings under ``mask`` (T, K) of 0.0 and 1.0 are kept."""
        kept, support = self.support.mask * mask, self.support
        return replace(self, support=replace(support, rating=support.rating * kept, mask=kept))

    def local_rows(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return, for items (T, n), the row in each task's local table and whether the item is there, both (T, n)."""
        filled = torch.arange(self.items.shape[1], device=item.device) < self.n_items.unsqueeze(1)
        here = (self.items.unsqueeze(1) == item.unsqueeze(2)) & filled.unsqueeze(1)
        return here.int().argmax(2), here.any(2)

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
        user, item = supports.flat_user().to(device), supports.item.to(device)
        place, length = places(user, n_tasks)
        support = _padded(user, place, length, item, supports.rating.to(device, dtype), n_tasks)
        query_user = query_user.to(device)
        place_of_query, query_length = places(query_user, n_tasks)
        answers = query_rating.to(device, dtype)
        query = _padded(query_user, place_of_query, query_length, query_item.to(device), answers, n_tasks)
        # One local row a (task, item), so that an item that occurs twice in a support adapts as one.
        n_items = int(item.max()) + 1 if len(item) else 1
        pairs, pair = torch.unique(user * n_items + item, return_inverse=True)
        occurrence = torch.arange(len(pair), device=device)
        first = occurrence.new_full((len(pairs),), len(pair)).scatter_reduce(0, pair, occurrence, "amin")
        order = first.argsort()
        pairs, pair = pairs[order], order.argsort()[pair]
        pair_task = pairs // n_items
        row_of_pair, n_rows = places(pair_task, n_tasks)
        items = torch.zeros(n_tasks, max(n_rows, 1), dtype=torch.int64, device=device)
        items[pair_task, row_of_pair] = pairs % n_items
        row = torch.zeros(n_tasks, length, dtype=torch.int64, device=device)
        row[user, place] = row_of_pair[pair]
        aligned = len(pairs) == len(item) and items.shape[1] == length
        features = supports.user_features
        attributes = torch.zeros(n_tasks, 0, dtype=dtype) if features is None else features.to(dtype)
        counts = torch.bincount(pair_task, minlength=n_tasks)
        return cls(support, query, items, counts, row, attributes.to(device), aligned)


def places(group: Tensor, n_groups: int) -> tuple[Tensor, int]:
    """Return each row's place within its group, counted from 0 in the rows' order, and the largest group's size."""
    order = group.argsort(stable=True)
    count = torch.bincount(group, minlength=n_groups)
    start = count.cumsum(0) - count
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - start[group[order]]
    return place, int(count.max()) if n_groups else 0


def _padded(task: Tensor, place: Tensor, length: int, item: Tensor, rating: Tensor, n_tasks: int) -> PaddedRatings:
    padded_item = item.new_zeros(n_tasks, length)
    padded_rating, mask = rating.new_zeros(n_tasks, length), rating.new_zeros(n_tasks, length)
    padded_item[task, place], padded_rating[task, place], mask[task, place] = item, rating, 1.0
    return PaddedRatings(padded_item, padded_rating, mask)


def table_rows(table: Tensor, items: Tensor) -> Tensor:
    """Return the rows of a table of all items (I, ...) that ``items`` (T, n) name: (T, n, ...).

    The backward pass adds a row's gradients up in one order whatever the number of threads, which that of plain
    indexing does not.
    """
    rows = torch.nn.functional.embedding(items, table.reshape(len(table), -1))
    return rows.reshape(*items.shape, *table.shape[1:])
