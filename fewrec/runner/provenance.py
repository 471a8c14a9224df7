"""Where a row's options come from: the learner's defaults, set by hand, or tuned; apart because it decides no score."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fewrec.learners.base import Learner
from fewrec.seeding import digest


class Tuned(BaseModel):
    """How ``fewrec tune`` came to a row's options, as the row's table ``tuned`` has it.

    ``budget`` trials were asked for and ``trials`` of them gave a score, by ``method``, on the meta-validation episodes
    (``episodes`` a cell) of every (data set, state, K, seed) that is named; ``validation_rmse`` is the mean RMSE there
    of these options and ``default_rmse`` that of the first trial, the options that the search began with; of clicks
    there are ``validation_auc`` and ``default_auc`` in their place. ``study`` is the hash of what defines the search,
    ``config_hash`` that of the whole configuration that was found.
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
    validation_rmse: float | None = Field(default=None, ge=0)
    default_rmse: float | None = Field(default=None, ge=0)
    validation_auc: float | None = Field(default=None, ge=0, le=1)
    default_auc: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_metric(self) -> Tuned:
        if (self.validation_rmse is None) == (self.validation_auc is None):
            raise ValueError("a tuning result has validation_rmse (of ratings) or validation_auc (of clicks)")
        if (self.default_rmse if self.metric == "auc" else self.default_auc) is not None:
            raise ValueError(f"its score is validation_{self.metric}: the first trial's is default_{self.metric}")
        return self

    @property
    def metric(self) -> Literal["rmse", "auc"]:
        """The primary metric of the data that it was tuned on."""
        return "rmse" if self.validation_auc is None else "auc"

    @property
    def score(self) -> float:
        """The metric of these options on meta-validation."""
        return getattr(self, f"validation_{self.metric}")

    @property
    def default_score(self) -> float | None:
        """The metric of the options that the search began with, None where these failed."""
        return getattr(self, f"default_{self.metric}")


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
