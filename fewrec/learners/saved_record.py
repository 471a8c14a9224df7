"""What ``learner.json`` of a saved learner holds, as validated models; apart from reading and writing the folder."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fewrec.data.table import Catalog, Dataset
from fewrec.episodes.split import Split

_STRICT = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TrainedOn(BaseModel):
    """The data behind a saved learner: the whole data set, its scale (low, high, step) and what of it was meta-train.

    ``unseen_items`` are the catalog codes of items without a rating in meta-train.
    """

    model_config = _STRICT

    dataset: str
    table_sha256: str
    text_sha256: str | None
    items_sha256: str
    n_items: int = Field(ge=1, lt=2**31)
    scale: tuple[float, float, float | None]
    protocol: dict[str, Any]
    split_sha256: str
    seed: int
    users: int
    ratings: int
    unseen_items: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Dataset, split: Split) -> TrainedOn:
        seen = split.catalog.seen
        assert seen is not None  # Catalog fills it in
        return cls(
            dataset=dataset.name,
            table_sha256=dataset.table.sha256,
            text_sha256=dataset.catalog.text_sha256,
            items_sha256=items_sha256(dataset.catalog),
            n_items=len(dataset.catalog),
            scale=(dataset.scale.low, dataset.scale.high, dataset.scale.step),
            protocol=split.protocol.canonical(),
            split_sha256=split.sha256,
            seed=split.seed,
            users=split.meta_train.n_users,
            ratings=len(split.meta_train),
            unseen_items=tuple(np.flatnonzero(~seen).tolist()),
        )

    def seen(self) -> np.ndarray:
        """Return (n_items,) bool: which items were in meta-train."""
        seen = np.ones(self.n_items, bool)
        seen[list(self.unseen_items)] = False
        return seen


class TensorInfo(BaseModel):
    """What a tensor of the state must be."""

    model_config = _STRICT

    dtype: str
    shape: tuple[int, ...]


class LearnerRecord(BaseModel):
    """What ``learner.json`` holds. ``target`` (module:Class) is shown to people and never imported.

    ``seconds`` are those of meta-fitting; ``code_hash`` is that of the sources that decide a score; ``loaded`` has the
    SHA-256 of every file of weights that ``prepare`` loaded; ``state_sha256`` is that of ``state.safetensors``.
    """

    model_config = _STRICT

    schema_version: int
    fewrec: str
    torch: str
    device: str
    learner: str
    target: str
    config: dict[str, Any]
    values: dict[str, Any]
    tensors: dict[str, TensorInfo]
    state_sha256: str
    code_hash: str
    loaded: dict[str, str]
    trained_on: TrainedOn
    seconds: float = Field(ge=0)


def items_sha256(catalog: Catalog) -> str:
    """Return the SHA-256 of the original item ids in their order: what a learner's item codes mean."""
    return hashlib.sha256("\x1f".join(str(item) for item in catalog.item_ids.tolist()).encode()).hexdigest()
