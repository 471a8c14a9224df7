"""Reading frozen episodes back: verified, and as the objects that the sampler and the split give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fewrec.data.table import TEXT_COLUMNS, Catalog, RatingTable
from fewrec.episodes.frozen.check import Checker, Columns
from fewrec.episodes.frozen.files import read_json, read_parquet
from fewrec.episodes.frozen.layout import (
    ANSWERS,
    EPISODE,
    EXPORT,
    ITEM_RATINGS,
    ITEMS,
    META_TRAIN,
    QUERY,
    SUPPORT,
    USERS,
    EpisodeRecord,
    ExportRecord,
    schema,
    task_name,
)
from fewrec.errors import DataError

if TYPE_CHECKING:
    from fewrec.episodes.frozen.source import FrozenMetaTrain
    from fewrec.episodes.support import Answers, Episodes, QueryBatch, SupportBatch


@dataclass(frozen=True, eq=False)
class FrozenTask:
    """One task of an export: the episodes of a (data set, state, seed, N, K, Q), read and checked when asked for.

    ``name`` is its folder within the export, ``record`` what its ``episode.json`` says.
    """

    folder: Path
    name: str
    record: EpisodeRecord

    def columns(self, file: str) -> Columns:
        """Return the columns of one of its Parquet files, or of its split's, as arrays (n,) by name; unchecked values.

        Raises ``DataError`` where the file is missing or isn't what its record says.
        """
        own = file in self.record.files
        path = (self.folder if own else self.folder.parent) / file
        found = self.record.files.get(file) or self.record.split_files.get(file)
        if found is None:
            raise DataError(f"{path}: no file of this task")
        return read_parquet(path, found, schema(file, self.record.dataset))

    @property
    def has_answers(self) -> bool:
        """Whether ``answers.parquet`` is there; who predicts may leave it aside."""
        return (self.folder / ANSWERS).is_file()

    def verify(self, split: bool = True) -> None:
        """Check the whole task, and with ``split`` its split too; raise ``DataError`` naming what is wrong first."""
        if split:
            self.known()
            rest = {name: self.columns(name) for name in self.record.split_files if name not in (META_TRAIN, ITEMS)}
            Checker(self.folder.parent, self.record).validation(rest)
        self._asked  # noqa: B018  # reading is checking
        if self.has_answers:
            self._answers()
        if ITEM_RATINGS in self.record.files:
            self._item_ratings()

    @property
    def query_columns(self) -> Columns:
        """``episode``, ``user`` and ``item`` of every query rating, each (m,) int64; needs no torch."""
        return self._asked[2]

    @cached_property
    def _asked(self) -> tuple[Columns, Columns, Columns]:
        """Users, support and query, checked."""
        check = Checker(self.folder, self.record)
        users, support, query = (self.columns(name) for name in (USERS, SUPPORT, QUERY))
        check.users(users)
        check.support(support, users)
        check.query(query, support)
        return users, support, query

    def _answers(self) -> Columns:
        if not self.has_answers:
            raise DataError(f"{self.folder / ANSWERS}: not there; only who has the answers can score predictions")
        answers = self.columns(ANSWERS)
        Checker(self.folder, self.record).answers(answers, self.query_columns)
        return answers

    def _item_ratings(self) -> Columns:
        shots = self.columns(ITEM_RATINGS)
        Checker(self.folder, self.record).item_ratings(shots, self.query_columns)
        return shots

    def support(self) -> SupportBatch:
        """Return the support of all episodes, equal to the sampler's; raises ``DataError`` where a file is broken."""
        import torch

        from fewrec.episodes.support import ItemRatings, SupportBatch

        def tensor(values: Any) -> Any:
            return torch.from_numpy(np.array(values))

        users, rows, _ = self._asked
        record = self.record
        per_episode = np.bincount(rows["episode"], minlength=record.episodes)
        item_ratings = None
        if ITEM_RATINGS in record.files:
            shots = self._item_ratings()
            ends = np.searchsorted(shots["episode"], np.arange(record.episodes + 1))
            item_ratings = tuple(
                ItemRatings(*(tensor(shots[name][a:b]) for name in ("item", "meta_user", "rating")))
                for a, b in zip(ends[:-1], ends[1:], strict=True)
            )
        features = [users[f"feature_{i}"] for i in range(record.dataset.user_features)]
        return SupportBatch(
            episode=tensor(rows["episode"]),
            user=tensor(rows["user"]),
            item=tensor(rows["item"]),
            rating=tensor(rows["rating"]),
            timestamp=tensor(rows["timestamp"]) if record.dataset.timestamps else None,
            offsets=tensor(np.concatenate([[0], per_episode.cumsum()])),
            n_users=torch.full((record.episodes,), record.n_users),
            meta_user=tensor(users["meta_user"]),
            seeds=tensor(users["seed"][:: record.n_users]),
            item_ratings=item_ratings,
            user_features=tensor(np.stack(features, axis=1)) if features else None,
        )

    def query(self) -> QueryBatch:
        """Return what is to be predicted in all episodes."""
        import torch

        from fewrec.episodes.support import QueryBatch

        columns = self.query_columns
        return QueryBatch(*(torch.from_numpy(np.array(columns[name])) for name in ("episode", "user", "item")))

    def answers(self) -> Answers:
        """Return the ratings of the query; raises ``DataError`` where they were left aside."""
        import torch

        from fewrec.episodes.support import Answers

        answers = self._answers()
        first = slice(None, None, self.record.n_query)
        time = answers.get("timestamp")
        parts = (answers["rating"], answers["table_user"][first], *([] if time is None else [time]))
        return Answers(*(torch.from_numpy(np.array(part)) for part in parts))

    def episodes(self) -> Episodes:
        """Return the episodes with their answers, equal to what the sampler draws for this task."""
        from fewrec.episodes.support import Episodes

        return Episodes(self.support(), self.query(), self.answers())

    def known(self) -> tuple[RatingTable, Catalog]:
        """Return the rating table of meta-train, and the items, with ``seen`` as the split has it."""
        train, items, about = self.columns(META_TRAIN), self.columns(ITEMS), self.record.dataset
        Checker(self.folder.parent, self.record).known(train, items)
        users = self.record.meta_train_users
        table = RatingTable(train["user"], train["item"], train["rating"], train.get("timestamp"), users, about.n_items)
        text = pd.DataFrame({name: items[name] for name in TEXT_COLUMNS}) if about.item_text else None
        features = [items[f"feature_{i}"] for i in range(about.item_features)]
        ids = np.asarray(items["item_id"], object if about.item_ids == "text" else np.int64)
        stacked = np.stack(features, axis=1) if features else None
        return table, Catalog(ids, text, stacked, items["seen"], about.text_template)

    def source(self) -> FrozenMetaTrain:
        """Return what a learner is meta-fitted on, as far as it is frozen: see ``FrozenMetaTrain``."""
        from fewrec.episodes.frozen.source import FrozenMetaTrain

        return FrozenMetaTrain(self)


class FrozenEpisodes:
    """An export, or a part of it: its tasks, in the order of their names.

    ``folder`` is where it was read from, ``suite`` the name of the suite. Iterating gives each ``FrozenTask``,
    ``frozen["ml-100k/user-cold/seed-0/n5-k5-q10"]`` the one of that name.
    """

    def __init__(self, folder: Path, suite: str, tasks: list[FrozenTask]) -> None:
        self.folder, self.suite = folder, suite
        self.tasks = {task.name: task for task in tasks}

    def __iter__(self) -> Iterator[FrozenTask]:
        return iter(self.tasks.values())

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, name: str) -> FrozenTask:
        return self.tasks[name]

    def verify(self) -> int:
        """Check every file: checksums, columns, ranges, no overlap; return how many. Raises ``DataError`` at the first.

        Files of a split are checked once, whatever number of tasks share them.
        """
        splits: dict[Path, Any] = {}
        files = 0
        for task in self:
            known = splits.setdefault(task.folder.parent, task.record.split_files)
            replace(task).verify(split=known is task.record.split_files)  # a copy: what it has read is freed
            if known != task.record.split_files:
                raise DataError(f"{task.folder / EPISODE}: tasks of one split have other checksums of its files")
            files += len(task.record.files) - (not task.has_answers)
        return files + sum(map(len, splits.values()))


def load(folder: str | Path) -> FrozenEpisodes:
    """Return the frozen episodes in ``folder``: a whole export, or one task's folder in it.

    ``load(folder).tasks`` maps names to ``FrozenTask``; ``task.episodes()`` are the ``Episodes`` that the sampler drew,
    ``task.source()`` is what a learner is meta-fitted on. Records are checked now, each Parquet file when it is read;
    ``verify`` checks all of them.

    Raises ``DataError``, one line that names the file, where it is no export, or one that is broken or of another
    version of the format.
    """
    folder = Path(folder).expanduser()
    if (folder / EXPORT).is_file():
        export = read_json(folder / EXPORT, ExportRecord)
        return FrozenEpisodes(
            folder, export.suite, [_task(folder / name, name, sha256) for name, sha256 in sorted(export.tasks.items())]
        )
    if (folder / EPISODE).is_file():
        task = _task(folder)
        return FrozenEpisodes(folder, task.record.suite, [task])
    raise DataError(f"{folder}: no frozen episodes there (neither {EXPORT} nor {EPISODE}); give --out of the export")


def _task(folder: Path, name: str | None = None, sha256: str | None = None) -> FrozenTask:
    record = read_json(folder / EPISODE, EpisodeRecord, sha256)
    own = task_name(record.dataset.name, record.protocol, record.seed, record.n_users, record.k_shot, record.n_query)
    if name is not None and name != own:
        raise DataError(f"{folder / EPISODE}: it belongs to {own}")
    return FrozenTask(folder, own, record)
