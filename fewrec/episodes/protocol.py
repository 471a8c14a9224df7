"""The protocol: everything that defines the task apart from N, K and Q; validated data, hashed into every cell."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

State = Literal["user-cold", "item-cold", "both-cold", "warm"]
STATES: tuple[State, ...] = ("user-cold", "item-cold", "both-cold", "warm")
UNSEEN_ITEM_STATES = ("item-cold", "both-cold")
KNOWN_USER_STATES = ("warm", "item-cold")


class Protocol(BaseModel):
    """State, order, conditions, split rule and ``k_max``.

    ``user_shares`` and ``item_shares`` are (meta-train, meta-validation, meta-test) and sum to 1; the latter counts in
    the unseen-item states alone. ``k_max``: a user is eligible with ``k_max`` + Q ratings of the right kinds, so that
    every K of a suite sees the same users. ``item_shots``: the ratings by meta-train users that each unseen query item
    brings. ``support_items``: whether the support comes from seen or from unseen items in the unseen-item states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    order: Literal["random", "time"] = "random"
    user_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    item_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    support_items: Literal["seen", "unseen"] = "seen"
    item_shots: int = Field(default=0, ge=0)
    k_max: int = Field(ge=0)

    @field_validator("user_shares", "item_shares")
    @classmethod
    def _shares_sum_to_one(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9 or shares[0] <= 0:
            raise ValueError(
                "give three shares (meta-train, meta-validation, meta-test) that sum to 1, the first above 0"
            )
        return shares

    @model_validator(mode="after")
    def _conditions_fit_the_state(self) -> Protocol:
        if self.state not in UNSEEN_ITEM_STATES:
            for name, default in (("item_shots", 0), ("support_items", "seen")):
                if getattr(self, name) != default:
                    raise ValueError(f"{name} belongs to the unseen-item states ({', '.join(UNSEEN_ITEM_STATES)})")
        return self

    def canonical(self) -> dict[str, Any]:
        """Return the fields that count in this state, as JSON values: what a cell's hash is made of."""
        fields = self.model_dump(mode="json")
        if self.state not in UNSEEN_ITEM_STATES:
            del fields["item_shares"]
        return fields
