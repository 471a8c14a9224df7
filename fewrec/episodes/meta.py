"""The meta-train set: what a learner's ``meta_fit`` may see of a split, which is never meta-test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fewrec.data.table import Scale
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split
from fewrec.episodes.support import Episodes


class MetaTrainSet:
    """What a learner is meta-fitted on: the rating table of meta-train, and episodes *with* answers.

    ``table`` codes meta-train users 0..n_users-1 (``Support.meta_user`` refers to these) and items by catalog code;
    ``catalog.seen`` marks the items that occur in it. ``seed`` is the only source of randomness of ``meta_fit``.
    ``depends`` holds those fields of the cell that the learner declared in ``meta_depends``.
    """

    def __init__(self, split: Split, scale: Scale, depends: Mapping[str, Any] | None = None) -> None:
        self.table, self.catalog, self.scale = split.meta_train, split.catalog, scale
        self.seed, self.depends = split.seed, dict(depends or {})
        self._protocol = split.protocol
        self._pools = {"train": split.pools["train"], "validation": split.pools["validation"]}

    def train_episodes(self, first: int, count: int, *, n_users: int, k_shot: int, n_query: int) -> Episodes:
        """Return meta-train episodes ``first .. first + count - 1``; users appear as new ones (``meta_user`` -1).

        Where the protocol asks for windows in time (``history``), K ratings of a user at some time and the Q behind
        them; meta-validation likewise.

        Raises ``SuiteError`` where too few users have ``k_shot`` + ``n_query`` ratings.
        """
        return self._sample("train", first, count, n_users, k_shot, n_query)

    def validation_episodes(self, first: int, count: int, *, n_users: int, k_shot: int, n_query: int) -> Episodes:
        """Return meta-validation episodes, drawn as the test episodes are but from meta-validation users and items.

        Of the protocol's conditions order and item shots hold for them too. Those of episodes alone (``of_meta_fit`` of
        the protocol) don't, so that one meta-fit is judged under all of them.
        """
        return self._sample("validation", first, count, n_users, k_shot, n_query)

    def largest_n_users(self, name: Literal["train", "validation"], *, k_shot: int, n_query: int) -> int:
        """Return how many users of a meta set can give ``k_shot`` + ``n_query`` ratings: the largest N."""
        return len(self._sampler(name, k_shot).eligible(n_query).users)

    @property
    def n_user_attributes(self) -> int:
        """The number of columns of ``Support.user_features``; 0 where the data set has no user attributes."""
        features = self._pools["train"].user_features
        return 0 if features is None else features.shape[1]

    def _sampler(self, name: str, k_shot: int) -> EpisodeSampler:
        shots = self._protocol.item_shots if name == "validation" else 0
        order = self._protocol.order
        sliding = self._protocol.history is not None
        return EpisodeSampler(
            self._pools[name], self.seed, name, k_max=k_shot, order=order, item_shots=shots, sliding=sliding
        )

    def _sample(self, name: str, first: int, count: int, n_users: int, k_shot: int, n_query: int) -> Episodes:
        return self._sampler(name, k_shot).sample(first, count, n_users=n_users, k_shot=k_shot, n_query=n_query)
