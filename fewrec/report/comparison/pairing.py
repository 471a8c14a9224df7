"""Two rows of a table as a pair: whether their cells stand on the same ground, on which episodes, at which cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from fewrec.report.comparison.paired import PairedScores
from fewrec.report.comparison.score_difference import KEYS, score_columns
from fewrec.report.naming import TASK
from fewrec.report.results import Results

COSTS = ("meta_fit_s", "adapt_ms", "predict_ms", "episodes_per_s", "peak_mb")


class Side:
    """One folder: its cells with their records, by task and row; ``rows[task, (learner, label)]`` are cells."""

    def __init__(self, results: Results, protocols: list[str]) -> None:
        cells = results.cells.assign(protocol=protocols)
        self.records = {one["spec_hash"]: one for one in results.metadata}
        self.scores = dict(iter(results.scores.groupby("cell", sort=False)))
        self.rows: dict[tuple[tuple, tuple[str, str]], pd.DataFrame] = {}
        for key, rows in cells.groupby([*TASK, "learner", "label"], sort=False, dropna=False):
            self.rows[tuple(key[: len(TASK)]), (key[-2], key[-1])] = rows.sort_values("seed")
        self.tasks = {task for task, _ in self.rows}


def pair(a: Side, b: Side, of_a: pd.DataFrame, of_b: pd.DataFrame) -> tuple[dict[str, Any], PairedScores] | str:
    """Return the facts and the paired scores of two rows, or why they can't be compared."""
    in_a, in_b = ({int(s): c for s, c in zip(rows["seed"], rows["cell"], strict=True)} for rows in (of_a, of_b))
    seeds = sorted(in_a.keys() & in_b.keys())
    if not seeds:
        return f"no seed in common: {_listed(in_a)} -> {_listed(in_b)}"
    used, left_out, parts = [], {}, []
    for seed in seeds:
        reason = _other_ground(of_a[of_a["seed"] == seed].iloc[0], of_b[of_b["seed"] == seed].iloc[0])
        found = reason or _common(a.scores[in_a[seed]], b.scores[in_b[seed]])
        if isinstance(found, str):
            left_out[seed] = found
        else:
            used.append(seed)
            parts.append(found)
    if not used:
        distinct = list(dict.fromkeys(left_out.values()))
        return distinct[0] if len(distinct) == 1 else "; ".join(f"seed {s}: {why}" for s, why in left_out.items())
    cells_a, cells_b = (rows[rows["seed"].isin(used)] for rows in (of_a, of_b))
    common = [name for name in parts[0][0].columns if all(name in one and name in other for one, other in parts)]
    both = [{name: np.concatenate([part[i][name].to_numpy(np.float64, na_value=np.nan) for part in parts])
             for name in common if name not in KEYS} for i in (0, 1)]  # fmt: skip
    user = np.concatenate([part[0]["user"].to_numpy() for part in parts])
    episodes = sum(part[0]["episode"].nunique() for part in parts)
    fact: dict[str, Any] = {
        "seeds": len(used), "episodes": episodes,
        "episodes_a": int(cells_a["episodes"].sum()), "episodes_b": int(cells_b["episodes"].sum()),
        "configuration": "; ".join(_configuration(a.records[in_a[used[0]]]["spec"], b.records[in_b[used[0]]]["spec"])),
    }  # fmt: skip
    fact["note"] = "; ".join(_notes(fact, in_a, in_b, used, left_out, cells_a, cells_b))
    return {**fact, **_costs(cells_a, cells_b)}, PairedScores(user, *both)


def _other_ground(a: pd.Series, b: pd.Series) -> str:
    """Return why two cells of the same place can't be paired, "" where they can."""
    bad = [f"{one['status']} in {name}{f': {reason}' if (reason := one['reason']) else ''}"
           for name, one in (("A", a), ("B", b)) if one["status"] != "ok"]  # fmt: skip
    if bad:
        return " and ".join(bad)
    for column, what in (("dataset_sha256", "other data: sha256"), ("split_hash", "another split:")):
        if a[column] is None or b[column] is None:
            return f"{what} not recorded in {' and '.join(n for n, v in (('A', a), ('B', b)) if v[column] is None)}"
        if a[column] != b[column]:
            return f"{what} {a[column][:12]} -> {b[column][:12]}"
    return ""


def _common(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """Return the score rows of the episodes that both have, in one order, or why there are none."""
    episodes = np.intersect1d(a["episode"], b["episode"])
    if not len(episodes):
        return "no episode in common"
    a, b = (one[one["episode"].isin(episodes)].sort_values(KEYS, kind="stable", ignore_index=True) for one in (a, b))
    keys = [one[[*KEYS, "n"]].to_numpy() for one in (a, b)]
    for episode in episodes if keys[0].shape != keys[1].shape or (keys[0] != keys[1]).any() else ():
        own = [key[key[:, 0] == episode] for key in keys]
        if own[0].shape != own[1].shape or (own[0] != own[1]).any():
            return f"other episodes: episode {episode} has other users or queries, so another sampler drew it"
    columns = [name for name in score_columns(a) if name in score_columns(b)]
    return a[[*KEYS, *columns]], b[[*KEYS, *columns]]


def _configuration(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the options that differ, as "name: old -> new"; what one side lacks is said so."""
    was, now = (
        {**(one.get("config") or {}), "block": one.get("block"), "ndcg_at": one.get("ndcg_at")} for one in (a, b)
    )
    pairs = [(name, was.get(name, "absent"), now.get(name, "absent")) for name in sorted({*was, *now})]
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]


def _notes(fact: dict[str, Any], in_a: dict[int, str], in_b: dict[int, str], used: list[int],
           left_out: dict[int, str], cells_a: pd.DataFrame, cells_b: pd.DataFrame) -> Iterator[str]:  # fmt: skip
    if fact["episodes"] < max(fact["episodes_a"], fact["episodes_b"]):
        yield f"paired on {fact['episodes']} common episodes of {fact['episodes_a']} in A and {fact['episodes_b']} in B"
    for name, own, other in (("A", in_a, in_b), ("B", in_b, in_a)):
        if more := sorted(own.keys() - other.keys()):
            yield f"seed {_listed(more)} only in {name}"
    for seed, reason in left_out.items():
        yield f"seed {seed} left out: {reason}"
    for column, said in (("code_hash", "sources changed"), ("text_sha256", "other item text")):
        if any(x != y for x, y in zip(cells_a[column], cells_b[column], strict=True)):
            yield said


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _costs(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    """Return each cost in A and B and the ratio B / A: means over seeds, medians of latencies, the largest memory."""
    out: dict[str, float] = {}
    for name in COSTS:
        pair = [_cost(rows[name], name) for rows in (a, b)]
        out |= {f"{name}_a": pair[0], f"{name}_b": pair[1]}
        out[f"{name}_ratio"] = pair[1] / pair[0] if pair[0] > 0 else float("nan")
    return out


def _cost(values: pd.Series, name: str) -> float:
    if name in ("adapt_ms", "predict_ms"):
        measured = [ms for one in values if isinstance(one, list | tuple) for ms in one if ms is not None]
        return float(np.median(measured)) if measured else float("nan")
    numbers = pd.to_numeric(values)
    if name == "episodes_per_s":
        return float(len(numbers) / (1 / numbers).sum()) if (numbers > 0).all() else float("nan")
    return float(numbers.max() if name == "peak_mb" else numbers.mean())
