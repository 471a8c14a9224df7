"""What a learner may be meta-fitted on where the episodes are frozen: the table of meta-train and its catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewrec.errors import NotApplicable

if TYPE_CHECKING:
    from fewrec.episodes.frozen.load import FrozenTask


class FrozenMetaTrain:
    """``MetaTrainSet`` as far as it is frozen.

    It gives ``table``, ``catalog``, ``scale``, ``seed``, ``depends`` and ``n_user_attributes``, equal to those of the
    split. It gives no meta-train or meta-validation episodes (``NotApplicable``): whose learner trains on episodes
    draws its own from ``meta_train.parquet`` and ``validation.parquet``.
    """

    def __init__(self, task: FrozenTask, depends: Mapping[str, Any] | None = None) -> None:
        self.table, self.catalog = task.known()
        self.scale, self.seed = task.record.dataset.as_scale(), task.record.seed
        self.n_user_attributes = task.record.dataset.user_features
        self.depends = dict(depends or {})

    def train_episodes(self, *_: Any, **__: Any) -> Any:
        raise NotApplicable("it is meta-fitted on episodes, of which only those of meta-test are frozen")

    validation_episodes = largest_n_users = train_episodes
