"""A suite with parts replaced, as options of the command line and of ``fewrec.run`` ask; apart from what a suite is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewrec.errors import SuiteError, nearest, shown
from fewrec.learners.registry import learner_class
from fewrec.runner.conditions import Conditions
from fewrec.runner.suite import LearnerRow, Shots, Suite, make_suite, validated_config


def override(
    suite: Suite,
    name: str,
    *,
    learners: Iterable[str] = (),
    datasets: Iterable[str] = (),
    meta_datasets: Iterable[str] = (),
    states: Iterable[str] = (),
    shots: Iterable[Shots] = (),
    seeds: Iterable[int] = (),
    episodes: int | None = None,
    order: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backbone: str | None = None,
    tuned: Iterable[LearnerRow] = (),
) -> Suite:
    """Return the suite with the given parts replaced.

    ``learners`` keeps the suite's rows of that label or learner and adds other registered learners. ``tuned`` rows come
    behind those of the same learner.
    ``conditions`` maps entries of the table ``[protocol]`` to a value, or to a list of them; ``order`` is one of them.
    ``settings`` maps a label or learner to options; the rows concerned get a label that names what was set.
    ``backbone`` is an option for all rows whose learner has it and that ``settings`` doesn't give another.
    """
    for target, options in (settings or {}).items():
        if not isinstance(options, Mapping):
            raise SuiteError(f"settings of '{target}': {shown(options)} is no mapping from options to values")
    values = suite.model_dump()
    replaced: dict[str, Iterable[Any]] = {
        "datasets": datasets, "meta_datasets": meta_datasets, "states": states, "shots": shots, "seeds": seeds,
    }  # fmt: skip
    for key, given in replaced.items():
        if once := tuple(dict.fromkeys(one_or_many(given))):
            values[key] = once
    if suite.k_max is not None:
        values["k_max"] = max([suite.k_max, *(k for k in values["shots"] if k != "rest")])
    if episodes is not None:
        values["episodes"] = episodes
    values["protocol"] = _conditions(values["protocol"], order, conditions or {})
    rows = list(suite.learners)
    if learners := tuple(dict.fromkeys(one_or_many(learners))):
        rows = []
        for wanted in learners:
            if not isinstance(wanted, str):
                raise SuiteError(f"learners: {shown(wanted)} is not a learner's name")
            own = [row for row in suite.learners if wanted in (row.shown, row.learner)]
            if not own:
                learner_class(wanted)  # raises for an unknown name
            rows += own or [LearnerRow(learner=wanted)]
    _check_rows(rows, suite, name)
    for row in tuned:
        same = [place for place, other in enumerate(rows) if other.learner == row.learner]
        rows.insert(same[-1] + 1 if same else len(rows), row)
    for target in settings or {}:
        if not any(target in (row.shown, row.learner) for row in rows):
            raise SuiteError(
                f"--set {target}: no such learner in suite {name}{nearest(target, [r.shown for r in rows])}"
            )
    if backbone is not None and not any(_has_backbone(row) for row in rows):
        raise SuiteError(f"--backbone {backbone}: no learner in suite {name} reads texts with one (add --learner)")
    rows = [_changed(row, settings or {}, backbone) for row in rows]
    values["learners"] = _unique(rows)
    return make_suite(values, name)


def one_or_many(given: Any) -> Iterable[Any]:
    """Return what was given for a list, or a list of it where it is a single value, as in a suite's file."""
    return (given,) if isinstance(given, str | bytes | Path) or not isinstance(given, Iterable) else given


def _conditions(own: dict[str, Any], order: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table ``[protocol]`` with what was given in it; a list of one value is that value."""
    if unknown := set(given) - set(Conditions.model_fields):
        name = min(unknown)
        raise SuiteError(
            f"--condition {name}: there is no such condition{nearest(name, list(Conditions.model_fields))}"
        )
    plain = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in given.items()}
    return own | plain | ({} if order is None else {"order": order})


def _check_rows(rows: list[LearnerRow], suite: Suite, name: str) -> None:
    """Raise ``SuiteError`` naming the suite and the row where one of the suite's own has no learner or bad options."""
    for row in rows:
        if row in suite.learners:
            try:
                validated_config(row)
            except SuiteError as error:
                raise SuiteError(f"{name}.toml: learners, row {suite.learners.index(row) + 1}: {error}") from None


def _unique(rows: list[LearnerRow]) -> list[dict[str, Any]]:
    return list({row.shown: row.model_dump() for row in rows}.values())


def _has_backbone(row: LearnerRow) -> bool:
    return "backbone" in learner_class(row.learner).Config.model_fields


def _changed(row: LearnerRow, settings: Mapping[str, Mapping[str, Any]], backbone: str | None) -> LearnerRow:
    own = [options for target, options in settings.items() if target in (row.shown, row.learner)]
    if backbone is not None and _has_backbone(row) and not any("backbone" in options for options in own):
        own.insert(0, {"backbone": backbone})
    for options in own:
        row = _with_options(row, options)
    return row


def _with_options(row: LearnerRow, options: Mapping[str, Any]) -> LearnerRow:
    said = ",".join(f"{key}={_shown(key, value)}" for key, value in options.items())
    return LearnerRow(learner=row.learner, label=f"{row.shown}[{said}]", config={**row.config, **options})


def _shown(key: str, value: Any) -> Any:
    """Return a value as a label has it: of a backbone's folder, which is of this machine, the last part."""
    is_local = key == "backbone" and Path(str(value)).expanduser().exists()
    return Path(value).name if is_local else value
