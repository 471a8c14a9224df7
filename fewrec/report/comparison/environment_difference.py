"""What differs between two recorded environments, in words; apart because it needs no torch, unlike describing one."""

from __future__ import annotations

from typing import Any

_FIELDS = ("device", "threads", "processor", "platform", "python")


def environment_pairs(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (name, old, new) of everything that two environments record, equal or not; None where one lacks it."""
    pairs = [(name, old.get(name), new.get(name)) for name in _FIELDS]
    was, now = old.get("versions") or {}, new.get("versions") or {}
    pairs += [(name, was.get(name), now.get(name)) for name in sorted({*was, *now})]
    more = sorted({*old, *new} - {*_FIELDS, "versions"})
    return pairs + [(name, old.get(name), new.get(name)) for name in more]


def environment_difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what differs, as "name: old -> new"."""
    return [f"{name}: {_said(was)} -> {_said(now)}" for name, was, now in environment_pairs(old, new) if was != now]


def _said(value: Any) -> str:
    return "not recorded" if value is None else str(value)
