"""Keeping timings of unlike machines out of one column: apart, since it takes figures away and computes none.

A node's kind is its processor, device, threads a worker and the workers at the same time (``fewrec.runner.nodes``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fewrec.report.naming import SIGN_BREAK
from fewrec.report.optional import UPDATES

Kind = tuple[str, str, Any, Any]  # processor, device, threads, workers

TIMED = {
    "fit": ("prepare_s", "meta_fit_s"),
    "latency": ("adapt_ms_p50", "adapt_ms_p95", "predict_ms", *UPDATES),
    "throughput": ("episodes_per_s",),
}
"""The columns of each kind of timing."""
_NAMES = {"fit": "meta-fit", "latency": "latency", "throughput": "episodes/s"}


def kinds_of(of_row: pd.DataFrame, environment: Mapping[str, Any]) -> dict[str, frozenset[Kind]]:
    """Return the kinds of nodes that each kind of timing of a row's cells was taken on.

    Cells from before nodes were recorded were timed in the one process of a run on the machine of ``environment``.
    """
    before = _kind({**environment, "workers": 1})
    found: dict[str, set[Kind]] = {timing: set() for timing in TIMED}
    for nodes in of_row["nodes"]:
        for timing, kinds in found.items():
            own = {_kind(node) for node in nodes or () if timing in node.get("timed", ())}
            kinds |= own or {before}
    return {timing: frozenset(kinds) for timing, kinds in found.items()}


def leave_out_unlike(rows: list[dict[str, Any]], timed_on: list[dict[str, frozenset[Kind]]]) -> None:
    """Empty the timings of rows that were not taken where those of most rows were, and say so in their warning.

    A row whose own cells were timed on unlike nodes has no timing either: its figure would be one of neither. Rows
    that agree in being unlike have one note for all that is left out.
    """
    left_out: dict[int, dict[str, list[str]]] = {}
    for timing, columns in TIMED.items():
        counts = Counter(kinds[timing] for kinds in timed_on)
        whole = {kinds: count for kinds, count in counts.items() if len(kinds) == 1}
        most = max(whole, key=lambda kinds: (whole[kinds], _said(kinds)), default=frozenset())
        for place, kinds in enumerate(timed_on):
            if kinds[timing] != most:
                rows[place] |= {name: np.nan for name in columns if name in rows[place]}
                where = f"timed on {_said(kinds[timing])}" + (f", most rows on {_said(most)}" if most else "")
                left_out.setdefault(place, {}).setdefault(where, []).append(_NAMES[timing])
    for place, notes in left_out.items():
        said = [f"{' and '.join(names)} left out, {where}" for where, names in notes.items()]
        rows[place]["warning"] = SIGN_BREAK.join(filter(None, [rows[place].get("warning"), *said]))


def _kind(node: Mapping[str, Any]) -> Kind:
    return str(node.get("processor")), str(node.get("device")), node.get("threads"), node.get("workers")


def _said(kinds: frozenset[Kind]) -> str:
    said = " + ".join(
        f"{processor} ({device}, {threads} thread{'s' * (threads != 1)}, {workers} at once)"
        for processor, device, threads, workers in sorted(kinds, key=str)
    )
    return said.replace(SIGN_BREAK, ", ")
