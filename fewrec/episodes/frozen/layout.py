"""The format of frozen episodes: its version, its files, their columns, and the JSON records as validated models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fewrec.data.table import TEXT_COLUMNS, Scale
from fewrec.episodes.protocol import Protocol
from fewrec.seeding import digest

FORMAT = 1
"""Goes up with every change of a file, a column or its meaning; a reader refuses the numbers that it doesn't know."""

EXPORT, EPISODE = "export.json", "episode.json"
META_TRAIN, META_USERS, ITEMS = "meta_train.parquet", "meta_users.parquet", "items.parquet"
VALIDATION, VALIDATION_USERS = "validation.parquet", "validation_users.parquet"
USERS, SUPPORT, QUERY, ANSWERS = "users.parquet", "support.parquet", "query.parquet", "answers.parquet"
ITEM_RATINGS = "item_ratings.parquet"
MOST_ROWS = 2**28  # of one file: beyond any data set of the field, within what a machine can hold
_MOST_FEATURES = 2**16
ROLES = ("either", "support", "query")  # of a validation rating

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
_Count = Field(ge=0, lt=2**40)


class FileRecord(BaseModel):
    """What a Parquet file must be: its SHA-256 in hex, and its number of rows."""

    model_config = _STRICT

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0, le=MOST_ROWS)


class DatasetRecord(BaseModel):
    """The data set behind the episodes; ``scale`` is (lowest, highest, step or None).

    ``item_ids`` is the kind of the original ids, ``item_features`` and ``user_features`` are numbers of columns.
    """

    model_config = _STRICT

    name: str
    table_sha256: str
    text_sha256: str | None
    n_users: int = Field(ge=1, lt=2**31)
    n_items: int = Field(ge=1, lt=2**31)
    scale: tuple[float, float, float | None]
    kind: Literal["ratings", "clicks"]
    licence: str
    citation: str
    homepage: str
    sources: dict[str, str]
    text_template: str
    item_ids: Literal["number", "text"]
    item_text: bool
    timestamps: bool
    item_features: int = Field(ge=0, le=_MOST_FEATURES)
    user_features: int = Field(ge=0, le=_MOST_FEATURES)

    @model_validator(mode="after")
    def _scale_goes_up(self) -> DatasetRecord:
        if not self.scale[0] < self.scale[1]:
            raise ValueError("the lowest rating must be below the highest")
        return self

    def as_scale(self) -> Scale:
        return Scale(*self.scale)


class EpisodeRecord(BaseModel):
    """What ``episode.json`` holds: everything that defines a task but its ratings, and the checksums of its files.

    ``files`` lie beside it, ``split_files`` in the folder above. ``block`` and ``ndcg_at`` are the suite's.
    """

    model_config = _STRICT

    format: int
    fewrec: str
    suite: str
    dataset: DatasetRecord
    protocol: dict[str, Any]
    split_sha256: str
    seed: int = Field(ge=0, lt=2**63)
    n_users: int = Field(ge=1, lt=2**31)
    k_shot: int | Literal["rest"]
    n_query: int = Field(ge=1, lt=2**31)
    episodes: int = Field(ge=1, lt=2**31)
    block: int = Field(ge=1)
    ndcg_at: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...]
    eligible_users: int = _Count
    excluded_users: int = _Count
    meta_train_users: int = Field(ge=1, lt=2**31)
    validation_users: int = _Count
    files: dict[str, FileRecord]
    split_files: dict[str, FileRecord]

    @model_validator(mode="after")
    def _parts_fit_together(self) -> EpisodeRecord:
        protocol = Protocol(**self.protocol)
        if protocol.canonical() != self.protocol:
            raise ValueError("the protocol is written otherwise by this version of fewrec")
        if self.k_shot != "rest" and not 0 <= self.k_shot <= protocol.k_max:
            raise ValueError("K is outside 0..k_max")
        if self.episodes * self.n_users * self.n_query > MOST_ROWS:
            raise ValueError("more query ratings than a file may hold")
        if self.episodes * self.n_users * self.dataset.n_items >= 2**62:
            raise ValueError("more (episode, user, item) triples than can be numbered")
        for what, given in (("files", self.files), ("split_files", self.split_files)):
            if set(given) != set(self.expected(what)):
                raise ValueError(f"{what} are not those of this format")
        for name, rows in self._sizes().items():
            found = self.files.get(name) or self.split_files.get(name)
            if found is not None and found.rows != rows:
                raise ValueError(f"{name} has {found.rows:,} rows, the counts beside it say {rows:,}")
        return self

    def _sizes(self) -> dict[str, int]:
        """Return the rows of the files whose number follows from the counts: what is allocated is what is there."""
        users = self.episodes * self.n_users
        support = {} if self.k_shot == "rest" else {SUPPORT: users * self.k_shot}
        return {
            USERS: users, QUERY: users * self.n_query, ANSWERS: users * self.n_query, **support,
            ITEMS: self.dataset.n_items, META_USERS: self.meta_train_users, VALIDATION_USERS: self.validation_users,
        }  # fmt: skip

    def expected(self, what: str) -> list[str]:
        """Return the names of the Parquet files of a task (``files``) or of its split (``split_files``)."""
        if what == "files":
            shots = [ITEM_RATINGS] if self.protocol["item_shots"] else []
            return [USERS, SUPPORT, QUERY, ANSWERS, *shots]
        return [META_TRAIN, ITEMS, VALIDATION, VALIDATION_USERS, *([META_USERS] if self.dataset.user_features else [])]

    @property
    def as_protocol(self) -> Protocol:
        return Protocol(**self.protocol)


class ExportRecord(BaseModel):
    """What ``export.json`` holds: the suite, and the SHA-256 of each task's ``episode.json`` by the task's name.

    ``definition`` has the suite's fields but its learners, as JSON values.
    """

    model_config = _STRICT

    format: int
    fewrec: str
    suite: str
    definition: dict[str, Any]
    tasks: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_plain(self) -> ExportRecord:
        for name in self.tasks:
            if not _TASK_NAME.fullmatch(name):
                raise ValueError(f"'{name[:60]}' is not a task's name")
        return self


_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_TASK_NAME = re.compile(rf"{_PART}/[a-z-]+(?:\+[a-z_]+=[A-Za-z0-9.-]+)*/seed-\d+/n\d+-k(?:\d+|rest)-q\d+")


def folder_name(dataset: str) -> str:
    """Return a data set's name as one part of a path, whatever is in it; unequal names stay unequal."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", dataset).lstrip(".-")[:80]
    return dataset if dataset and plain == dataset else f"{plain or 'data'}-{digest(dataset, 8)}"


def protocol_folder(protocol: Mapping[str, Any]) -> str:
    """Return the folder name of a protocol (its canonical form): the state, and each condition that is not the default:
    ``user-cold``, ``both-cold+order=time+support_noise=0.2``."""
    state = protocol["state"]
    plain = Protocol(state=state, k_max=protocol["k_max"]).canonical()
    parts = [f"{name}={_plain(value)}" for name, value in sorted(protocol.items()) if value != plain.get(name)]
    return "+".join([state, *parts])


def _plain(value: Any) -> str:
    return (
        "-".join(map(_plain, value))
        if isinstance(value, list | tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def split_name(dataset: str, protocol: Mapping[str, Any], seed: int) -> str:
    """Return the folder of a split: ``ml-100k/user-cold/seed-0``."""
    return f"{folder_name(dataset)}/{protocol_folder(protocol)}/seed-{seed}"


def task_name(
    dataset: str, protocol: Mapping[str, Any], seed: int, n_users: int, k_shot: int | str, n_query: int
) -> str:
    """Return the name of a task, which is its folder: ``ml-100k/user-cold/seed-0/n5-k5-q10``."""
    return f"{split_name(dataset, protocol, seed)}/n{n_users}-k{k_shot}-q{n_query}"


def schema(file: str, dataset: DatasetRecord) -> pa.Schema:
    """Return the columns of a Parquet file, in their order."""
    whole, number, text = pa.int64(), pa.float64(), pa.string()
    time = [("timestamp", whole)] if dataset.timestamps else []
    attributes = [(f"feature_{i}", pa.float32()) for i in range(dataset.user_features)]
    row = [("episode", whole), ("user", whole)]
    columns: dict[str, list[tuple[str, pa.DataType]]] = {
        META_TRAIN: [("user", whole), ("item", whole), ("rating", number), *time],
        META_USERS: [("user", whole), *attributes],
        ITEMS: [
            ("item", whole),
            ("item_id", whole if dataset.item_ids == "number" else text),
            ("seen", pa.bool_()),
            *([(name, text) for name in TEXT_COLUMNS] if dataset.item_text else []),
            *[(f"feature_{i}", pa.float32()) for i in range(dataset.item_features)],
        ],
        VALIDATION: [("user", whole), ("item", whole), ("rating", number), *time, ("role", text)],
        VALIDATION_USERS: [("user", whole), ("meta_user", whole), *attributes],
        USERS: [*row, ("meta_user", whole), ("seed", whole), *attributes],
        SUPPORT: [*row, ("item", whole), ("rating", number), *time, ("meta_user", whole)],
        QUERY: [*row, ("item", whole)],
        ANSWERS: [*row, ("item", whole), ("rating", number), *time, ("table_user", whole)],
        ITEM_RATINGS: [("episode", whole), ("item", whole), ("meta_user", whole), ("rating", number)],
    }
    return pa.schema(columns[file])
