"""What the JSON of a results folder must be, checked before a table is made of it, and without a slow import.

Keys that this version doesn't know are left alone: a later one may have written them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewrec.errors import DataError
from fewrec.report.files import remedy_of_a_stranger

# A rule is a function that accepts a value; a dict, the rules of an object's entries ("?": one that may be missing or
# null, "*": all others); a list, the rule of each element; or a tuple, rules of which one has to hold.


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _none(value: Any) -> bool:
    return value is None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _rank(value: Any) -> bool:
    return _whole(value) and 1 <= value < 2**31


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _rest(value: Any) -> bool:
    return value == "rest"


def _hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9A-Za-z_-]{1,128}", value) is not None


def _two(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(map(_number, value))


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _number(value)


_SCALE = (_two, {"low": _number, "high": _number})
_PROTOCOL = {"state?": _text, "k_max?": _whole, "*": (_plain, [_plain])}
_SPEC = {
    "dataset": _text, "meta_dataset?": _text, "protocol": _PROTOCOL, "n_users": _whole, "k_shot": (_whole, _rest),
    "n_query": _whole, "episodes": _whole, "seed": _whole, "learner": _text, "label?": _text, "config?": _object,
    "ndcg_at?": (_rank, [_rank]), "top_at?": _rank,
}  # fmt: skip
_TIMES = ("prepare_s", "meta_fit_s", "episodes_per_s", "peak_mb", "device_peak_mb")
_MACHINE = {"processor?": _text, "device?": _text, "threads?": _whole}
_NODE = {**_MACHINE, "name?": _text, "workers?": _whole, "timed?": [_text]}
_TIMING = {
    "nodes?": [_NODE],
    **{f"{name}?": _number for name in _TIMES},
    **{f"{name}?": [(_number, _none)] for name in ("adapt_ms", "predict_ms", "update_ms")},
}
_TUNING = {"kind?": _text, "trials?": _whole, "budget?": _whole, "dataset?": _text, "seeds?": [_whole]}
_CELL = {
    "spec": _SPEC, "spec_hash": _hash, "status": _text, "scale?": _SCALE, "timing?": _TIMING, "tuning?": _TUNING,
    **{f"{name}?": _text for name in ("reason", "code_hash", "dataset_sha256", "text_sha256", "split_hash")},
    **{f"{name}?": _whole for name in ("eligible_users", "excluded_users", "trainable_params", "other_configurations")},
}  # fmt: skip
_DATA = {
    **{f"{name}?": _text for name in ("sha256", "text_sha256", "kind", "licence", "citation", "homepage")},
    "scale?": _SCALE, "sources?": {"*": _text}, "notes?": [_text],
}  # fmt: skip
_SUITE = {
    "name?": _text, "title?": _text, "published?": [{"label": _text, "figures": {"*": _number}, "source": _text}],
}  # fmt: skip
_MANIFEST = {
    "name?": _text, "command?": _text, "suite?": (_text, _SUITE), "splits?": {"*": _text}, "cells?": _list,
    "environment?": {**_MACHINE, "versions?": {"*": (_text, _none)}}, "datasets?": {"*": _DATA}, "nodes?": [_NODE],
}  # fmt: skip


def check_manifest(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return what ``manifest.json`` holds; raise ``DataError`` naming the first entry that can't be right."""
    return _checked(_MANIFEST, value, file)


def check_cell(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return a cell's record; raise ``DataError`` naming the first entry that can't be right."""
    return _checked(_CELL, value, file)


def check_timing(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return what ``timing.json`` holds; raise ``DataError`` naming the first entry that can't be right."""
    return _checked(_TIMING, value, file)


def _checked(rule: Any, value: dict[str, Any], file: Path) -> dict[str, Any]:
    for path in _wrong(rule, value, ()):
        at = ".".join(map(str, path))
        raise DataError(f"{file}: broken at '{at}': not as fewrec writes it; {remedy_of_a_stranger(file)}")
    return value


def _wrong(rule: Any, value: Any, at: tuple) -> Iterator[tuple]:
    """Yield the path of each entry that its rule does not accept."""
    if isinstance(rule, dict):
        if not isinstance(value, dict):
            yield at
            return
        named = {name.rstrip("?"): name for name in rule if name != "*"}
        for key, name in named.items():
            if value.get(key) is not None:
                yield from _wrong(rule[name], value[key], (*at, key))
            elif not name.endswith("?"):
                yield (*at, key)
        if "*" in rule:
            for key in value.keys() - named.keys():
                yield from _wrong(rule["*"], value[key], (*at, key))
    elif isinstance(rule, list):
        if not isinstance(value, list):
            yield at
            return
        for number, one in enumerate(value):
            yield from _wrong(rule[0], one, (*at, number))
    elif isinstance(rule, tuple):
        if not any(next(_wrong(one, value, ()), None) is None for one in rule):
            yield at
    elif not rule(value):
        yield at
