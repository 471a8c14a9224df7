"""The user-cold splits that the repository of CLOVER ships: JSON of items and ratings by user, two files a meta set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewrec.data.readers.raw import RawFiles, int_ids
from fewrec.data.validate import RawRatings
from fewrec.errors import DataError

META_SETS = ("user_warm_state", "user_cold_state_valid", "user_cold_state_test")  # meta-train, -validation, -test


def read(folder: Path, name: str = "") -> RawFiles:
    """Return ratings, attributes of users and the given meta set of each user; items are codes without a text.

    ``{set}.json`` maps a user to a list of items, ``{set}_y.json`` to their ratings; ``user_profile.json`` maps a user
    to codes, of which the first is the user's own.
    """
    users, items, ratings, places = [], [], [], []
    sets: dict[str, int] = {}
    for which, meta_set in enumerate(META_SETS):
        file = folder / f"{meta_set}.json"
        of_items, of_ratings = (_mapping(folder / f"{meta_set}{ending}.json") for ending in ("", "_y"))
        for user, own in of_items.items():
            rated = of_ratings.get(user)
            if not (isinstance(own, list) and isinstance(rated, list) and len(own) == len(rated)):
                raise DataError(f"{file}: user {user} has another number of ratings in {meta_set}_y.json than items")
            if not all(_is_id(item) for item in own) or not all(_is_number(rating) for rating in rated):
                raise DataError(f"{file}: user {user} has an item that is no code, or a rating that is no number")
            if sets.setdefault(user, which) != which:
                raise DataError(f"{file}: user {user} is in {META_SETS[sets[user]]}.json too")
            users += [user] * len(own)
            items += own
            ratings += rated
            places += [f"{meta_set}.json, user {user}"] * len(own)
    ids = int_ids(pd.Series(list(sets), dtype=object))
    profiles = _mapping(folder / "user_profile.json")
    if missing := [user for user in sets if not isinstance(profiles.get(user), list)]:
        raise DataError(f"{folder / 'user_profile.json'}: user {missing[0]} is not in it")
    sizes = {user: len(profiles[user]) for user in sets}
    if other := [user for user, size in sizes.items() if size != next(iter(sizes.values()))]:
        raise DataError(f"{folder / 'user_profile.json'}: user {other[0]} has another number of codes than the first")
    codes = pd.DataFrame([[str(code) for code in profiles[user][1:]] for user in sets])
    return RawFiles(
        ratings=RawRatings(
            pd.Series(int_ids(pd.Series(users, dtype=object))), pd.Series(items), pd.Series(ratings), None,
            places.__getitem__,
        ),
        item_ids=np.empty(0, np.int64),
        item_text=None,
        user_ids=ids,
        user_features=codes.set_axis([f"attribute_{i + 1}" for i in range(codes.shape[1])], axis=1),
        user_set=np.array(list(sets.values()), np.int8),
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(found, ensure_ascii=False).encode()  # half a character is an error of UTF-8, which is a ValueError
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({str(error)[:80]})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object of users")
    return found
