"""Cards of a user's own files: written once they are understood, found by name, refused when a file has changed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewrec.checksums import sha256_of
from fewrec.data.cards import Card, is_builtin
from fewrec.data.own import load_own, understand_own
from fewrec.data.readers.delimited import ENDINGS
from fewrec.data.table import TEXT_COLUMNS, Dataset
from fewrec.errors import DataError, reason_of
from fewrec.paths import cards_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TABLES = ("items", "users")


@dataclass(frozen=True)
class Added:
    """A card that has been written: where, and the data set that it is of."""

    path: Path
    dataset: Dataset


def add_card(data: str | Path, *, name: str | None = None, replace_card: bool = False, **options: Any) -> Added:
    """Read a file of ratings as ``load_own`` does, with its ``options``, and write a card that finds it by name.

    The card goes into the user's folder (FEWREC_CARDS, or the platform's for settings). It holds the absolute paths,
    the SHA-256 of each file, and the options with every guess made. ``replace_card`` allows to write over a card.

    Raises:
        DataError: for all that ``load_own`` refuses, for a name that is fewrec's or no name, for a card that is there.
    """
    path = Path(data).expanduser().absolute()
    chosen = name or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    if not _NAME.fullmatch(chosen) or chosen.lower().endswith((*ENDINGS, ".toml", ".gz")):
        raise DataError(f"--name '{chosen}': a name has letters, digits, '.', '_', '-', and does not end like a file")
    if is_builtin(chosen):
        raise DataError(f"'{chosen}' is a data set of fewrec's; give another --name")
    target = cards_folder() / f"{chosen}.toml"
    if target.exists() and not replace_card:
        raise DataError(f"{target} is there already; give another --name, or --replace")
    tables: dict[str, Any] = {
        key: Path(options.pop(key)).expanduser().absolute() for key in _TABLES if options.get(key) is not None
    }
    dataset, understood = understand_own(path, **tables, **options, name=chosen)
    own: dict[str, Any] = {"path": str(path), "sha256": sha256_of(path), "options": understood}
    for key, table in tables.items():
        own |= {key: str(table), f"{key}_sha256": sha256_of(table)}
    card = Card.model_validate(_entries(dataset) | {"own": own})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(_toml(card), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        reason = f"the card can't be written ({reason_of(error)}); let FEWREC_CARDS name another folder"
        raise DataError(f"{target}: {reason}") from None
    return Added(target, dataset)


def open_card(card: Card) -> Dataset:
    """Return the data set of an own card.

    Raises:
        DataError: if a file is gone, or is not what it was when the card was written.
    """
    own = card.own
    assert own is not None
    files = {"": own.path, "--items ": own.items, "--users ": own.users}
    words = " ".join(f"{option}{path}" for option, path in files.items() if path is not None)
    again = f"fewrec data add {words} --name {card.name} --replace, and what other options it needs"
    for path, expected in (
        (own.path, own.sha256),
        (own.items, own.items_sha256),
        (own.users, own.users_sha256),
    ):
        if path is None:
            continue
        if not Path(path).is_file():
            raise DataError(f"{card.name}: {path} is no longer there; where it has moved: {again}")
        actual = sha256_of(Path(path))
        if actual != expected:
            raise DataError(
                f"{card.name}: {path} has changed since the data set was added (sha256 {expected[:12]}... then, "
                f"{actual[:12]}... now); if that is right: {again}"
            )
    options = {key: value for key, value in own.options.model_dump().items() if value is not None}
    if own.users is not None:
        options["users"] = own.users
    if own.items is not None:
        options |= {"items": own.items, "template": card.template}
    dataset = load_own(own.path, **options, name=card.name)
    # The steps of a scale that is given are counted from its lowest rating, those of a guessed one from 0.
    scale = card.scale.scale()
    return replace(dataset, scale=scale, licence=card.licence, citation=card.citation, homepage=card.homepage)


def can_give(dataset: Dataset, n_query: int, shots: tuple[int, ...]) -> dict[int, int]:
    """Return for each K how many users have K + Q ratings or more: K for the support, Q = ``n_query`` for the query."""
    counts = np.bincount(dataset.table.user, minlength=dataset.table.n_users)
    return {k: int((counts >= k + n_query).sum()) for k in shots}


def sparsity(dataset: Dataset) -> float:
    """Return the share of the (user, item) pairs without a rating."""
    table = dataset.table
    return 1 - len(table) / (table.n_users * table.n_items)


def _entries(dataset: Dataset) -> dict[str, Any]:
    table, text, scale = dataset.table, dataset.catalog.text, dataset.scale
    return {
        "name": dataset.name,
        "title": f"{dataset.name} (a file of your own)",
        "kind": dataset.kind,
        "template": dataset.catalog.template,
        "licence": dataset.licence,
        "citation": "none",
        "homepage": "none",
        "scale": {"low": scale.low, "high": scale.high, "step": scale.step},
        "columns": {
            "ratings": ["user", "item", "rating", *["timestamp"] * (table.timestamp is not None)],
            "items": [] if text is None else [name for name in TEXT_COLUMNS if (text[name] != "").any()],
            "users": [] if dataset.user_features is None else list(dataset.user_features.columns),
        },
        "expected": {"ratings": len(table), "users": table.n_users, "items": table.n_items},
    }


def _toml(card: Card) -> str:
    """Return a card as TOML: plain keys first, then tables; a JSON string is a TOML string."""
    lines = ["# Written by `fewrec data add`; title, licence, citation and homepage are yours to fill in.", ""]
    entries = card.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    own = entries.pop("own")
    options = own.pop("options")
    tables = {key: entries.pop(key) for key in ("scale", "columns", "expected")}
    lines += _pairs(entries)
    for key, table in tables.items():
        lines += ["", f"[{key}]", *_pairs(table)]
    return "\n".join([*lines, "", "[own]", *_pairs(own), "", "[own.options]", *_pairs(options), ""])


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
