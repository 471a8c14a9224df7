"""Which recorded cells ``fewrec verify`` runs again, and in which order: filters, a spread sample, cheap first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fewrec.errors import SuiteError, nearest
from fewrec.report.results import Results
from fewrec.seeding import substream

_UNTIMED_S = 2.0  # a guess that only shapes the first ETA, for cells without timings


@dataclass(frozen=True)
class Filter:
    """Which cells are wanted; an empty field wants all. ``cells`` are hashes or beginnings of them."""

    learners: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    shots: tuple[int | str, ...] = ()
    cells: tuple[str, ...] = ()


def choose(results: Results, wanted: Filter) -> pd.DataFrame:
    """Return the rows of ``results.cells`` that are wanted; raise ``SuiteError`` for a name that no cell has."""
    cells = results.cells
    by_name = {"label": wanted.learners, "dataset": wanted.datasets, "state": wanted.states, "k_shot": wanted.shots}
    options = {"label": "--learner", "dataset": "--dataset", "state": "--state", "k_shot": "--shots"}
    for column, values in by_name.items():
        if not values:
            continue
        known = {*cells[column], *(cells["learner"] if column == "label" else ())}
        for value in values:
            if value not in known:
                raise SuiteError(
                    f"{options[column]} {value}: {results.path} has no such cell{nearest(str(value), map(str, known))}"
                )
        keep = cells[column].isin(values) | (cells["learner"].isin(values) if column == "label" else False)
        cells = cells[keep]
    if wanted.cells:
        for value in wanted.cells:
            if not cells["cell"].str.startswith(value).any():
                like = nearest(value, cells["cell"])
                raise SuiteError(f"--cell {value}: {results.path} has no such cell among those that are wanted{like}")
        cells = cells[cells["cell"].str.startswith(wanted.cells)]
    if not len(cells):
        raise SuiteError(f"{results.path}: no cell fits all the options; leave one out")
    return cells.reset_index(drop=True)


def draw_sample(cells: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Return the positions of ``count`` cells: drawn by ``seed``, then spread over labels, states, K and seeds.

    Each is, of those that are left, the one whose label, then state, K and seed are drawn the least so far.
    """
    waiting = [int(i) for i in substream(seed, "verify: sample of cells").permutation(len(cells))]
    columns = [cells[name].astype(str).tolist() for name in ("label", "dataset", "state", "k_shot", "seed")]
    drawn: Counter[tuple[int, str]] = Counter()
    chosen = []
    for _ in range(min(count, len(waiting))):
        best = min(waiting, key=lambda i: tuple(drawn[c, values[i]] for c, values in enumerate(columns)))
        waiting.remove(best)
        chosen.append(best)
        drawn.update((c, values[best]) for c, values in enumerate(columns))
    return chosen


def expected_seconds(cells: pd.DataFrame) -> dict[str, float]:
    """Return what each cell took by its recorded timings, in seconds; a meta-fit that cells share is in the first."""
    out, fitted = {}, set()
    for row in cells.to_dict("records"):
        group = (row["dataset"], row["protocol"], row["seed"], row["label"])
        once = 0.0 if group in fitted else row["meta_fit_s"] + row["prepare_s"]
        fitted.add(group)
        seconds = once + row["episodes"] / row["episodes_per_s"] if row["episodes_per_s"] else float("nan")
        out[row["cell"]] = seconds if seconds == seconds else _UNTIMED_S
    return out


def cheap_first(cells: pd.DataFrame, expected: Mapping[str, float]) -> list[str]:
    """Return the cells, those that share a meta-fit together, the cheapest such group first."""
    groups: dict[tuple, list[str]] = {}
    for row in cells.to_dict("records"):
        groups.setdefault((row["dataset"], row["protocol"], row["seed"], row["label"]), []).append(row["cell"])
    ranked = sorted(groups.values(), key=lambda group: (sum(expected[cell] for cell in group), group))
    return [cell for group in ranked for cell in group]
