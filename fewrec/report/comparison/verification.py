"""The verdict on cells that were run again: the rule that applies, what it says of each cell, and how that is shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from fewrec.report.comparison.integrity import Integrity
from fewrec.report.comparison.score_difference import ScoreDifference, metric_name, score_difference
from fewrec.report.numbers import one_line

if TYPE_CHECKING:
    from rich.console import Group

CLOSED_FORM, TRAINED = 1e-5, 2e-3  # of RMSE, in another environment (design, contract 4)
_WRITTEN = {CLOSED_FORM: "1e-5", TRAINED: "2e-3"}
Outcome = Literal["same bytes", "within tolerance", "same status", "differs", "not compared"]
_AGREE: tuple[Outcome, ...] = ("same bytes", "within tolerance", "same status")


@dataclass(frozen=True)
class CellVerdict:
    """What was found for one cell. ``verdict`` is what a table says of it; ``details`` how its scores differ.

    ``notes`` are (kind, text): what surrounds the scores and differs from the record, whatever the scores say.
    ``metrics`` are (recorded, now).
    """

    cell: str
    label: str
    learner: str
    dataset: str
    state: str
    n_users: int
    k_shot: int | str
    n_query: int
    seed: int
    outcome: Outcome
    verdict: str
    details: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    metrics: dict[str, tuple[float, float]] | None = None

    @property
    def agrees(self) -> bool:
        return self.outcome in _AGREE


@dataclass(frozen=True)
class Verification:
    """The re-run of some cells of a folder, and the check of all of them without running."""

    folder: str
    total: int
    exact: bool
    reason: str
    environment: dict[str, Any]
    differences: tuple[str, ...]
    cells: tuple[CellVerdict, ...]
    integrity: Integrity

    @property
    def agrees(self) -> bool:
        """Whether every cell that was run agrees with its record and the folder fits together."""
        return all(one.agrees for one in self.cells) and not self.integrity.problems

    @property
    def rule(self) -> str:
        """The rule that the scores were held to, and why."""
        if self.exact:
            return f"Rule: every score must be the same bytes, because {self.reason}."
        return (
            f"Rule: RMSE (AUC where there is none) must agree to {_WRITTEN[CLOSED_FORM]} for closed forms and "
            f"{_WRITTEN[TRAINED]} for trained learners, because {self.reason}."
        )

    @property
    def summary(self) -> str:
        """One line: how many cells agree, how closely, and what does not."""
        count = Counter(one.outcome for one in self.cells)
        outcomes: tuple[Outcome, ...] = (*_AGREE, "differs", "not compared")
        parts = [f"{count[name]} {name}" for name in outcomes if count[name]]
        text = f"{sum(one.agrees for one in self.cells)} of {len(self.cells)} cells agree ({', '.join(parts)})"
        largest = largest_differences(self.cells)
        if largest and any(largest.values()):
            text += f"; largest difference: {', '.join(f'{metric_name(k)} {v:.2g}' for k, v in largest.items())}"
        problems = len(self.integrity.problems)
        return text + (f"; {problems} problem{'s' * (problems > 1)} of the folder itself" if problems else "")

    def json_value(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        cells = []
        for one in self.cells:
            metrics = {
                name: {"recorded": was, "now": now, "difference": now - was}
                for name, (was, now) in (one.metrics or {}).items()
            }
            cells.append(asdict(one) | {"agrees": one.agrees, "metrics": metrics})
        return {
            "schema": 1, "folder": self.folder, "cells_in_folder": self.total, "agrees": self.agrees,
            "rule": "same bytes" if self.exact else "tolerance", "rule_because": self.reason,
            "tolerance": {"closed_form": CLOSED_FORM, "trained": TRAINED},
            "environment": self.environment, "environment_differences": list(self.differences),
            "integrity": asdict(self.integrity), "cells": cells, "largest": largest_differences(self.cells),
            "summary": self.summary,
        }  # fmt: skip


def judge(
    record: dict[str, Any], event: dict[str, Any], old: pd.DataFrame, new: pd.DataFrame | None, exact: bool
) -> CellVerdict:
    """Return the verdict on one cell from its ``record`` and the last event of its re-run.

    ``old`` and ``new`` are its score rows. ``exact``: whether they must be the same bytes; otherwise the tolerance
    holds, that of closed forms where the learner says that it is one.
    """
    if event["event"] == "refused":
        return _verdict(record, "not compared", f"can't be compared: {event['reason']}")
    notes = _notes(record, event)
    if event["event"] == "split":
        was = record.get("split_hash")
        changed = f"this version splits the data otherwise (split hash {_short(was)} -> {_short(event['split_hash'])})"
        return _verdict(record, "differs", f"DIFFERS: {changed}; not run", notes=notes)
    again = event["record"]
    if record["status"] != "ok" or again["status"] != "ok":
        return _judge_status(record, again, notes)
    assert new is not None
    return _judge_scores(record, score_difference(old, new), event["closed_form"], exact, notes)


def _judge_status(record: dict[str, Any], again: dict[str, Any], notes: tuple[tuple[str, str], ...]) -> CellVerdict:
    was, now = record["status"], again["status"]
    reasons = [one_line(one.get("reason") or "") for one in (record, again)]
    if was == now:
        if reasons[0] != reasons[1]:
            notes += (("reason", f"'{reasons[0]}' -> '{reasons[1]}'"),)
        return _verdict(record, "same status", f"same status: {now} ({reasons[1]})", notes=notes)
    if reasons[1].startswith("DataError: "):  # weights that aren't there: nothing was learnt about the scores
        return _verdict(record, "not compared", f"can't be compared: {reasons[1].removeprefix('DataError: ')}",
                        notes=notes)  # fmt: skip
    said = [f"{status} ({reason})" if reason else status for status, reason in zip((was, now), reasons, strict=True)]
    return _verdict(record, "differs", f"DIFFERS: recorded {said[0]}, now {said[1]}", notes=notes)


def _judge_scores(
    record: dict[str, Any], found: ScoreDifference, closed_form: bool, exact: bool, notes: tuple[tuple[str, str], ...]
) -> CellVerdict:
    if found.unrecorded:
        notes += (("scores", ", ".join(found.unrecorded)),)
    if found.same_bytes:
        return _verdict(record, "same bytes", "same bytes", notes=notes, metrics=found.metrics)
    details = [text for text in (found.rows, found.first) if text]
    if found.largest:
        column = max(found.largest, key=lambda name: found.largest[name])
        details.append(f"largest: {column} by {found.largest[column]:.3g}; differing: {', '.join(found.largest)}")
    details += [
        f"{metric_name(name)} {was:.8g} -> {now:.8g}" for name, (was, now) in found.metrics.items() if was != now
    ]
    primary = next((name for name in ("rmse", "auc") if name in found.metrics), None)
    tolerance = CLOSED_FORM if closed_form else TRAINED
    gap = abs(found.metrics[primary][1] - found.metrics[primary][0]) if primary else math.nan
    close = not found.rows and gap <= tolerance  # NaN is not close
    metric = metric_name(primary or "no metric")
    limit, by = _WRITTEN[tolerance], f"{metric} by {gap:.2g}"
    if close and not exact:
        said = f"within {limit} ({f'{gap:.2g}' if gap else f'the same {metric}, other last bits'})"
        return _verdict(record, "within tolerance", said, tuple(details), notes, found.metrics)
    if found.rows:
        said = "other rows"
    elif exact:
        said = f"other bytes ({by}{f', within {limit}' if close else ''})"
    else:
        said = f"{by}, more than {limit}"
    return _verdict(record, "differs", f"DIFFERS: {said}", tuple(details), notes, found.metrics)


def _notes(record: dict[str, Any], event: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what differs around the scores: sources, options, item text, weights."""
    notes: list[tuple[str, str]] = []
    again = event.get("record") or event
    if again.get("code_hash") != record.get("code_hash"):
        notes.append(("code", f"{_short(record.get('code_hash'))} -> {_short(again.get('code_hash'))}"))
    for name, value in sorted(event["new_options"].items()):
        notes.append(("options", f"{name} is new and takes its default {value!r}"))
    if "text_sha256" in again and again["text_sha256"] != record.get("text_sha256"):
        notes.append(("text", f"sha256 {_short(record.get('text_sha256'))} -> {_short(again['text_sha256'])}"))
    if again.get("status") == record["status"] == "ok":
        was, now = record.get("loaded") or {}, again.get("loaded") or {}
        for name in sorted({*was, *now}):
            if was.get(name) != now.get(name):
                notes.append(("weights", f"{name}: sha256 {_short(was.get(name))} -> {_short(now.get(name))}"))
    return tuple(notes)


def _short(value: Any) -> str:
    return "not recorded" if value is None else str(value)[:12]


def _verdict(
    record: dict[str, Any], outcome: Outcome, verdict: str, details: tuple[str, ...] = (),
    notes: tuple[tuple[str, str], ...] = (), metrics: dict[str, tuple[float, float]] | None = None,
) -> CellVerdict:  # fmt: skip
    spec = record["spec"]
    return CellVerdict(
        record["spec_hash"], spec.get("label") or spec["learner"], spec["learner"], spec["dataset"],
        str(spec["protocol"].get("state")), spec["n_users"], spec["k_shot"], spec["n_query"], spec["seed"],
        outcome, one_line(verdict), details, notes, metrics,
    )  # fmt: skip


def largest_differences(cells: Sequence[CellVerdict]) -> dict[str, float]:
    """Return each metric's largest absolute difference (now - recorded) over the cells whose scores were compared."""
    out: dict[str, float] = {}
    for one in cells:
        for name, (was, now) in (one.metrics or {}).items():
            out[name] = max(out.get(name, 0.0), abs(now - was))
    return out


_KINDS = {
    "code": "Sources that decide a score have changed since (code hash)",
    "options": "Options that the record lacks",
    "text": "The items' text is another",
    "weights": "Other weights were loaded",
    "scores": "Scores that the record lacks (it is of an earlier version), not compared",
    "reason": "The reason of a status is worded otherwise",
}


def terminal_report(verification: Verification) -> Group:
    """Return a verification as a rich renderable: rule, table, what differs, the folder, the summary."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"{len(verification.cells)} of {verification.total} cells of {verification.folder}, run again"
    table = Table(title=Text(one_line(title)), title_justify="left")
    for column in ("cell", "learner", "data set", "state", "K", "seed", "verdict"):
        table.add_column(column, justify="right" if column in ("K", "seed") else "left", no_wrap=column == "cell")
    for one in verification.cells:
        style = "green" if one.agrees else "red" if one.outcome == "differs" else "yellow"
        names = (one.label, one.dataset, one.state, one.k_shot, one.seed)
        said = [one.verdict, *(one.details if one.outcome == "differs" else ())]
        verdict = Text("\n".join(map(one_line, said)), style=style)
        table.add_row(one.cell, *(Text(one_line(text)) for text in names), verdict)
    lines: list[Text | Table] = [Text(one_line(verification.rule)), table]
    for kind, title in _KINDS.items():
        concerned = [one for one in verification.cells if any(own == kind for own, _ in one.notes)]
        texts: dict[str, list[str]] = {}
        for one in concerned:
            for own, text in one.notes:
                if own == kind:
                    texts.setdefault(text, []).append(one.label)
        if texts:
            changes = "; ".join(f"{', '.join(dict.fromkeys(labels))} {text}" for text, labels in texts.items())
            agree = "; the scores agree all the same" if all(one.agrees for one in concerned) else ""
            lines.append(Text(one_line(f"{title}: {changes}{agree}.")))
    integrity = verification.integrity
    if not integrity.problems:
        lines.append(Text(f"All {verification.total} cells: hashes, episodes and tables fit together (nothing run)."))
    lines += [Text(one_line(problem), style="red") for problem in integrity.problems]
    lines += [Text(one_line(f"note: {note}"), style="dim") for note in integrity.notes]
    lines.append(Text(one_line(verification.summary), style="bold green" if verification.agrees else "bold red"))
    return Group(*lines)
