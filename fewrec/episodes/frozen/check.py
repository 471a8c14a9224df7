"""What must hold between the numbers of frozen episodes, whoever wrote them: ranges, sizes, and no overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewrec.episodes.frozen.layout import (
    ANSWERS,
    ITEM_RATINGS,
    ITEMS,
    META_TRAIN,
    META_USERS,
    QUERY,
    ROLES,
    SUPPORT,
    USERS,
    VALIDATION,
    VALIDATION_USERS,
    EpisodeRecord,
)
from fewrec.errors import DataError

Columns = dict[str, Any]


class Checker:
    """Checks the columns of one file after the other; ``folder`` is what its errors name."""

    def __init__(self, folder: Path, record: EpisodeRecord) -> None:
        self.folder, self.record = folder, record

    def known(self, train: Columns, items: Columns) -> None:
        """Check meta-train and the items: what a learner is meta-fitted on."""
        record = self.record
        n_items = record.dataset.n_items
        self._range(META_TRAIN, train, "user", 0, record.meta_train_users)
        self._rated(META_TRAIN, train)
        if not len(train["item"]):
            self._fail(META_TRAIN, "it holds no rating")
        self._once(META_TRAIN, train["user"] * n_items + train["item"], "a user rates an item twice")
        self._counted(ITEMS, items["item"], n_items, "item")
        seen = np.bincount(train["item"], minlength=n_items) > 0
        if (items["seen"] != seen).any():
            item = int(np.flatnonzero(items["seen"] != seen)[0])
            self._fail(ITEMS, f"item {item} is marked otherwise than meta-train has it", item)

    def validation(self, files: dict[str, Columns]) -> None:
        """Check the validation users and their ratings, and the attributes of meta-train's users if there are any."""
        record = self.record
        if META_USERS in files:
            self._counted(META_USERS, files[META_USERS]["user"], record.meta_train_users, "user")
        users, rows = files[VALIDATION_USERS], files[VALIDATION]
        self._counted(VALIDATION_USERS, users["user"], record.validation_users, "user")
        self._range(VALIDATION_USERS, users, "meta_user", -1, record.meta_train_users)
        self._range(VALIDATION, rows, "user", 0, record.validation_users)
        self._rated(VALIDATION, rows)
        if unknown := sorted(set(rows["role"]) - set(ROLES)):
            self._fail(VALIDATION, f"role '{unknown[0][:20]}' is none of {', '.join(ROLES)}")

    def users(self, users: Columns) -> None:
        """Check who is in the episodes: N users each, numbered from 0, with one seed an episode."""
        record = self.record
        total = record.episodes * record.n_users
        self._counted(USERS, self._who(USERS, users), total, "(episode, user)")
        self._range(USERS, users, "meta_user", -1, record.meta_train_users)
        seeds = users["seed"].reshape(record.episodes, record.n_users)
        if (seeds < 0).any() or (seeds != seeds[:, :1]).any():
            self._fail(USERS, "an episode has two seeds, or one below 0")

    def support(self, support: Columns, users: Columns) -> None:
        """Check the support: K ratings a user, none of an item twice, episode after episode."""
        record = self.record
        who = self._who(SUPPORT, support)
        self._rated(SUPPORT, support)
        if (np.diff(who) < 0).any():
            self._fail(SUPPORT, "its rows are not in the order of episodes and users")
        if record.k_shot != "rest":
            self._sizes(SUPPORT, who, record.k_shot, "K")
        if (support["meta_user"] != users["meta_user"][who]).any():
            self._fail(SUPPORT, f"a user has another meta_user than in {USERS}")
        self._once(SUPPORT, self._pairs(support), "a user has an item twice")

    def query(self, query: Columns, support: Columns) -> None:
        """Check the query: Q items a user, episode after episode, none of which is in the user's support."""
        who = self._who(QUERY, query)
        self._range(QUERY, query, "item", 0, self.record.dataset.n_items)
        if (np.diff(who) < 0).any():
            self._fail(QUERY, "its rows are not in the order of episodes and users")
        self._sizes(QUERY, who, self.record.n_query, "Q")
        self._once(QUERY, self._pairs(query), "a user is asked for an item twice")
        both = np.isin(self._pairs(query), self._pairs(support))
        if both.any():
            row = int(np.argmax(both))
            at = f"episode {query['episode'][row]}, user {query['user'][row]}, item {query['item'][row]}"
            self._fail(QUERY, f"{at} is in the support too ({int(both.sum()):,} such rows)")

    def answers(self, answers: Columns, query: Columns) -> None:
        """Check the answers: those of the query, in its order, with one distinct ``table_user`` a user."""
        if any((answers[name] != query[name]).any() for name in ("episode", "user", "item")):
            self._fail(ANSWERS, f"its rows are not those of {QUERY}, in their order")
        self._rated(ANSWERS, answers)
        self._range(ANSWERS, answers, "table_user", 0, self.record.dataset.n_users)
        of_user = answers["table_user"].reshape(-1, self.record.n_query)
        if (of_user != of_user[:, :1]).any():
            self._fail(ANSWERS, "a user of an episode is two users of the data set")
        in_episode = np.sort(of_user[:, 0].reshape(self.record.episodes, self.record.n_users), axis=1)
        if (np.diff(in_episode) == 0).any():
            self._fail(ANSWERS, "two users of an episode are one user of the data set")

    def item_ratings(self, shots: Columns, query: Columns) -> None:
        """Check the ratings that unseen query items bring: of items that the episode asks for."""
        record = self.record
        self._range(ITEM_RATINGS, shots, "episode", 0, record.episodes)
        self._rated(ITEM_RATINGS, shots)
        self._range(ITEM_RATINGS, shots, "meta_user", 0, record.meta_train_users)
        if (np.diff(shots["episode"]) < 0).any():
            self._fail(ITEM_RATINGS, "its rows are not in the order of episodes")
        n_items = record.dataset.n_items
        asked = np.isin(shots["episode"] * n_items + shots["item"], query["episode"] * n_items + query["item"])
        if not asked.all():
            row = int(np.argmin(asked))
            self._fail(ITEM_RATINGS, f"item {shots['item'][row]} is not in the episode's query", row)

    def _who(self, file: str, columns: Columns) -> np.ndarray:
        """Return each row's (episode, user) as one number, after checking both."""
        self._range(file, columns, "episode", 0, self.record.episodes)
        self._range(file, columns, "user", 0, self.record.n_users)
        return columns["episode"] * self.record.n_users + columns["user"]

    def _pairs(self, columns: Columns) -> np.ndarray:
        who = columns["episode"] * self.record.n_users + columns["user"]
        return who * self.record.dataset.n_items + columns["item"]

    def _rated(self, file: str, columns: Columns) -> None:
        self._range(file, columns, "item", 0, self.record.dataset.n_items)
        low, high, _ = self.record.dataset.scale
        rating = columns["rating"]
        bad = ~((rating >= low) & (rating <= high))  # NaN is bad too
        if bad.any():
            row = int(np.argmax(bad))
            self._fail(file, f"rating {rating[row]:g} is outside the scale {low:g}..{high:g}", row)

    def _range(self, file: str, columns: Columns, name: str, low: int, end: int) -> None:
        bad = (columns[name] < low) | (columns[name] >= end)
        if bad.any():
            row = int(np.argmax(bad))
            self._fail(file, f"{name} {columns[name][row]} is outside {low}..{end - 1}", row)

    def _counted(self, file: str, column: np.ndarray, count: int, what: str) -> None:
        if len(column) != count or (column != np.arange(count)).any():
            self._fail(file, f"its {what}s are not all of the {count:,}, one after the other")

    def _sizes(self, file: str, who: np.ndarray, size: int, what: str) -> None:
        counts = np.bincount(who, minlength=self.record.episodes * self.record.n_users)
        if (counts != size).any():
            first = int(np.argmax(counts != size))
            at = f"episode {first // self.record.n_users}, user {first % self.record.n_users}"
            self._fail(file, f"{at} has {counts[first]} rows, {what} is {size}")

    def _once(self, file: str, keys: np.ndarray, said: str) -> None:
        if len(np.unique(keys)) < len(keys):
            self._fail(file, said)

    def _fail(self, file: str, said: str, row: int | None = None) -> None:
        at = "" if row is None else f" row {row + 1}:"
        raise DataError(f"{self.folder / file}:{at} {said}")
