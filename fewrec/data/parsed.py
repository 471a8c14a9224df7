"""What a large data set's files were read into, kept beside them, so that text is parsed once.

The rating table's columns are .npy files as they are in memory: mapped, they need neither decoding nor a copy, which of
25 million ratings take longer than their SHA-256, by which each load checks them. The rest is Parquet and JSON.
The folder's name is a hash of the card, the files' SHA-256 and the sources of the readers: another reader, or another
card, finds nothing and reads the text again. What is damaged in it (each file has its SHA-256, the table that of its
columns) is said in one line, and the text is read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fewrec.checksums import sha256_of
from fewrec.data.cards import Card
from fewrec.data.fetch import Notify, locked, to_stderr
from fewrec.data.table import Catalog, Dataset, RatingTable
from fewrec.errors import DataError
from fewrec.seeding import digest

LEAST_RATINGS = 1_000_000  # below, reading the text takes a second or two
_FORMAT = 3
_TABLE = ("user", "item", "rating", "timestamp")
_DECIDES = ("load.py", "parsed.py", "table.py", "template.py", "validate.py", "readers")


def parsed(
    card: Card, home: Path, files: dict[str, str], read: Callable[[], Dataset], notify: Notify | None = None
) -> Dataset:
    """Return what ``read`` gives for the ``files`` (name -> SHA-256), from ``home`` where it was kept before.

    It is kept where it has ``LEAST_RATINGS`` or more; a folder that can't be written is no error, only slower.
    ``notify`` gets one line where what was kept is damaged.
    """
    folder = home / f"parsed-{digest([_FORMAT, card.model_dump(mode='json'), files, _sources()], 16)}"
    if folder.is_dir():
        try:
            return _load(folder, card)
        except Exception as error:  # NumPy's and Arrow's readers end in many kinds of error
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            (notify or to_stderr)(f"{folder}: damaged ({reason}): its text is read again")
    dataset = read()
    if len(dataset.table) >= LEAST_RATINGS:
        try:
            with locked(home):
                _store(folder, dataset)
        except (OSError, DataError):
            pass
    return dataset


@functools.cache
def _sources() -> str:
    """Return a hash of the sources that decide what files are read into."""
    root, h = Path(__file__).parent, hashlib.sha256()
    for name in _DECIDES:
        for file in sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]:
            h.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return h.hexdigest()


def _store(folder: Path, dataset: Dataset) -> None:
    table = dataset.table
    for stale in folder.parent.glob(".parsed-*"):  # of a process that was killed: the lock is ours
        shutil.rmtree(stale, ignore_errors=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".parsed-"))
    try:
        for old in folder.parent.glob("parsed-*"):  # of another card, file or version: never looked at again
            shutil.rmtree(old, ignore_errors=True)
        for name in _TABLE:
            if getattr(table, name) is not None:
                np.save(part / f"{name}.npy", getattr(table, name), allow_pickle=False)
        users = {"id": _column(dataset.user_ids)}
        if dataset.user_set is not None:
            users["set"] = pa.array(dataset.user_set)
        pq.write_table(pa.table(users), part / "users.parquet")
        pq.write_table(pa.table({"id": _column(dataset.catalog.item_ids)}), part / "items.parquet")
        for name, frame in (("text", dataset.catalog.text), ("features", dataset.user_features)):
            if frame is not None:
                frame.to_parquet(part / f"{name}.parquet", index=False)
        sums = {file.name: sha256_of(file) for file in sorted(part.glob("*.parquet"))}
        facts = {"notes": list(dataset.notes), "sha256": table.sha256, "files": sums}
        facts["facts_sha256"] = digest(facts, 64)
        (part / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _load(folder: Path, card: Card) -> Dataset:
    """Return what is kept in ``folder``; raises ``ValueError``, or what the readers raise, where it is damaged."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    if facts.pop("facts_sha256") != digest(facts, 64):
        raise ValueError("facts.json is not what was written")
    for name, sha256 in facts["files"].items():
        if sha256_of(folder / name) != sha256:
            raise ValueError(f"{name} is not what was written")
    users, items = (pq.read_table(folder / f"{name}.parquet") for name in ("users", "items"))
    text, features = (_frame(folder / f"{name}.parquet") for name in ("text", "features"))
    table = RatingTable(
        user=_mapped(folder / "user.npy"),
        item=_mapped(folder / "item.npy"),
        rating=_mapped(folder / "rating.npy"),
        timestamp=_mapped(folder / "timestamp.npy") if (folder / "timestamp.npy").exists() else None,
        n_users=users.num_rows,
        n_items=items.num_rows,
    )
    if table.sha256 != facts["sha256"]:
        raise ValueError("the ratings are not what was written")
    return Dataset(
        name=card.name,
        table=table,
        catalog=Catalog(item_ids=_ids(items), text=text, template=card.template),
        scale=card.scale.scale(),
        user_ids=_ids(users),
        kind=card.kind,
        user_features=features,
        user_set=users["set"].to_numpy() if "set" in users.column_names else None,
        licence=card.licence,
        citation=card.citation,
        homepage=card.homepage,
        notes=tuple(facts["notes"]),
    )


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _column(ids: np.ndarray) -> pa.Array:
    return pa.array(ids if np.issubdtype(ids.dtype, np.integer) else [str(one) for one in ids.tolist()])


def _ids(table: pa.Table) -> np.ndarray:
    ids = table["id"].to_numpy()
    return ids if np.issubdtype(ids.dtype, np.integer) else ids.astype(object)


def _frame(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    frame = pq.read_table(path).to_pandas()
    return frame.astype({name: object for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])})
