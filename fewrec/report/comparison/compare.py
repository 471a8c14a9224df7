"""``fewrec.compare``: two results folders, row by row; what differs around them, and what can't be compared and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.report.comparison.environment_difference import environment_pairs
from fewrec.report.comparison.paired import paired_figures
from fewrec.report.comparison.pairing import COSTS, Side, pair
from fewrec.report.naming import TASK, protocol_names, state_rank
from fewrec.report.results import Results, load_results, shot_rank

_COST_DECIDERS = ("device", "processor", "threads")
_ROW = [*TASK, "learner", "label", "label_b"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two results folders, A and B, side by side.

    ``rows``: one row a pair of rows that could be compared: the task, ``learner``, ``label`` (in A) and ``label_b``,
    ``seeds``, ``episodes`` (common ones), ``episodes_a``, ``episodes_b``, the figures of
    ``paired_figures`` (beside this module), each cost in A and B and its ratio B / A, ``configuration`` (options that
    differ) and ``note``. ``environment``: one row a (kind, name) with the value in ``a`` and in ``b`` and whether it
    ``differs``: environment, versions, run, data, split, code and weights. ``not_comparable``: rows that have no pair,
    or one on other ground, with the ``reason``. ``costs_comparable``: whether device, processor and threads agree.
    """

    a: str
    b: str
    rows: pd.DataFrame
    environment: pd.DataFrame
    not_comparable: pd.DataFrame
    costs_comparable: bool

    @property
    def caution(self) -> str:
        """Why times and memory aren't comparable, "" where they are."""
        if self.costs_comparable:
            return ""
        of = self.environment[self.environment["name"].isin(_COST_DECIDERS) & self.environment["differs"]]
        changed = [f"{name}: {a} -> {b}" for name, a, b in zip(of["name"], of["a"], of["b"], strict=True)]
        return f"times and memory are of other machines or settings ({'; '.join(changed) or 'not recorded'})"


def compare(a: str | Path | Results, b: str | Path | Results) -> Comparison:
    """Compare two results folders: runs, machines or versions; a reference and a local run.

    Rows of the same data set, protocol, N, K, Q and label are paired on their common (seed, episode, user) keys; where
    a learner has one row left on each side, those two are a pair whatever their labels. Cells of other data, another
    split or other episodes are never paired: ``not_comparable`` says which. Raises ``DataError`` for a broken folder.
    """
    a, b = (one if isinstance(one, Results) else load_results(one) for one in (a, b))
    sides = _sides(a, b)
    facts, pairs, refused = [], [], []
    for task, key_a, key_b in _matched(sides):
        learner, label = key_a or key_b or ("", "")
        names = {**dict(zip(TASK, task, strict=True)), "learner": learner, "label": label,
                 "label_b": key_b[1] if key_b else label}  # fmt: skip
        if key_a is None:
            found: Any = _alone(task, sides[0], "B", "A")
        elif key_b is None:
            found = _alone(task, sides[1], "A", "B")
        else:
            found = pair(sides[0], sides[1], sides[0].rows[task, key_a], sides[1].rows[task, key_b])
        if isinstance(found, str):
            refused.append({**names, "reason": found})
        else:
            facts.append({**names, **found[0]})
            pairs.append(found[1])
    rows = pd.concat([pd.DataFrame(facts), paired_figures(pairs)], axis=1)
    environment = _environment(a, b)
    deciders = environment[(environment["kind"] == "environment") & environment["name"].isin(_COST_DECIDERS)]
    comparable = not deciders["differs"].any() and deciders["a"].notna().all()
    return Comparison(
        str(a.path), str(b.path), _ordered(rows), environment, pd.DataFrame(refused, columns=[*_ROW, "reason"]),
        bool(comparable),
    )  # fmt: skip


# matching


def _sides(a: Results, b: Results) -> tuple[Side, Side]:
    """Return both folders with protocols named alike, so that equal names are equal protocols."""
    specs = [one["spec"] for one in (*a.metadata, *b.metadata)]
    names = protocol_names(specs)
    return Side(a, names[: len(a.metadata)]), Side(b, names[len(a.metadata) :])


def _matched(sides: tuple[Side, Side]) -> Iterator[tuple[tuple, tuple[str, str] | None, tuple[str, str] | None]]:
    """Yield (task, row of A or None, row of B or None) for all rows of both."""
    every = sides[0].tasks | sides[1].tasks
    for task in sorted(every, key=lambda t: (t[0], state_rank(t[2]), t[1], t[3], shot_rank(t[4]), t[5])):
        in_a, in_b = ([row for own, row in side.rows if own == task] for side in sides)
        left_a, left_b = ([row for row in own if row not in other] for own, other in ((in_a, in_b), (in_b, in_a)))
        partner = {}
        for row in left_a:
            same = [other for other in left_b if other[0] == row[0]]
            if len(same) == 1 and sum(own[0] == row[0] for own in left_a) == 1:
                partner[row] = same[0]
        for row in in_a:
            yield task, row, row if row in in_b else partner.get(row)
        for row in left_b:
            if row not in partner.values():
                yield task, None, row


def _alone(task: tuple, other: Side, here: str, there: str) -> str:
    """Return why a row of a task that is ``here`` has no partner in ``other``, which is called ``there``."""
    said = f"only in {here}: {there} has"
    if task in other.tasks:
        return f"{said} no such row there"
    own = dict(zip(TASK, task, strict=True))
    others = [dict(zip(TASK, one, strict=True)) for one in other.tasks if one[0] == own["dataset"]]
    if not others:
        return f"{said} no cells of {own['dataset']}"
    same = [one for one in others if one["protocol"] == own["protocol"]]
    if same:
        sizes = sorted(same, key=lambda one: (one["n_users"], shot_rank(one["k_shot"]), one["n_query"]))
        shown = [f"N={one['n_users']} K={one['k_shot']} Q={one['n_query']}" for one in sizes]
        return f"{said} other sizes: {', '.join(shown)}"
    of_state = sorted({one["protocol"] for one in others if one["state"] == own["state"]})
    return f"{said} another protocol: {'; '.join(of_state)}" if of_state else f"{said} no cells of {own['state']}"


# around the rows


def _environment(a: Results, b: Results) -> pd.DataFrame:
    pairs = [("environment", *pair) for pair in environment_pairs(*(_object(r, "environment") for r in (a, b)))]
    pairs += [("run", name, a.manifest.get(name), b.manifest.get(name)) for name in ("name", "command")]
    kinds = {"data": _data, "split": lambda results: _object(results, "splits"), "code": _code, "weights": _weights}
    for kind, values in kinds.items():
        was, now = values(a), values(b)
        pairs += [(kind, name, was.get(name), now.get(name)) for name in sorted({*was, *now})]
    differs = [  # what only one of the runs used differs from nothing
        old != new and (kind == "environment" or None not in (old, new)) for kind, _, old, new in pairs
    ]
    return pd.DataFrame(pairs, columns=["kind", "name", "a", "b"]).astype(object).assign(differs=differs)


def _object(results: Results, name: str) -> dict[str, Any]:
    value = results.manifest.get(name)
    return value if isinstance(value, dict) else {}


def _data(results: Results) -> dict[str, Any]:
    return {f"{name} {key}": data.get(key) for name, data in _object(results, "datasets").items()
            for key in ("sha256", "text_sha256")}  # fmt: skip


def _code(results: Results) -> dict[str, str]:
    hashes = results.cells.dropna(subset=["code_hash"]).groupby("learner")["code_hash"]
    return {str(learner): ", ".join(sorted(set(own))) for learner, own in hashes}


def _weights(results: Results) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for one in results.metadata:
        for name, sha256 in (one.get("loaded") or {}).items():
            found.setdefault(name, set()).add(str(sha256))
    return {name: ", ".join(sorted(own)) for name, own in found.items()}


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Put facts, figures and costs into one order of columns."""
    if not len(rows):
        return pd.DataFrame(columns=[*_ROW, "verdict"])
    last = [name for name in rows.columns if name.startswith(COSTS)] + ["configuration", "note"]
    first = [*_ROW, "seeds", "episodes", "episodes_a", "episodes_b", "users", "keys", "verdict", "p", "p_holm"]
    return rows[[*first, *(name for name in rows.columns if name not in (*first, *last)), *last]]
