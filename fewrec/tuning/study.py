"""The search: trials of Optuna's TPE in a database beside the result, which goes on where it was interrupted.

Trial *i* depends on the seed and on trials 0 .. i - 1 alone: the sampler is seeded anew for every trial, and one that
was under way when a search was killed is drawn again. So a search that was interrupted ends as one that was not, and a
larger budget extends a smaller one.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from fewrec.errors import FolderError, NotApplicable, SuiteError, reason_of
from fewrec.runner.timing import CellTimeout, time_limit
from fewrec.runner.units import one_line
from fewrec.seeding import canonical_json, digest, substream_keys
from fewrec.tuning.space import Choices, Space

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 10  # drawn at random before TPE takes over
METHOD = {"name": "tpe", "multivariate": True, "startup": STARTUP_TRIALS}


@dataclass(frozen=True)
class Trial:
    """One trial that has ended. ``options``: the searched ones and their values; ``error``: the lower the better, None
    where it failed."""

    number: int
    options: dict[str, Any]
    error: float | None
    reason: str
    seconds: float


def require_optuna() -> None:
    """Raise ``SuiteError`` with the command that installs Optuna where it is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise SuiteError("fewrec tune needs Optuna, which is not installed: pip install 'fewrec[tune]'") from None


class Search:
    """The trials of one learner in ``folder``/study.db, held by one process at a time.

    ``definition`` (JSON values) says what is searched on what; a folder whose trials have another is refused.
    ``start`` is the whole configuration that trial 0 has, and to which the others add the searched options.
    """

    def __init__(
        self, folder: Path, definition: dict[str, Any], space: Space, start: dict[str, Any], seed: int
    ) -> None:
        self.folder, self.definition, self.space, self.start, self.seed = folder, definition, space, start, seed
        self._lock = FileLock(str(folder / ".lock"))

    @property
    def sha(self) -> str:
        return digest(self.definition)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder and its database. Raises ``FolderError`` naming the folder and the fix."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(f"{self.folder}: another search is running there; wait for it or give --out") from None
        except OSError as error:
            raise FolderError(f"{self.folder}: can't write there ({reason_of(error)}); give another --out") from None
        try:
            with _quiet():
                self._study = self._open()
                self._refuse_another_definition()
            yield
        finally:
            self._lock.release()

    def _open(self) -> optuna.Study:
        import optuna
        from sqlalchemy.engine import URL

        file = self.folder / "study.db"
        url = URL.create("sqlite", database=str(file)).render_as_string()
        try:
            return optuna.create_study(storage=url, study_name="fewrec", direction="minimize", load_if_exists=True)
        except Exception as error:  # whatever the database driver says of a file that is none
            raise FolderError(
                f"{file}: not a database of trials, or a damaged one; remove it or give another --out"
            ) from error

    def _refuse_another_definition(self) -> None:
        stored = self._study.user_attrs.get("definition")
        if stored is None:
            self._study.set_user_attr("definition", canonical_json(self.definition))
            return
        old, new = json.loads(stored), json.loads(canonical_json(self.definition))
        changed = [name for name in new if old.get(name) != new[name]]
        if changed:
            raise FolderError(
                f"{self.folder}: it holds trials of another search (other {', '.join(changed)}), which can't be "
                "compared with new ones; give another --out, or remove that folder"
            )

    @property
    def ended(self) -> int:
        """How many trials have ended so far."""
        return len(self._slots())

    def run(
        self,
        budget: int,
        score: Callable[[dict[str, Any]], dict[str, float]],
        *,
        limit: float | None = None,
        told: Callable[[Trial], None] = lambda trial: None,
    ) -> list[Trial]:
        """Return the first ``budget`` trials, those that are missing run now; ``told`` hears of each when it ends.

        ``score`` returns the errors of a whole configuration by cell, their mean is what is made small. What it raises
        makes a failed trial with the reason, as does ``limit`` in seconds a trial.
        """
        with _quiet():
            self._abandon_what_was_under_way()
            for slot in range(len(self._ended()), budget):
                self._run_one(slot, score, limit)
                told(self._ended()[slot])
            return self._ended()[:budget]

    def importance(self, budget: int) -> dict[str, float]:
        """Return the share of each option in the spread of the trials' scores (PED-ANOVA), largest first, or {}."""
        import optuna

        with _quiet():
            complete = [t for t in self._slots()[:budget] if t.state.name == "COMPLETE"]
            if len(complete) < STARTUP_TRIALS or len({t.value for t in complete}) < 2:
                return {}
            only = optuna.create_study(direction="minimize")
            only.add_trials(complete)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(only, evaluator=evaluator)
            return {name: value for name, value in found.items() if math.isfinite(value)}

    # trials

    def _run_one(self, slot: int, score: Callable[[dict[str, Any]], dict[str, float]], limit: float | None) -> None:
        import optuna

        seed = int(substream_keys(self.seed, "tune", np.array([slot]))[0] % 2**32)
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=False, seed=seed
        )
        if slot == 0 and not any(t.state.name == "WAITING" for t in self._study.get_trials(deepcopy=False)):
            self._enqueue_start()
        trial = self._study.ask()
        options = self._draw(trial, first=slot == 0)
        trial.set_user_attr("slot", slot)
        trial.set_user_attr("options", options)
        try:
            with time_limit(limit):
                errors = score({**self.start, **options})
            value = math.fsum(errors.values()) / len(errors)
            if not math.isfinite(value):
                raise ValueError("the error is not finite")
        except NotApplicable as error:
            if slot == 0:
                raise SuiteError(f"nothing to tune: {error}") from None
            reason = str(error)
        except CellTimeout:
            reason = f"not finished within {limit:g} s"
        except Exception as error:  # a learner may fail in any way at options that nobody tried before
            reason = one_line(error)
        else:
            trial.set_user_attr("errors", errors)
            self._study.tell(trial, value)
            return
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _draw(self, trial: optuna.Trial, first: bool) -> dict[str, Any]:
        """Return the searched options of a trial; the first is the start, also where that lies outside the space."""
        options: dict[str, Any] = {}
        for name, one in self.space.searched.items():
            if first and not one.holds(self.start[name]):
                continue
            if isinstance(one, Choices):
                options[name] = json.loads(trial.suggest_categorical(name, [canonical_json(v) for v in one.values]))
            elif one.integer:
                options[name] = trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
            else:
                options[name] = one.rounded(trial.suggest_float(name, one.low, one.high, log=one.log))
        return {name: self.start[name] for name in self.space.searched} if first else options

    def _enqueue_start(self) -> None:
        values = {}
        for name, one in self.space.searched.items():
            value = self.start[name]
            if isinstance(one, Choices):
                place = one.place(value)
                if place is not None:
                    values[name] = canonical_json(one.values[place])
            elif one.holds(value):
                values[name] = value
        self._study.enqueue_trial(values)

    def _abandon_what_was_under_way(self) -> None:
        """Close the trials that a killed search left open; without a slot they are drawn again."""
        import optuna

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _slots(self) -> list[Any]:
        """Return the trials that ended, in the order of their slots; those that were abandoned are not among them."""
        ended = [
            t for t in self._study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" or "reason" in t.user_attrs
        ]
        return sorted((t for t in ended if t.state.is_finished()), key=lambda t: t.user_attrs["slot"])

    def _ended(self) -> list[Trial]:
        return [
            Trial(
                number=t.user_attrs["slot"],
                options=dict(t.user_attrs["options"]),
                error=t.value if t.state.name == "COMPLETE" else None,
                reason=t.user_attrs.get("reason", ""),
                seconds=t.duration.total_seconds() if t.duration else 0.0,
            )
            for t in self._slots()
        ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's log and its warnings about experimental options away: what matters of a trial is told anyway."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
