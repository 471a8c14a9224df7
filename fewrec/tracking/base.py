"""The interface of a tracker, and the one object that passes a run's events on to all of them, whatever they do."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fewrec.errors import SuiteError, nearest
from fewrec.runner.cell import CellSpec


@runtime_checkable
class Tracker(Protocol):
    """Follows a run. Implement these five methods, or inherit from this class and implement those that matter.

    They are called in the process of the run, between its steps; time spent in them is not counted as the learner's.
    An exception switches the tracker off, with one warning, and the run goes on.
    """

    def begin(self, manifest: Mapping[str, Any], cells: Sequence[CellSpec], folder: Path) -> None:
        """A run begins.

        ``manifest``: suite, environment and data sets, as in manifest.json. ``cells``: all cells of the run, in order.
        ``folder``: OUT/tracking, where a tracker may write (it is not created here).
        """

    def cell(self, spec: CellSpec) -> None:
        """A cell begins to be computed (also one that goes on where an earlier run ended)."""

    def scalars(self, spec: CellSpec, step: int, values: Mapping[str, float]) -> None:
        """Numbers that the learner logged at one step of meta-fitting (``ctx.log``).

        Cells that share a meta-fit are each told all of its steps, at once where it was made before.
        """

    def result(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        """A cell has ended: ``status`` is ok, failed, timeout or not applicable.

        ``figures`` where ok: rmse, mae, ndcg<k>, auc (those that are defined), prepare_s, meta_fit_s, adapt_ms and
        predict_ms (medians an episode), episodes_per_s, peak_mb, device_peak_mb. A cell that an earlier run finished
        gets its result without ``cell`` and ``scalars`` before it.
        """

    def end(self, status: str) -> None:
        """The run has ended: ok, interrupted or failed (an error of the run itself, not of a learner)."""


BACKENDS: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),  # the last two for its local store
}
"""The trackers that come with fewrec, by name, and the modules that each needs."""


def open_trackers(wanted: Iterable[str | Tracker]) -> list[tuple[str, Tracker]]:
    """Return (name, tracker) for names of ``BACKENDS`` and for objects of one's own; opens no file and no connection.

    Raises ``SuiteError`` for an unknown name, a package that is missing, and an object that is no tracker.
    """
    found: dict[str, Tracker] = {}
    for one in wanted:
        if not isinstance(one, str):
            lacking = [name for name in ("begin", "cell", "scalars", "result", "end") if not hasattr(one, name)]
            if isinstance(one, type) or lacking:
                what = f"lacks {', '.join(lacking)}" if lacking else "is a class: give an object"
                kind = one if isinstance(one, type) else type(one)
                raise SuiteError(f"track: {kind.__name__} is no tracker, it {what} (see fewrec.tracking.Tracker)")
            found[f"{type(one).__name__} {len(found)}"] = one
            continue
        if one not in BACKENDS:
            raise SuiteError(f"--track {one}: unknown tracker{nearest(one, BACKENDS)}")
        needed = BACKENDS[one]
        if one == "mlflow" and os.environ.get("MLFLOW_TRACKING_URI"):
            needed = needed[:1]
        missing = [module for module in needed if not _installed(module)]
        if missing:
            raise SuiteError(
                f"--track {one} needs {', '.join(missing)}, which is not installed: pip install 'fewrec[{one}]'"
            )
        module = importlib.import_module(f"fewrec.tracking.{one}")
        found[one] = module.BackendTracker()
    return list(found.items())


def _installed(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of that name in the way has no origin


class Trackers:
    """Passes the events of a run on; a tracker that raises is switched off, with one warning.

    ``seconds``: the time that trackers have taken so far, so that timings can leave it out.
    """

    def __init__(self, trackers: Sequence[tuple[str, Tracker]] = (), warn: Callable[[str], None] = print) -> None:
        self._trackers, self._warn = list(trackers), warn
        self.seconds = 0.0

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def begin(self, manifest: Mapping[str, Any], cells: Sequence[CellSpec], folder: Path) -> None:
        self._tell("begin", manifest, cells, folder)

    def cell(self, spec: CellSpec) -> None:
        self._tell("cell", spec)

    def scalars(self, spec: CellSpec, step: int, values: Mapping[str, float]) -> None:
        self._tell("scalars", spec, step, dict(values))

    def result(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        self._tell("result", spec, status, dict(figures))

    def end(self, status: str) -> None:
        self._tell("end", status)

    def _tell(self, event: str, *arguments: Any) -> None:
        begun = time.perf_counter()
        for pair in list(self._trackers):
            name, tracker = pair
            try:
                getattr(tracker, event)(*arguments)
            except Exception as error:  # a tracker may fail in any way; the run is worth more
                self._trackers.remove(pair)
                text = " ".join(str(error).split())[:300]
                self._warn(
                    f"tracking by {name.split()[0]} stopped at '{event}' ({type(error).__name__}: {text}); "
                    "the run goes on without it"
                )
        self.seconds += time.perf_counter() - begun
