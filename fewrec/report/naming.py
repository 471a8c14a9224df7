"""What a table's rows are, and their short names: tasks, protocols and labels, apart because all tables share them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewrec.seeding import canonical_json

if TYPE_CHECKING:
    import pandas as pd

TASK = ["dataset", "protocol", "state", "n_users", "k_shot", "n_query"]  # rows that share these are compared
STATES = ("user-cold", "item-cold", "both-cold", "warm")
SIGN_BREAK = "; "  # between the warnings of a row
IDENTICAL = "identical to "
_DEFAULTS: dict[str, Any] = {
    "order": "random",
    "item_shots": 0,
    "support_items": "seen",
    "user_shares": [0.7, 0.1, 0.2],
    "item_shares": [0.7, 0.1, 0.2],
    "user_activity": "all",
    "query_strata": 1,
    "likes_above": None,  # 0 is a limit, not the default
}
_ROW = ("dataset", "n_users", "k_shot", "n_query", "learner")  # with protocol and label: what makes a row of a table
_NOT_IN_LABEL = {*_ROW, "protocol", "meta_dataset", "label", "seed"}


def state_rank(state: str | None) -> int:
    """Return the place of a state among the four, for sorting."""
    return STATES.index(state) if state in STATES else len(STATES)


def protocol_name(protocol: dict[str, Any], meta_dataset: str | None = None) -> str:
    """Return a protocol's short name: its state, and behind it each condition that is not the default.

    ``user-cold``; ``user-cold, order=time``; ``both-cold, from ml-1m``. ``k_max`` is left to ``protocol_names``.
    """
    parts = [str(protocol.get("state"))]
    for name in sorted(protocol):
        value = protocol[name]
        if name in ("state", "k_max") or value is None or value is False or value in ("", [], {}):
            continue
        if value == _DEFAULTS.get(name, 0):
            continue
        parts.append(f"{name}={_short(value)}")
    if meta_dataset:
        parts.append(f"from {meta_dataset}")
    return ", ".join(parts)


def why_excluded(protocol: str) -> str:
    """Return why users are not eligible under the protocol of this name."""
    return "too few or too many ratings" if "episode_ratings=" in protocol else "too few ratings"


def protocol_names(specs: Sequence[dict[str, Any]]) -> list[str]:
    """Return each specification's protocol name; ``k_max`` is named only where it alone tells two protocols apart."""
    names = [protocol_name(spec["protocol"], spec.get("meta_dataset")) for spec in specs]
    k_max: dict[tuple, set] = defaultdict(set)
    for spec, name in zip(specs, names, strict=True):
        k_max[spec["dataset"], name].add(spec["protocol"].get("k_max"))
    return [
        f"{name}, k_max={spec['protocol'].get('k_max')}" if len(k_max[spec["dataset"], name]) > 1 else name
        for spec, name in zip(specs, names, strict=True)
    ]


def row_labels(specs: Sequence[dict[str, Any]], protocols: Sequence[str]) -> list[str]:
    """Return each specification's label (its learner's name where it has none), unique within a table.

    Where cells of one row differ in their configuration, what differs is put behind the label, so that two
    configurations are never averaged as if they were seeds: ``bert-finetune (epochs=3)``.
    """
    labels = [spec.get("label") or spec["learner"] for spec in specs]
    variants: dict[tuple, dict[str, dict[str, Any]]] = defaultdict(dict)
    rows = []
    for spec, protocol, label in zip(specs, protocols, labels, strict=True):
        row = (*(spec[name] for name in _ROW), protocol, label)
        rest = _flat({name: value for name, value in spec.items() if name not in _NOT_IN_LABEL})
        variants[row][canonical_json(rest)] = rest
        rows.append((row, rest))
    out = []
    for label, (row, rest) in zip(labels, rows, strict=True):
        among = list(variants[row].values())
        names = sorted({name for one in among for name in one})
        differ = [n for n in names if len({canonical_json(one.get(n)) for one in among}) > 1]
        out.append(f"{label} ({', '.join(f'{n}={_short(rest.get(n))}' for n in differ)})" if differ else label)
    return out


def grouped_signs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (warning, labels of the rows that have it) for each sign in the column ``warning``, the commonest first.

    The labels are a text, ``all rows`` where none is without it. Rows that are identical to one another are one sign.
    """
    having: dict[tuple[str, str], list[str]] = defaultdict(list)
    shown = {part for label in rows["label"] for part in label.split(", ")}
    for label, warning in zip(rows["label"], rows["warning"], strict=True):
        for sign in filter(None, (warning or "").split(SIGN_BREAK)):
            others = sign.removeprefix(IDENTICAL).split(", ") if sign.startswith(IDENTICAL) else []
            if others and shown.issuperset(others):
                having["identical", ", ".join(sorted([*label.split(", "), *others]))].append(label)
            else:
                having[sign, ""].append(label)
    by_number = sorted(having.items(), key=lambda pair: -len(pair[1]))
    return [
        (sign, "all rows" if len(rows) == len(own) > 1 and not twins else ", ".join(own))
        for (sign, twins), own in by_number
    ]


def _flat(spec: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in spec.items() if name != "config"}
    flat.update(spec.get("config") or {})
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "/".join(_short(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
