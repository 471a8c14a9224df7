"""A learner ready to advise: meta-fitted on all of a data set, or loaded from a folder or from the cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock
from pydantic import ValidationError

from fewrec.data.cards import list_cards
from fewrec.data.load import open_dataset
from fewrec.data.table import Dataset
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import Split, split_dataset
from fewrec.errors import DataError, FewrecError, NotApplicable, SuiteError
from fewrec.learners.base import Context, Learner
from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.learners.saved import differences, load_learner, read_record, save_learner
from fewrec.learners.saved_record import LearnerRecord, TrainedOn
from fewrec.paths import cache_folder
from fewrec.runner.cell import code_hash
from fewrec.runner.environment import choose_device
from fewrec.runner.resources import device_of
from fewrec.runner.timing import Stopwatch
from fewrec.seeding import digest
from fewrec.validation import first_problem

T = TypeVar("T")
Track = Callable[[Sequence[T], str], Iterator[T]]
Say = Callable[[str], None]

N_QUERY = 10  # Q of a learner whose meta-fit depends on it
VALIDATION_SHARE = 0.1  # of the users: what learners stop early by


@dataclass(frozen=True, eq=False)
class TrainedLearner:
    """A learner that needs no further training, the data set that it knows, and the ``ctx`` that it adapts in.

    ``seconds`` is what meta-fitting took, once; ``code_hash`` is that of the sources then; ``notes`` are warnings.
    """

    learner: Learner
    dataset: Dataset
    ctx: Context
    trained_on: TrainedOn
    seconds: float
    code_hash: str
    notes: tuple[str, ...] = ()

    def save(self, folder: str | Path) -> None:
        """Write ``learner.json`` and ``state.safetensors`` into ``folder``, for ``fewrec.load_learner``."""
        save_learner(
            self.learner, folder, self.trained_on, code_hash=self.code_hash, seconds=self.seconds,
            device=self.ctx.device.type,
        )  # fmt: skip


def open_learner(
    folder: str | Path,
    *,
    dataset: Dataset | str | Path | None = None,
    learner: str | None = None,
    plugins: Iterable[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    offline: bool = False,
) -> TrainedLearner:
    """Return a learner that was saved into ``folder``; it predicts the same bytes as when it was saved.

    ``dataset`` is the data set that it was trained on; by default the one of that name that comes with fewrec.
    ``learner`` or ``plugins`` are needed where the learner is not a registered one: a saved learner never decides what
    is imported. ``settings`` may change the options that the learner declares in ``adapt_options``.

    Raises:
        DataError: in one line, where the folder is broken, is another learner's, or belongs to other items.
    """
    for plugin in plugins:
        add_plugin_file(Path(plugin))
    record = read_record(folder)
    if dataset is None:
        name = record.trained_on.dataset
        if name not in [card.name for card in list_cards()]:
            raise DataError(f"{folder}: trained on data of your own, '{name}'; give that data set (--data FILE)")
        dataset = name
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset, offline=offline)
    return _load(folder, opened, record, learner, settings or {}, choose_device(device), _silent)


def train_or_load(
    name: str,
    dataset: Dataset,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    k_shot: int = 0,
    track: Track | None = None,
    say: Say | None = None,
) -> TrainedLearner:
    """Return a registered learner that was meta-fitted on all of a data set, from the cache if it is there.

    Nine tenths of the users are meta-train and one tenth is meta-validation, by which learners stop early; there is no
    meta-test. ``k_shot`` matters to a learner whose meta-fit depends on K. The learner is kept in the cache folder
    under the hash of data, learner, options, code and seed; processes that want the same one wait for each other.

    Raises:
        NotApplicable: with the reason, where the data set lacks what the learner needs.
        SuiteError: for an unknown learner or option.
    """
    cls = learner_class(name)
    config = _config(cls, settings or {})
    refuse_what_is_lacking(cls, dataset)
    chosen, track, say = device_of(cls, choose_device(device)), track or _silent, say or (lambda text: None)
    code, protocol = code_hash(cls), all_users(dataset)
    if not cls.has_meta_fit():
        split = split_dataset(dataset, protocol, seed)
        ctx = _context(dataset, split.catalog.seen, chosen, track)
        return TrainedLearner(_prepared(cls, config, ctx), dataset, ctx, TrainedOn.of(dataset, split), 0.0, code)
    depends = {"k_shot": k_shot, "n_query": N_QUERY, "n_users": 1}
    depends = {key: value for key, value in depends.items() if key in cls.meta_depends}
    fixed = {key: value for key, value in config.items() if key not in cls.adapt_options}
    key = digest(
        [dataset.name, dataset.table.sha256, dataset.catalog.text_sha256, protocol.canonical(), seed, cls.name, fixed,
         depends, code, chosen.type]
    )  # fmt: skip
    folder = cache_folder() / "learners-trained" / f"{re.sub('[^a-z0-9-]+', '_', cls.name.lower())}-{key}"
    with _locked(folder):
        try:
            return _load(folder, dataset, read_record(folder), name, config, chosen, track)
        except DataError:
            pass  # not there, or broken, or made with other weights: made anew
        split = split_dataset(dataset, protocol, seed)
        ctx = _context(dataset, split.catalog.seen, chosen, track)
        say(f"training {cls.name} on {dataset.name} ({dataset.table.n_users:,} users, {len(dataset.table):,} ratings)")
        learner, seconds = _fit(cls, config, split, dataset, depends, ctx)
        trained = TrainedLearner(learner, dataset, ctx, TrainedOn.of(dataset, split), seconds, code)
        try:
            trained.save(folder)
            say(f"trained in {seconds:.1f} s, kept in {folder}")
        except FewrecError as error:
            say(f"trained in {seconds:.1f} s, but not kept: {error}")
    return trained


def all_users(dataset: Dataset) -> Protocol:
    """Return the protocol of training for use: every user is meta-train or meta-validation, none is meta-test."""
    n = len(np.unique(dataset.table.user))
    validation = max(1, round(VALIDATION_SHARE * n)) if n > 1 else 0
    return Protocol(state="user-cold", user_shares=((n - validation) / n, validation / n, 0.0), k_max=0)


def refuse_what_is_lacking(cls: type[Learner], dataset: Dataset) -> None:
    """Raise ``NotApplicable`` where the data set, or a single new user, lacks what the learner needs."""
    lacking = {
        "k>0": (False, ""),
        "item_text": (dataset.catalog.text is None, f"{dataset.name} has no item text"),
        "item_features": (dataset.catalog.features is None, f"{dataset.name} has no item features"),
        "user_features": (True, "of the user that is advised nothing is known but ratings"),
        "timestamps": (True, "the ratings of the user that is advised have no times"),
        "item_ratings": (True, "it is for new items, of which others' first ratings must be given; no such item here"),
    }
    for need in sorted(cls.needs):
        missing, reason = lacking.get(need, (True, "this version of fewrec does not know that need"))
        if missing:
            raise NotApplicable(f"'{cls.name}' can't recommend here: it needs {need}, and {reason}")


def _config(cls: type[Learner], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole configuration, defaults included."""
    try:
        return cls.Config(**settings).model_dump(mode="json")
    except ValidationError as error:
        problem = first_problem(error, cls.Config)
        if problem.unknown:
            raise SuiteError(f"'{cls.name}' has no option '{problem.key}'{problem.said or '; it has none'}") from None
        raise SuiteError(f"option '{problem.key}' of '{cls.name}': {problem.said}") from None


def _fit(
    cls: type[Learner],
    config: Mapping[str, Any],
    split: Split,
    dataset: Dataset,
    depends: Mapping[str, Any],
    ctx: Context,
) -> tuple[Learner, float]:
    with Stopwatch(ctx.device) as watch:
        learner = _prepared(cls, config, ctx)
        with failures_named(cls, "training"):
            learner.meta_fit(MetaTrainSet(split, dataset.scale, depends), ctx)
    return learner, watch.seconds


@contextmanager
def failures_named(cls: type[Learner], phase: str) -> Iterator[None]:
    """Turn whatever a learner fails of into one line that names it."""
    try:
        yield
    except SuiteError as error:  # too little data for its options, say
        raise SuiteError(f"learner '{cls.name}' can't be used here, in {phase}: {error}") from None
    except FewrecError:
        raise
    except Exception as error:  # a learner may fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise FewrecError(f"learner '{cls.name}' failed in {phase}: {reason}") from error


def _prepared(cls: type[Learner], config: Mapping[str, Any], ctx: Context) -> Learner:
    learner = cls(cls.Config(**config))
    try:
        learner.prepare(ctx)
    except NotApplicable as error:
        raise NotApplicable(f"'{cls.name}' can't recommend here: {error}") from None
    return learner


def _load(
    folder: str | Path,
    dataset: Dataset,
    record: LearnerRecord,
    name: str | None,
    settings: Mapping[str, Any],
    device: torch.device,
    track: Track,
) -> TrainedLearner:
    on = record.trained_on
    seen = on.seen() if on.n_items == len(dataset.catalog) else None  # load_learner says what is wrong
    ctx = _context(dataset, seen, device, track)
    learner = load_learner(folder, ctx, learner=name, config=settings, record=record)
    cls = type(learner)
    refuse_what_is_lacking(cls, dataset)
    notes = differences(record, dataset, code_hash(cls))
    return TrainedLearner(learner, dataset, ctx, on, record.seconds, record.code_hash, tuple(notes))


def _context(dataset: Dataset, seen: np.ndarray | None, device: torch.device, track: Track) -> Context:
    catalog = dataset.catalog if seen is None else dataset.catalog.with_seen(seen)
    return Context(device, catalog, dataset.scale, cache_folder() / "learners", track)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an entry of the cache; where no lock can be made, go on without, since nothing can be kept there either."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder.with_name(f".{folder.name}.lock")))
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _silent(steps: Sequence[T], label: str) -> Iterator[T]:
    return iter(steps)
