"""What a learner sees of episodes: support with ratings, query without (design, contract 1), as torch tensors.

An episode's users are numbered 0..N-1, its items by catalog code. The answers are a separate object that only the
runner, and for meta-train episodes the learner's own training loop, holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ItemRatings:
    """Ratings of unseen query items by meta-train users (protocol option ``item_shots``); all of shape (m,)."""

    item: Tensor
    meta_user: Tensor
    rating: Tensor


@dataclass(frozen=True, eq=False)
class Support:
    """One episode's support: ``n_users`` users x K ratings (ragged where K is ``rest``, empty where K = 0).

    ``user`` (n,) int64 in 0..n_users-1, ``item`` (n,) int64 catalog codes, ``rating`` (n,) float64 on the data set's
    scale, ``timestamp`` (n,) int64 or None, ``meta_user`` (n_users,) int64: each user's index in meta-train, -1 for a
    new user; ``seed``: the source of all randomness in adapting to this episode. ``user_features`` is
    (n_users, d) float32 or None.
    """

    n_users: int
    user: Tensor
    item: Tensor
    rating: Tensor
    timestamp: Tensor | None
    meta_user: Tensor
    seed: int
    item_ratings: ItemRatings | None = None
    user_features: Tensor | None = None

    def joined(self, more: Support) -> Support:
        """Return this support with the ratings of ``more`` (same users, numbered alike) behind its own; same seed."""
        time = None
        if self.timestamp is not None and more.timestamp is not None:
            time = torch.cat([self.timestamp, more.timestamp])
        return replace(
            self,
            user=torch.cat([self.user, more.user]),
            item=torch.cat([self.item, more.item]),
            rating=torch.cat([self.rating, more.rating]),
            timestamp=time,
        )


@dataclass(frozen=True, eq=False)
class SupportBatch:
    """Many supports, flat and ragged: rows of episode *e* lie at ``offsets[e]:offsets[e + 1]``.

    ``episode``, ``user``, ``item``, ``rating``, ``timestamp`` have shape (n,); ``user`` counts from 0 within its
    episode. ``n_users`` (E,), ``seeds`` (E,) int64; ``meta_user`` (sum of n_users,), episode after episode.
    """

    episode: Tensor
    user: Tensor
    item: Tensor
    rating: Tensor
    timestamp: Tensor | None
    offsets: Tensor
    n_users: Tensor
    meta_user: Tensor
    seeds: Tensor
    item_ratings: tuple[ItemRatings | None, ...] | None = None
    user_features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.n_users)

    @property
    def user_offsets(self) -> Tensor:
        """(E + 1,): where each episode's users begin among all users of the batch."""
        return torch.cat([self.n_users.new_zeros(1), self.n_users.cumsum(0)])

    @property
    def total_users(self) -> int:
        return int(self.n_users.sum())

    def flat_user(self, episode: Tensor | None = None, user: Tensor | None = None) -> Tensor:
        """Return users numbered through the whole batch, for the support's rows or for given (episode, user) pairs."""
        if episode is None or user is None:
            episode, user = self.episode, self.user
        return self.user_offsets[episode] + user

    def __getitem__(self, e: int) -> Support:
        rows = slice(int(self.offsets[e]), int(self.offsets[e + 1]))
        users = slice(int(self.user_offsets[e]), int(self.user_offsets[e + 1]))
        return Support(
            n_users=int(self.n_users[e]),
            user=self.user[rows],
            item=self.item[rows],
            rating=self.rating[rows],
            timestamp=None if self.timestamp is None else self.timestamp[rows],
            meta_user=self.meta_user[users],
            seed=int(self.seeds[e]),
            item_ratings=None if self.item_ratings is None else self.item_ratings[e],
            user_features=None if self.user_features is None else self.user_features[users],
        )

    def __iter__(self) -> Iterator[Support]:
        return (self[e] for e in range(len(self)))

    def joined(self, more: SupportBatch) -> SupportBatch:
        """Return the batch in which each episode also has the ratings of the same episode of ``more``, behind its own.

        Users and seeds stay those of this batch; timestamps are kept where both have them.
        """
        if len(self) != len(more):
            raise ValueError(f"{len(self)} episodes can't be joined with {len(more)}")
        episode = torch.cat([self.episode, more.episode])
        order = torch.argsort(episode, stable=True)

        def both(name: str) -> Tensor:
            return torch.cat([getattr(self, name), getattr(more, name)])[order]

        return replace(
            self,
            episode=episode[order],
            user=both("user"),
            item=both("item"),
            rating=both("rating"),
            timestamp=None if self.timestamp is None or more.timestamp is None else both("timestamp"),
            offsets=self.offsets + more.offsets,
        )

    @classmethod
    def of(cls, supports: Sequence[Support]) -> SupportBatch:
        """Return the batch of the given episodes, in their order."""
        sizes = torch.tensor([len(s.item) for s in supports])
        times = [s.timestamp for s in supports if s.timestamp is not None]
        features = [s.user_features for s in supports if s.user_features is not None]
        return cls(
            episode=torch.repeat_interleave(torch.arange(len(supports)), sizes),
            user=torch.cat([s.user for s in supports]),
            item=torch.cat([s.item for s in supports]),
            rating=torch.cat([s.rating for s in supports]),
            timestamp=torch.cat(times) if len(times) == len(supports) else None,
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]),
            n_users=torch.tensor([s.n_users for s in supports]),
            meta_user=torch.cat([s.meta_user for s in supports]),
            seeds=torch.tensor([s.seed for s in supports]),
            item_ratings=tuple(s.item_ratings for s in supports),
            user_features=torch.cat(features) if len(features) == len(supports) else None,
        )


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """What is to be predicted: (episode, user, item) triples, each of shape (m,). No ratings."""

    episode: Tensor
    user: Tensor
    item: Tensor


@dataclass(frozen=True, eq=False)
class Answers:
    """The ratings of a query, (m,) float64 in the query's order, when they were given (or None), and who was asked.

    ``table_user`` (sum of n_users,) int64 holds each user's code in the data set's rating table, which the score rows
    keep so that intervals can be clustered by user.
    """

    rating: Tensor
    table_user: Tensor
    timestamp: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of episodes with their answers."""

    support: SupportBatch
    query: QueryBatch
    answers: Answers

    def __len__(self) -> int:
        return len(self.support)
