"""A suite's table ``[protocol]``: the conditions of its cells, of which some may be lists."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from fewrec.episodes.protocol import Protocol

# The conditions that may be lists; those that a meta-fit does not depend on come last and so change fastest.
_GRID = ("order", "support_items", "item_shots", "user_activity", "query_strata", "support_noise", "online")
MOST_PROTOCOLS = 10_000


class Conditions(BaseModel):
    """The protocol's options that hold for all states of a suite; those of unseen items apply where they can.

    Options that may be a list make the grid larger: one table for each value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: tuple[Literal["random", "time"], ...] = ("random",)
    user_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    item_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    support_items: tuple[Literal["seen", "unseen"], ...] = ("seen",)
    item_shots: tuple[int, ...] = (0,)
    user_split: Literal["drawn", "given"] = "drawn"
    user_ratings: tuple[int, int] | None = None
    item_years: tuple[int, int] | None = None
    episode_ratings: tuple[int, int] | None = None
    likes_above: float | None = None
    history: int | None = None
    last_windows: int | None = None
    user_activity: tuple[Literal["all", "light", "heavy"], ...] = ("all",)
    query_strata: tuple[int, ...] = (1,)
    support_noise: tuple[float, ...] = (0.0,)
    online: tuple[bool, ...] = (False,)

    @field_validator(*_GRID, mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else (value,)

    @field_validator(*_GRID)
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        if not values:
            raise ValueError("give at least one value")
        return tuple(dict.fromkeys(values))

    @property
    def size(self) -> int:
        """How many protocols the grid has."""
        return math.prod(len(getattr(self, name)) for name in _GRID)

    @model_validator(mode="after")
    def _protocols_are_valid(self) -> Conditions:
        if self.size > MOST_PROTOCOLS:
            raise ValueError(
                f"its lists combine to {self.size:,} protocols, more than {MOST_PROTOCOLS:,}; shorten them"
            )
        for fields in self.combinations():
            Protocol(state="both-cold" if self.history is None else "user-cold", k_max=0, **fields)
        return self

    def combinations(self) -> list[dict[str, Any]]:
        """Return the options of each protocol of the grid; the last of ``_GRID`` changes fastest."""
        fixed = self.model_dump(exclude=set(_GRID))
        grid = itertools.product(*(getattr(self, name) for name in _GRID))
        return [fixed | dict(zip(_GRID, values, strict=True)) for values in grid]

    @model_serializer(mode="wrap")
    def _single_values_alone(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = dump(self)
        return {k: v[0] if k in _GRID and len(v) == 1 else v for k, v in values.items()}
