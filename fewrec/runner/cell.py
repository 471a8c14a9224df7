"""The cell: the unit of work, of caching and of resuming, with its two hashes (design, contract 3).

``spec`` is the hash of the explicit fields that define the cell, ``code`` that of the sources that decide a score.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

import fewrec
from fewrec.episodes.protocol import Protocol
from fewrec.errors import SuiteError
from fewrec.learners.base import Learner
from fewrec.seeding import digest
from fewrec.validation import first_problem

SCHEMA = 1


@dataclass(frozen=True)
class CellSpec:
    """The explicit fields of a cell. ``config`` is the learner's whole configuration, defaults included.

    ``ndcg_at``: k of nDCG@k, or several in ascending order. ``top_at``: k of the figures in which the k highest-rated
    query items are relevant (``fewrec.metrics.top``).
    """

    dataset: str
    protocol: Protocol
    n_users: int
    k_shot: int | Literal["rest"]
    n_query: int
    episodes: int
    block: int
    ndcg_at: int | tuple[int, ...]
    seed: int
    learner: str
    label: str
    config: dict[str, Any]
    meta_dataset: str | None = None
    top_at: int | None = None

    def canonical(self) -> dict[str, Any]:
        """Return the cell as JSON values: what is stored and hashed. ``top_at`` came later: left out where it is None,
        it changes no hash."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.top_at is None:
            del fields["top_at"]
        if not isinstance(self.ndcg_at, int):
            fields["ndcg_at"] = list(self.ndcg_at)
        return {**fields, "protocol": self.protocol.canonical()}

    @classmethod
    def from_canonical(cls, values: dict[str, Any]) -> CellSpec:
        """Return the cell whose ``canonical()`` is ``values``.

        Raises ``SuiteError`` naming the field that is missing, unknown or refused: what this version can't write back
        as it was read would be another cell with another hash.
        """
        named = _field_difference({"top_at": None, **values}, cls.__dataclass_fields__)
        if named:
            raise SuiteError(f"its specification {named}: it was made by another version of fewrec")
        try:
            spec = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise SuiteError(f"its specification is refused: {first_problem(error)}") from None
        again = spec.canonical()
        if again != values:
            field = next(name for name in again if again[name] != values[name])
            named = _field_difference(values[field], again[field]) if field == "protocol" else ""
            raise SuiteError(f"its specification's {field} {named or 'is written otherwise by this version of fewrec'}")
        return spec

    @functools.cached_property
    def spec_hash(self) -> str:
        return digest(self.canonical())

    def row_key(self) -> str:
        """Return the hash of what names the cell's place in the table, whatever the configuration behind it."""
        place = self.canonical()
        for name in ("config", "learner", "block", "episodes", "ndcg_at", "top_at"):
            place.pop(name, None)
        return digest(place)

    def meta_fields(self, cls: type[Learner]) -> dict[str, Any]:
        """Return what the learner's meta-fit depends on: cells that agree in these share one."""
        return {
            "dataset": self.dataset,
            "meta_dataset": self.meta_dataset,
            "protocol": self.protocol.of_meta_fit(),
            "seed": self.seed,
            "learner": self.learner,
            "config": {key: value for key, value in self.config.items() if key not in cls.adapt_options},
            "depends": self.depends(cls),
        }

    def depends(self, cls: type[Learner]) -> dict[str, Any]:
        """Return the fields of the cell that the learner declared in ``meta_depends``."""
        return {name: getattr(self, name) for name in sorted(cls.meta_depends)}


def _field_difference(values: Iterable[str], fields: Iterable[str]) -> str:
    """Return "lacks 'x'" or "has 'x', which ..." for the first field in which a record and this version differ."""
    lacking, unknown = sorted(set(fields) - set(values)), sorted(set(values) - set(fields))
    if lacking:
        return f"lacks '{lacking[0]}'"
    return f"has '{unknown[0]}', which this version does not know" if unknown else ""


_DECIDES_EVERY_SCORE = (
    "data/likes.py", "data/table.py", "episodes", "metrics/pooled.py", "metrics/ranking.py", "metrics/rating.py",
    "metrics/scores.py", "metrics/top.py", "seeding.py",
)  # fmt: skip
"""What brings and reads files (cards, fetching, readers) decides none: the SHA-256 of the table, texts and attributes
that came of it are kept with the results, and other ones are refused there. Nor do intervals and tests
(metrics/statistics.py), which are computed from scores that are there, and the files of frozen episodes
(episodes/frozen), which are written from what is drawn."""


@functools.cache
def code_hash(cls: type[Learner]) -> str:
    """Return the hash of the sources that decide a score of this learner.

    These are fewrec's tables of data, episodes and metrics of a user, the learner's module, and the modules
    of ``fewrec.learners`` that it imports, directly or through one another.
    """
    root = Path(fewrec.__file__).parent
    files: dict[str, Path] = {}
    for part in _DECIDES_EVERY_SCORE:
        path = root / part
        for file in [path] if path.is_file() else path.rglob("*.py"):
            if not file.is_relative_to(root / "episodes" / "frozen"):
                files[file.relative_to(root).as_posix()] = file
    waiting = [Path(inspect.getfile(cls))]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        if name not in files:
            files[name] = file
            waiting += _imported_learner_modules(file)
    h = hashlib.sha256()
    for name in sorted(files):
        h.update(f"{name}\n".encode() + files[name].read_bytes())
    return h.hexdigest()[:16]


def _imported_learner_modules(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("fewrec.learners."):
                try:
                    spec = importlib.util.find_spec(name)
                except ModuleNotFoundError:  # a name inside a module, not a module
                    continue
                if spec is not None and spec.origin:
                    yield Path(spec.origin)
