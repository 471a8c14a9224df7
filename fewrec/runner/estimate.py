"""How long cells will take, from the timings of earlier runs: for the dry run and for the first ETA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fewrec.errors import FewrecError
from fewrec.report.results import load_results
from fewrec.runner.cell import CellSpec
from fewrec.runner.splits import split_key

# Of the fit and of the blocks: a guess that only shapes the first ETA; the dry run says which learners are unknown.
_UNKNOWN_S = (1.0, 1.0)


@dataclass(frozen=True)
class Estimate:
    """Expected seconds of each cell; ``unknown`` are the labels that no earlier run has timed.

    ``parts``: those of the fit (prepare and meta-fit, though another cell may share it) and of all blocks.
    """

    seconds: list[float]
    unknown: list[str]
    parts: list[tuple[float, float]]


def estimate(cells: Sequence[CellSpec], earlier: Sequence[Path]) -> Estimate:
    """Return what the cells would take by the timings in the folders of ``earlier`` runs, the first that knows wins.

    A meta-fit is counted once for the cells of one (split, label).
    """
    known: dict[str, tuple[float, float]] = {}
    for folder in earlier:
        try:
            timed = load_results(folder).cells
        except FewrecError:
            continue
        if {"meta_fit_s", "episodes_per_s"} <= set(timed.columns):
            for learner, rows in timed[timed["episodes_per_s"].notna()].groupby("learner"):
                rate = pd.to_numeric(rows["episodes_per_s"]).median()
                fit = (pd.to_numeric(rows["meta_fit_s"]) + pd.to_numeric(rows["prepare_s"])).median()
                known.setdefault(str(learner), (float(fit), float(rate)))
    seconds, unknown, parts, fitted = [], [], [], set()
    for spec in cells:
        if spec.learner not in known:
            unknown.append(spec.label)
            seconds.append(sum(_UNKNOWN_S))
            parts.append(_UNKNOWN_S)
            continue
        fit, rate = known[spec.learner]
        group = (split_key(spec), spec.label)
        parts.append((fit, spec.episodes / rate))
        seconds.append(spec.episodes / rate + (0.0 if group in fitted else fit))
        fitted.add(group)
    return Estimate(seconds, sorted(set(unknown)), parts)
