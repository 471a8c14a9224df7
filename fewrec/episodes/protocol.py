"""The protocol: everything that defines the task apart from N, K and Q; validated data, hashed into every cell."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

State = Literal["user-cold", "item-cold", "both-cold", "warm"]
STATES: tuple[State, ...] = ("user-cold", "item-cold", "both-cold", "warm")
UNSEEN_ITEM_STATES = ("item-cold", "both-cold")
KNOWN_USER_STATES = ("warm", "item-cold")
OF_EPISODES = ("user_activity", "query_strata", "support_noise", "online")
_WINDOWS = ("history", "last_windows")
_LATER = ("user_split", "user_ratings", "item_years", "episode_ratings", "likes_above", *_WINDOWS, *OF_EPISODES)
_IN_WINDOWS = {"state": "user-cold", "order": "time", "user_split": "drawn"}


class Protocol(BaseModel):
    """State, order, conditions, split rule and ``k_max``.

    ``user_shares`` and ``item_shares`` are (meta-train, meta-validation, meta-test) and sum to 1; the latter counts in
    the unseen-item states alone. ``k_max``: a user is eligible with ``k_max`` + Q ratings of the right kinds, so that
    every K of a suite sees the same users. ``item_shots``: the ratings by meta-train users that each unseen query item
    brings. ``support_items``: whether the support comes from seen or from unseen items in the unseen-item states.

    ``user_split`` "given" takes each user's meta set from the data set, which brings a published split.
    ``user_ratings`` (lowest, highest): only users with so many ratings are in the data set at all, as published
    protocols have it. ``episode_ratings`` (lowest, highest) limits the ratings that a user's episodes are drawn from:
    in each meta set others are never drawn, and those of them that no episode can have are left out of meta-train too,
    so that what a learner is fitted on are the ratings that such episodes are made of (Lee et al., KDD 2019).

    ``item_years`` (seen, validation) takes items by their year in place of ``item_shares``: those up to the first year
    are seen, those after it and up to the second are meta-validation's unseen items, later ones meta-test's. Where no
    item is unseen all up to the second year are seen, and later ones are left out. With ``support_items`` "unseen"
    nothing is held out in item-cold: all ratings of seen items stay in meta-train. Items without a year count as seen.

    ``likes_above``: ratings are read as clicks, 1 above this limit and 0 elsewhere
    (``fewrec.data.likes.likes_of`` makes the data set so before it is split).

    ``history`` H: the episodes are windows in time (``fewrec.episodes.windows``). Each rating but a user's first H is
    asked for once, the K ratings just before it are its support; ``user_shares`` cut the windows by position, of the
    ``last_windows`` ones alone where that is given. Meta-train is what its windows hold; a user who is cut in two is
    known in the later set (``meta_user``). For state user-cold and time order.

    The other conditions concern episodes of meta-validation and meta-test alone. ``user_activity``: whether all
    eligible users are drawn from, or the half with the fewest ("light") or the most ratings ("heavy").
    ``query_strata`` S: items are cut by popularity into S strata that hold equal shares of the ratings, and a user's
    query has Q / S ratings from each, so that popular items don't decide the score alone. ``support_noise``: the share
    of support ratings replaced by ones drawn from all ratings of the meta set. ``online``: the query's ratings arrive
    one at a time, each is predicted before it is learnt (prequential: Dawid, JRSS A 1984), the earliest first in time
    order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    order: Literal["random", "time"] = "random"
    user_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    item_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    support_items: Literal["seen", "unseen"] = "seen"
    item_shots: int = Field(default=0, ge=0)
    user_split: Literal["drawn", "given"] = "drawn"
    user_ratings: tuple[int, int] | None = None
    item_years: tuple[int, int] | None = None
    episode_ratings: tuple[int, int] | None = None
    likes_above: float | None = Field(default=None, allow_inf_nan=False)
    history: int | None = Field(default=None, ge=1)
    last_windows: int | None = Field(default=None, ge=3)
    user_activity: Literal["all", "light", "heavy"] = "all"
    query_strata: int = Field(default=1, ge=1)
    support_noise: float = Field(default=0.0, ge=0, le=1)
    online: bool = False
    k_max: int = Field(ge=0)

    @field_validator("user_shares", "item_shares")
    @classmethod
    def _shares_sum_to_one(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9 or shares[0] <= 0:
            raise ValueError(
                "give three shares (meta-train, meta-validation, meta-test) that sum to 1, the first above 0"
            )
        return shares

    @field_validator("user_ratings", "episode_ratings")
    @classmethod
    def _low_is_not_above_high(cls, limits: tuple[int, int] | None) -> tuple[int, int] | None:
        if limits is not None and not 1 <= limits[0] <= limits[1]:
            raise ValueError(f"give the lowest and the highest number of ratings, not {limits[0]} and {limits[1]}")
        return limits

    @field_validator("item_years")
    @classmethod
    def _years_are_in_order(cls, years: tuple[int, int] | None) -> tuple[int, int] | None:
        if years is not None and years[0] > years[1]:
            raise ValueError(f"give the last year of seen items and of validation's, not {years[0]} and {years[1]}")
        return years

    @model_validator(mode="after")
    def _conditions_fit_the_state(self) -> Protocol:
        if self.state not in UNSEEN_ITEM_STATES:
            for name, default in (("item_shots", 0), ("support_items", "seen")):
                if getattr(self, name) != default:
                    raise ValueError(f"{name} belongs to the unseen-item states ({', '.join(UNSEEN_ITEM_STATES)})")
        if self.item_years is not None and self.item_shares != type(self).model_fields["item_shares"].default:
            raise ValueError("item_years takes the place of item_shares; give one of them")
        if self.query_strata > 1 and self.order == "time":
            raise ValueError('query_strata needs order = "random": in time order the query is the latest ratings')
        self._windows_are_plain()
        return self

    def _windows_are_plain(self) -> None:
        if self.history is None:
            if self.last_windows is not None:
                raise ValueError("last_windows needs history, the number of ratings before the one that is asked for")
            return
        plain = _IN_WINDOWS | {name: type(self).model_fields[name].default for name in OF_EPISODES}
        for name, value in plain.items():
            if getattr(self, name) != value:
                shown = f'"{value}"' if isinstance(value, str) else str(value).lower()
                raise ValueError(f"history (windows in time) needs {name} = {shown}")
        if self.k_max > self.history:
            raise ValueError(f"history = {self.history}: k_max and K can't be above it, and k_max is {self.k_max}")

    def canonical(self) -> dict[str, Any]:
        """Return the fields that count in this state, as JSON values: what a cell's hash is made of.

        A condition that came after the first cells is left out where it is the default, so that their hashes stay.
        """
        fields = self.model_dump(mode="json")
        for name in _LATER:
            if fields[name] == type(self).model_fields[name].default:
                del fields[name]
        if self.state not in UNSEEN_ITEM_STATES or self.item_years is not None:
            del fields["item_shares"]
        return fields

    def of_meta_fit(self) -> dict[str, Any]:
        """Return ``canonical()`` without the conditions of episodes alone: what a split and a meta-fit depend on."""
        return {name: value for name, value in self.canonical().items() if name not in OF_EPISODES}
