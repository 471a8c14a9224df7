"""What tuning leaves: a TOML file that people read and a suite takes, and the same as an object for notebooks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.report.files import write_whole
from fewrec.report.measure import AUC, RMSE, Measure
from fewrec.runner.provenance import Tuned
from fewrec.runner.suite import LearnerRow
from fewrec.tuning.study import Trial


@dataclass(frozen=True, eq=False)
class TuningResult:
    """The outcome of ``fewrec.tune``.

    ``row``: the best configuration as a suite takes it, with how it was found in ``row.tuned``; ``path``: the file that
    holds it; ``start``: the whole configuration of the first trial; ``trials``: one row a trial with number, rmse (of
    clicks auc; NaN where it failed), reason, seconds and the searched options; ``importance``: each option's share in
    the spread of the trials' scores, empty below ten trials; ``left_out``: cells that the learner can't be run on, with
    the reason.
    """

    path: Path
    row: LearnerRow
    start: dict[str, Any]
    best: Trial
    trials: pd.DataFrame
    importance: dict[str, float]
    left_out: dict[str, str]

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The options in which the best trial differs from the start: (start, best) by name."""
        return {
            name: (self.start[name], value) for name, value in self.best.options.items() if self.start[name] != value
        }


def value_of(error: float | None, measure: Measure) -> float | None:
    """Return a trial's error as its metric has it: an RMSE as it is, the AUC for 1 - AUC."""
    return error if error is None or measure.lower_is_better else round(1 - error, 12)


def trials_frame(trials: Sequence[Trial], measure: Measure) -> pd.DataFrame:
    """Return one row a trial."""
    return pd.DataFrame(
        {
            "trial": [t.number for t in trials],
            measure.column: pd.Series([value_of(t.error, measure) for t in trials], dtype="float64"),
            "reason": [t.reason for t in trials],
            "seconds": [t.seconds for t in trials],
        }
    ).join(pd.DataFrame([t.options for t in trials]))


def write_row(path: Path, row: LearnerRow) -> None:
    """Write a tuned row as TOML, whole or not at all: the same bytes for the same row."""
    assert row.tuned is not None
    tuned = row.tuned.model_dump(mode="json", exclude_none=True)
    write_whole(path, (_comment(row.tuned) + _toml(row, tuned)).encode())


def _comment(tuned: Tuned) -> str:
    measure = AUC if tuned.metric == AUC.column else RMSE
    start = "" if tuned.default_score is None else f", {tuned.default_score:.4f} before tuning"
    return (
        f"# The best of {tuned.trials} trials by mean {measure.name} on meta-validation: {tuned.score:.4f}{start}.\n"
        "# Give this file to `fewrec run SUITE --tuned`, or write its row among a suite's learners.\n"
        "# Change an option, and the tables say `set` in place of `tuned`.\n"
    )


def _toml(row: LearnerRow, tuned: Mapping[str, Any]) -> str:
    lines = ["[[learners]]", f"learner = {_value(row.learner)}", f"label = {_value(row.label)}", ""]
    for table, values in (("config", row.config), ("tuned", tuned)):
        lines += [f"[learners.{table}]", *(f"{_key(key)} = {_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value, allow_nan=False)  # numbers and booleans are written alike
