"""Writing frozen episodes: what the sampler draws, task by task, into a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fewrec
from fewrec.data.table import TEXT_COLUMNS, Dataset
from fewrec.episodes.frozen.files import write_json, write_parquet
from fewrec.episodes.frozen.layout import (
    ANSWERS,
    EPISODE,
    EXPORT,
    FORMAT,
    ITEM_RATINGS,
    ITEMS,
    META_TRAIN,
    META_USERS,
    QUERY,
    SUPPORT,
    USERS,
    VALIDATION,
    VALIDATION_USERS,
    DatasetRecord,
    EpisodeRecord,
    ExportRecord,
    FileRecord,
    protocol_folder,
    schema,
    split_name,
    task_name,
)
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler, Shots
from fewrec.episodes.split import Pool, Split, split_dataset
from fewrec.episodes.support import Episodes
from fewrec.errors import FolderError, SuiteError, reason_of


@dataclass(frozen=True)
class Task:
    """One task of an export: the cell without its learner."""

    dataset: str
    protocol: Protocol
    seed: int
    n_users: int
    k_shot: Shots
    n_query: int
    episodes: int
    block: int
    ndcg_at: int | tuple[int, ...]

    @property
    def split(self) -> tuple[str, str, int]:
        return self.dataset, protocol_folder(self.protocol.canonical()), self.seed


def write_export(
    folder: str | Path,
    tasks: Iterable[Task],
    datasets: Mapping[str, Dataset],
    *,
    suite: str,
    definition: dict[str, Any],
    told: Callable[[str], None] = lambda name: None,
) -> ExportRecord:
    """Draw the episodes of all tasks and write them into ``folder``; return what ``export.json`` holds.

    ``tasks`` of one split follow one another; ``datasets`` are by the tasks' names of them; ``told`` hears each task's
    name before it is drawn. The same tasks and data give the same bytes. A folder that holds the same export already is
    left as it is.

    Raises ``SuiteError`` where the data can't give an episode; ``FolderError`` where the folder holds something else or
    can't be written.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / EXPORT).is_file())):
        raise FolderError(f"--out {folder}: there is something else already; choose another --out")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        record = _write_tasks(part, list(tasks), datasets, suite, definition, told)
        if (folder / EXPORT).is_file():
            _refuse_unless_equal(folder, part)
        else:
            part.rename(folder)  # an empty folder of that name is replaced
    except OSError as error:
        raise FolderError(
            f"--out {folder}: can't be written ({reason_of(error)}); choose another --out"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return record


def _refuse_unless_equal(folder: Path, new: Path) -> None:
    for file in sorted(path for path in new.rglob("*") if path.is_file()):
        name = file.relative_to(new)
        if not (folder / name).is_file() or _sha256(folder / name) != _sha256(file):
            raise FolderError(
                f"--out {folder}: it holds another export ({name} differs); choose another --out, or remove the folder"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_tasks(
    folder: Path, tasks: list[Task], datasets: Mapping[str, Dataset], suite: str, definition: dict[str, Any],
    told: Callable[[str], None],
) -> ExportRecord:  # fmt: skip
    written: dict[str, str] = {}
    current: tuple[tuple[str, str, int], Split, DatasetRecord, dict[str, FileRecord]] | None = None
    for task in tasks:
        protocol = task.protocol.canonical()
        name = task_name(task.dataset, protocol, task.seed, task.n_users, task.k_shot, task.n_query)
        if name in written:
            continue
        told(name)
        if current is None or current[0] != task.split:
            dataset = datasets[task.dataset]
            split = split_dataset(dataset, task.protocol, task.seed)
            about = dataset_record(task.dataset, dataset, split)
            place = folder / split_name(task.dataset, protocol, task.seed)
            place.mkdir(parents=True)
            current = task.split, split, about, _write_split(place, split, about)
        written[name] = _write_task(folder / name, task, *current[1:], suite)
    record = ExportRecord(
        format=FORMAT,
        fewrec=fewrec.__version__,
        suite=suite,
        definition=definition,
        tasks=dict(sorted(written.items())),
    )
    write_json(folder / EXPORT, record)
    return record


def dataset_record(name: str, dataset: Dataset, split: Split) -> DatasetRecord:
    """Return what the records say of a data set, which the suite calls ``name``."""
    ids, features = dataset.catalog.item_ids, dataset.catalog.features
    attributes = split.pools["train"].user_features
    return DatasetRecord(
        name=name,
        table_sha256=dataset.table.sha256,
        text_sha256=dataset.catalog.text_sha256,
        n_users=dataset.table.n_users,
        n_items=dataset.table.n_items,
        scale=(float(dataset.scale.low), float(dataset.scale.high), dataset.scale.step),
        kind="clicks" if dataset.kind == "clicks" else "ratings",
        licence=dataset.licence,
        citation=dataset.citation,
        homepage=dataset.homepage,
        sources=dict(dataset.sources),
        text_template=dataset.catalog.template,
        item_ids="number" if np.issubdtype(np.asarray(ids).dtype, np.integer) else "text",
        item_text=dataset.catalog.text is not None,
        timestamps=dataset.table.timestamp is not None,
        item_features=0 if features is None else features.shape[1],
        user_features=0 if attributes is None else attributes.shape[1],
    )


def _write_split(folder: Path, split: Split, about: DatasetRecord) -> dict[str, FileRecord]:
    table, catalog, pool = split.meta_train, split.catalog, split.pools["validation"]
    item_ids = catalog.item_ids if about.item_ids == "number" else [str(one) for one in catalog.item_ids.tolist()]
    items: dict[str, Any] = {"item": np.arange(len(catalog)), "item_id": item_ids, "seen": catalog.seen}
    if catalog.text is not None:
        items |= {name: catalog.text[name].fillna("").astype(str).tolist() for name in TEXT_COLUMNS}
    train = {"user": table.user, "item": table.item, "rating": table.rating, "timestamp": table.timestamp}
    users = {"user": np.arange(len(pool.users)), "meta_user": pool.meta_user, **_features(pool.user_features)}
    parts: dict[str, dict[str, Any]] = {
        META_TRAIN: train,
        ITEMS: {**items, **_features(catalog.features)},
        VALIDATION: _validation_rows(pool),
        VALIDATION_USERS: users,
    }
    if about.user_features:
        parts[META_USERS] = {"user": np.arange(len(split.meta_users)), **_features(_meta_users_features(split))}
    return {name: write_parquet(folder / name, columns, schema(name, about)) for name, columns in parts.items()}


def _validation_rows(pool: Pool) -> dict[str, Any]:
    """Return the columns of the validation users' ratings, with what each may be: of one pool, support or query."""
    one = pool.query is pool.support
    parts = [(pool.support, "either")] if one else [(pool.support, "support"), (pool.query, "query")]
    time = [rows.timestamp for rows, _ in parts if rows.timestamp is not None]
    return {
        "user": np.concatenate([np.repeat(np.arange(len(pool.users)), rows.counts) for rows, _ in parts]),
        "item": np.concatenate([rows.item for rows, _ in parts]),
        "rating": np.concatenate([rows.rating for rows, _ in parts]),
        "timestamp": np.concatenate(time) if time else None,
        "role": [role for rows, role in parts for _ in range(len(rows.item))],
    }


def _features(values: np.ndarray | None) -> dict[str, np.ndarray]:
    return {} if values is None else {f"feature_{i}": column for i, column in enumerate(values.T)}


def _meta_users_features(split: Split) -> np.ndarray:
    """Return the attributes of the users of meta-train, who may be of any meta set where users are known."""
    pools = [pool for pool in split.pools.values() if pool.user_features is not None]
    users = np.concatenate([pool.users for pool in pools])
    features = np.concatenate([pool.user_features for pool in pools])  # type: ignore[misc]  # those that have none are left out
    order = users.argsort()
    return features[order[np.searchsorted(users[order], split.meta_users)]]


def _write_task(
    folder: Path, task: Task, split: Split, about: DatasetRecord, split_files: dict[str, FileRecord], suite: str
) -> str:
    protocol = task.protocol
    sampler = EpisodeSampler.of(split, protocol)
    try:
        episodes = sampler.sample(0, task.episodes, n_users=task.n_users, k_shot=task.k_shot, n_query=task.n_query)
    except SuiteError as error:
        raise SuiteError(f"{about.name}, {protocol.state}: {error}") from None
    folder.mkdir()
    who = sampler.eligible(task.n_query)
    files = {
        name: write_parquet(folder / name, columns, schema(name, about)) for name, columns in _columns(episodes).items()
    }
    return write_json(
        folder / EPISODE,
        EpisodeRecord(
            format=FORMAT, fewrec=fewrec.__version__, suite=suite, dataset=about, protocol=protocol.canonical(),
            split_sha256=split.sha256, seed=task.seed, n_users=task.n_users, k_shot=task.k_shot, n_query=task.n_query,
            episodes=task.episodes, block=task.block, ndcg_at=task.ndcg_at, eligible_users=len(who.users),
            excluded_users=who.excluded, meta_train_users=split.meta_train.n_users,
            validation_users=len(split.pools["validation"].users), files=files, split_files=split_files,
        ),
    )  # fmt: skip


def _columns(episodes: Episodes) -> dict[str, dict[str, Any]]:
    """Return the columns of the Parquet files of drawn episodes, by file."""
    support, query, answers = episodes.support, episodes.query, episodes.answers
    meta_user, table_user = support.meta_user.numpy(), answers.table_user.numpy()
    features = None if support.user_features is None else support.user_features.numpy()
    n_users = support.n_users.numpy()
    of_query = support.flat_user(query.episode, query.user).numpy()
    asked = {"episode": query.episode.numpy(), "user": query.user.numpy(), "item": query.item.numpy()}
    files: dict[str, dict[str, Any]] = {
        USERS: {
            "episode": np.repeat(np.arange(len(support)), n_users),
            "user": np.concatenate([np.arange(n) for n in n_users]),
            "meta_user": meta_user,
            "seed": np.repeat(support.seeds.numpy(), n_users),
            **_features(features),
        },
        SUPPORT: {
            "episode": support.episode.numpy(),
            "user": support.user.numpy(),
            "item": support.item.numpy(),
            "rating": support.rating.numpy(),
            "timestamp": None if support.timestamp is None else support.timestamp.numpy(),
            "meta_user": meta_user[support.flat_user().numpy()],
        },
        QUERY: asked,
        ANSWERS: {
            **asked,
            "rating": answers.rating.numpy(),
            "timestamp": None if answers.timestamp is None else answers.timestamp.numpy(),
            "table_user": table_user[of_query],
        },
    }
    if support.item_ratings is not None:
        shots = [shot for shot in support.item_ratings if shot is not None]
        files[ITEM_RATINGS] = {
            "episode": np.repeat(np.arange(len(shots)), [len(shot.item) for shot in shots]),
            **{
                name: np.concatenate([getattr(shot, name).numpy() for shot in shots])
                for name in ("item", "meta_user", "rating")
            },
        }
    return files
