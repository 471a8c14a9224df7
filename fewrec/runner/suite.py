"""A suite: the validated TOML file that names a grid of cells, and its expansion into cells."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from fewrec.episodes.protocol import UNSEEN_ITEM_STATES, Protocol, State
from fewrec.errors import SuiteError, nearest, reason_of
from fewrec.learners.registry import learner_class
from fewrec.paths import data_folder
from fewrec.runner.cell import CellSpec
from fewrec.runner.conditions import Conditions
from fewrec.runner.provenance import Tuned, provenance
from fewrec.validation import first_problem

Shots = int | Literal["rest"]
MOST_CELLS = 1_000_000  # years of computing; a list of numbers too many gets there


class LearnerRow(BaseModel):
    """One row of the table: a learner, what the table calls it, and the options that differ from the defaults.

    ``tuned`` is there where ``fewrec tune`` wrote the row, and says how it came to these options.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learner: str
    label: str = ""
    config: dict[str, Any] = {}
    tuned: Tuned | None = None

    @property
    def shown(self) -> str:
        return self.label or self.learner

    @model_serializer(mode="wrap")
    def _only_what_is_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = dump(self)
        return values if self.tuned is not None else {key: value for key, value in values.items() if key != "tuned"}


class PublishedRow(BaseModel):
    """A row of the table that a suite follows: what it is called there, its figures by name, and where they stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    figures: dict[str, float] = Field(min_length=1)
    source: str


class Suite(BaseModel):
    """A grid of cells: every combination of data set, state, N, K, Q, seed and learner.

    ``ndcg_at``: the k of nDCG@k, or several. ``episodes`` is the number of episodes a cell, ``block`` how many of them
    are finished, written and batched together. ``k_max`` (default: the largest numeric K) decides which users are
    eligible. ``meta_datasets``: other data sets to meta-train on, each for a table of its own; a data set's own name is
    the usual meta-train. ``published`` are rows of the table that a suite follows, shown beside its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    datasets: tuple[str, ...] = Field(min_length=1)
    meta_datasets: tuple[str, ...] = ()
    states: tuple[State, ...] = Field(min_length=1)
    n_users: tuple[int, ...] = Field(min_length=1)
    shots: tuple[Shots, ...] = Field(min_length=1)
    n_query: tuple[int, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    episodes: int = Field(gt=0)
    block: int = Field(default=10, gt=0)
    k_max: int | None = Field(default=None, ge=0)
    ndcg_at: int | tuple[int, ...] = 5
    top_at: int | None = Field(default=None, gt=0)
    protocol: Conditions = Conditions()
    learners: tuple[LearnerRow, ...] = Field(min_length=1)
    published: tuple[PublishedRow, ...] = ()

    @field_validator("n_users", "shots", "n_query", "seeds", "datasets", "meta_datasets", "states", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else (value,)

    @field_validator("n_users", "shots", "n_query", "seeds", "datasets", "meta_datasets", "states")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        return tuple(dict.fromkeys(values))

    @field_validator("ndcg_at")
    @classmethod
    def _one_k_is_a_number(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        every = (value,) if isinstance(value, int) else tuple(sorted(set(value)))
        if not every or every[0] < 1:
            raise ValueError("give a k of 1 or more, or a list of them")
        return every[0] if len(every) == 1 else every

    @field_validator("learners", mode="before")
    @classmethod
    def _names_are_rows(cls, rows: Any) -> Any:
        if not isinstance(rows, list | tuple):
            return rows
        return [{"learner": row} if isinstance(row, str) else row for row in rows]

    @field_validator("n_users", "shots", "n_query", "seeds", "episodes", "block", "k_max", "top_at", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any) -> Any:
        if any(isinstance(one, bool) for one in (value if isinstance(value, list | tuple) else (value,))):
            raise ValueError("true and false are no numbers")
        return value

    @model_validator(mode="after")
    def _values_make_sense(self) -> Suite:
        for name, low in (("n_users", 1), ("shots", 0), ("n_query", 1), ("seeds", 0)):
            for value in getattr(self, name):
                if value != "rest" and value < low:
                    raise ValueError(f"{name}: {value} is below {low}")
        labels = [row.shown for row in self.learners]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"learners: the label '{twice[0]}' stands twice; give one of them a label of its own")
        if self.k_max is not None and self.k_max < self._largest_k():
            raise ValueError(f"k_max: {self.k_max} is below the largest K, {self._largest_k()}")
        if self.protocol.history is not None:
            self._fits_windows(self.protocol.history)
        lists = (
            self.datasets, self.meta_datasets or self.datasets[:1], self.states, self.n_users, self.shots, self.n_query,
            self.seeds, self.learners,
        )  # fmt: skip
        cells = math.prod(map(len, lists)) * self.protocol.size
        if cells > MOST_CELLS:
            raise ValueError(f"it asks for {cells:,} cells, more than {MOST_CELLS:,}; shorten its lists")
        return self

    def _fits_windows(self, history: int) -> None:
        """Raise ``ValueError`` where the grid asks of windows in time what they can't give."""
        only = {"states": ("user-cold",), "n_users": (1,), "n_query": (1,), "meta_datasets": (), "top_at": None}
        for name, value in only.items():
            if getattr(self, name) != value:
                said = f"no {name}" if not value else f"{name} = {value[0]!r}".replace("'", '"')
                raise ValueError(f"protocol.history: an episode is one rating of a user; it needs {said}")
        if "rest" in self.shots:
            raise ValueError(f'protocol.history: K is a number up to {history}, not "rest"')
        if max(self._largest_k(), self.k_max or 0) > history:
            raise ValueError(f"protocol.history = {history}: K and k_max can't be above it")

    def _largest_k(self) -> int:
        return max((k for k in self.shots if k != "rest"), default=1)

    def protocols_of(self, state: State) -> list[Protocol]:
        """Return the protocols of one state: the suite's conditions as far as they concern it, each once.

        Those that share their splits and meta-fits follow one another.
        """
        k_max = self._largest_k() if self.k_max is None else self.k_max
        found: dict[Protocol, None] = {}
        for fields in self.protocol.combinations():
            if state not in UNSEEN_ITEM_STATES:
                fields.update(item_shots=0, support_items="seen")
            found[Protocol(state=state, k_max=k_max, **fields)] = None
        return list(found)

    def cells(self) -> list[CellSpec]:
        """Return the cells in the order of running: those that can share a meta-fit follow one another.

        Raises ``SuiteError`` for an unknown learner or a configuration that it refuses.
        """
        rows = [(row, validated_config(row)) for row in self.learners]
        return [
            CellSpec(
                dataset=dataset,
                meta_dataset=source if source != dataset else None,
                protocol=protocol,
                n_users=n_users,
                k_shot=k_shot,
                n_query=n_query,
                episodes=self.episodes,
                block=self.block,
                ndcg_at=self.ndcg_at,
                top_at=self.top_at,
                seed=seed,
                learner=row.learner,
                label=row.shown,
                config=config,
            )
            for dataset in self.datasets
            for source in self.meta_datasets or (dataset,)
            for state in self.states
            for _, shared in itertools.groupby(self.protocols_of(state), Protocol.of_meta_fit)
            for protocols in [list(shared)]
            for seed in self.seeds
            for row, config in rows
            for protocol in protocols
            for n_users in self.n_users
            for k_shot in self.shots
            for n_query in self.n_query
        ]

    def tuning(self) -> dict[str, dict[str, Any]]:
        """Return where each row's options come from, by label: what the records of its cells say under ``tuning``."""
        return {
            row.shown: provenance(learner_class(row.learner), validated_config(row), row.tuned) for row in self.learners
        }


def validated_config(row: LearnerRow) -> dict[str, Any]:
    """Return the whole configuration of a row as JSON values; raises ``SuiteError`` for what its learner refuses."""
    cls = learner_class(row.learner)
    try:
        return cls.Config(**row.config).model_dump(mode="json")
    except ValidationError as error:
        raise SuiteError(f"learner '{row.shown}': {first_problem(error, cls.Config)}") from None


def parse_suite(text: str, name: str) -> Suite:
    """Return the suite of a TOML text; ``name`` is what errors call it."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # digits or levels without end among them
        raise SuiteError(f"{name}: not valid TOML: {reason_of(error)}") from None
    return make_suite(values, name)


def make_suite(values: Mapping[str, Any], name: str) -> Suite:
    """Return a validated suite; raises ``SuiteError`` naming the suite, the key and the fix."""
    try:
        return Suite(**values)
    except ValidationError as error:
        raise SuiteError(f"{name}: {first_problem(error, Suite)}") from None


def list_suites() -> dict[str, str]:
    """Return the title of every suite that comes with fewrec, by name: ``quick``, ``published/clover-ml-100k``."""
    folder = data_folder("suites")
    files = [*sorted(folder.glob("*.toml")), *sorted(folder.glob("*/*.toml"))]
    return {
        file.relative_to(folder).with_suffix("").as_posix(): tomllib.loads(file.read_text(encoding="utf-8"))["title"]
        for file in files
    }


def load_suite(name_or_path: str) -> tuple[str, Suite]:
    """Return (name, suite) of a suite given by name or as the path of a TOML file."""
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise SuiteError(f"suite {path}: {'this is a folder, not a file' if path.is_dir() else 'no such file'}")
    else:
        path = data_folder("suites") / f"{name_or_path}.toml"
        if not path.is_file():
            raise SuiteError(f"unknown suite '{name_or_path}'{nearest(name_or_path, list_suites())}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"suite {path}: can't be read: {reason_of(error)}") from None
    return path.stem, parse_suite(text, path.name)
