"""Where a row's options come from: the learner's defaults, set by hand, or tuned; apart because it decides no score."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fewrec.learners.base import Learner
from fewrec.seeding import digest


class Tuned(BaseModel):
    """How ``fewrec tune`` came to a row's options, as the row's table ``tuned`` has it.

    ``budget`` trials were asked for and ``trials`` of them gave a score, by ``method``, on the meta-validation episodes
    (``episodes`` a cell) of every (data set, state, K, seed) that is named; ``validation_rmse`` is the mean RMSE there
    of these options and ``default_rmse`` that of the first trial, the options that the search began with. ``study``
    is the hash of what defines the search, ``config_hash`` that of the whole configuration that was found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(ge=1)
    trials: int = Field(ge=1)
    method: Literal["tpe"]
    seeds: tuple[int, ...] = Field(min_length=1)
    dataset: str
    suite: str
    states: tuple[str, ...] = ()
    shots: tuple[int | Literal["rest"], ...] = ()
    episodes: int | None = Field(default=None, ge=1)
    study: str
    config_hash: str
    validation_rmse: float = Field(ge=0)
    default_rmse: float | None = Field(default=None, ge=0)


def provenance(cls: type[Learner], config: dict[str, Any], tuned: Tuned | None = None) -> dict[str, Any]:
    """Return what a cell's record says of its ``config`` (the whole configuration, as JSON values).

    ``{"kind": "tuned", "budget": ..., ...}`` where it is that of a tuning result to the last option,
    ``{"kind": "default"}`` where it is the learner's own, ``{"kind": "set"}`` otherwise.
    """
    if tuned is not None and tuned.config_hash == digest(config):
        return {"kind": "tuned", **tuned.model_dump(mode="json", exclude={"config_hash"}, exclude_none=True)}
    return {"kind": "default" if config == default_config(cls) else "set"}


def default_config(cls: type[Learner]) -> dict[str, Any] | None:
    """Return a learner's own configuration as JSON values, or None where it has options without a default."""
    try:
        return cls.Config().model_dump(mode="json")
    except ValueError:
        return None
