"""A user's own ratings: which column is which, on what scale, with what text; said aloud in the data set's notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewrec.checksums import sha256_of
from fewrec.data.negatives import with_negatives
from fewrec.data.own_tables import ITEM, RATING, TIME, USER, column_of, find_column, plain_name, read_items, read_table
from fewrec.data.readers import delimited
from fewrec.data.readers.delimited import OwnTable
from fewrec.data.readers.users import user_features
from fewrec.data.table import Catalog, Dataset, Scale
from fewrec.data.template import DEFAULT_TEMPLATE, check_template
from fewrec.data.validate import RawRatings, code_ratings, guess_scale, numeric_ratings, scale_step
from fewrec.errors import DataError, nearest, printable, shown

_ROLES = {"user": USER, "item": ITEM, "rating": RATING, "timestamp": TIME}
_OPTIONS = {"user": "--user-col", "item": "--item-col", "rating": "--rating-col", "timestamp": "--time-col"}
_SKIPPED = {"_", "-"}
_A_ROW = 128  # bytes of memory that codes, pairs, their order and checks of a rating take, beyond the columns
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # tabs and line breaks may stand in quotes


def looks_like_a_file(name: str) -> bool:
    """Return whether a name is meant as a path: it exists, has a folder in it, or ends like a table."""
    path = Path(name)
    ending = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return path.exists() or "/" in name or "\\" in name or ending.lower() in delimited.ENDINGS


def load_own(
    path: str | Path,
    items: str | Path | None = None,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    columns: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    scale: tuple[float, float] | None = None,
    duplicates: str = "error",
    template: str | None = None,
    name: str | None = None,
    users: str | Path | None = None,
    negatives: int | None = None,
) -> Dataset:
    """Return the data set of a CSV, TSV, Parquet or RecBole ``.inter`` file (.gz too), one rating a row.

    Columns are named by the ``_col`` options or guessed from the header. A file without a header has the columns
    ``item, user, rating`` (three of them) or ``user, item, rating, timestamp`` (four), unless ``columns`` names them
    in order, ``_`` for one to skip. ``items`` is a table of ``item, title[, year, genres, description]``, and
    ``template`` what an item's text is made of (``fewrec.data.template``). ``users`` is a table of users and their
    features, one row a user (``fewrec.data.readers.users``). ``scale`` is (lowest, highest); guessed if None. What was
    guessed is in ``notes``. ``negatives`` so many 0s are sampled beside each 1 of a file of clicks that has 1s alone
    (``fewrec.data.negatives``).

    Raises:
        DataError: one line naming file and row, or the option to give.
    """
    return understand_own(path, items, user_col, item_col, rating_col, time_col, columns, delimiter, scale, duplicates,
                          template, name, users, negatives)[0]  # fmt: skip


def understand_own(
    path: str | Path,
    items: str | Path | None = None,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    columns: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    scale: tuple[float, float] | None = None,
    duplicates: str = "error",
    template: str | None = None,
    name: str | None = None,
    users: str | Path | None = None,
    negatives: int | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """Return what ``load_own`` does, and its options with every guess made: given again, they leave none to make."""
    path = Path(path).expanduser()
    if duplicates not in ("error", "last", "mean"):
        raise DataError(f"--duplicates '{duplicates}' is none of error, last, mean")
    template = _template(template, items is not None)
    named = {"user": user_col, "item": item_col, "rating": rating_col, "timestamp": time_col}
    table, roles, notes = _read_ratings(path, named, columns, delimiter)
    user, item, rating = (table.frame[roles[role]] for role in ("user", "item", "rating"))
    time = table.frame[roles["timestamp"]] if roles["timestamp"] is not None else None
    raw = RawRatings(user, item, rating, time, table.where)
    chosen, note = _scale(path, numeric_ratings(raw), scale, negatives)
    if duplicates == "mean" and chosen.of_clicks:
        raise DataError(f"{path}: ratings of 0 and 1 are clicks, of which there is no mean (give --duplicates last)")
    coded = code_ratings(raw, chosen, duplicates)
    for ids, given in (("user", user), ("item", item)):
        _refuse_unprintable(coded.user_ids if ids == "user" else coded.item_ids, ids, given, table)
    sources = {path.name: sha256_of(path)}
    text = None
    if items is not None:
        items = Path(items).expanduser()
        text, more = read_items(items, coded.item_ids)
        notes += more
        sources[items.name] = sha256_of(items)
    features = None
    if users is not None:
        users = Path(users).expanduser()
        of_users = read_table(users)
        features, more = user_features(of_users, column_of(of_users, (*USER, "id"), "user"), coded.user_ids)
        notes += more
        sources[users.name] = sha256_of(users)
    understood: dict[str, Any] = {"scale": (chosen.low, chosen.high), "duplicates": duplicates}
    if table.delimiter is not None:
        understood["delimiter"] = delimited.DELIMITERS[table.delimiter]
    if columns is None and table.header:
        understood |= {_OPTIONS[role][2:].replace("-", "_"): column for role, column in roles.items() if column}
    else:
        understood["columns"] = ",".join("_" if column.startswith("_") else column for column in table.frame.columns)
    dataset = Dataset(
        name=name or _stem(path),
        table=coded.table,
        catalog=Catalog(item_ids=coded.item_ids, text=text, template=template),
        scale=chosen,
        user_ids=coded.user_ids,
        user_features=features,
        kind="clicks" if chosen.of_clicks else "ratings",
        sources=sources,
        licence="not stated (a file of your own)",
        notes=tuple(map(printable, (*notes, note, *coded.notes))),
    )
    if negatives is not None:
        understood["negatives"] = negatives
        dataset = with_negatives(dataset, negatives)
    return dataset, understood


def _read_ratings(
    path: Path, named: dict[str, str | None], columns: str | Sequence[str] | None, delimiter: str | None
) -> tuple[OwnTable, dict[str, str | None], tuple[str, ...]]:
    if delimited.is_parquet(path):
        if columns is not None:
            raise DataError(f"{path}: --columns is for text files, a Parquet file names its columns")
        roles = _roles(delimited.parquet_columns(path), named, f"{path}")
        wanted = [column for column in roles.values() if column is not None]
        table = delimited.read_parquet(path, wanted, _A_ROW, ids=wanted[:2])
        return table, roles, (_say(roles),)
    first, delimiter = delimited.first_row(path, delimiter)
    is_header = _is_header(first, named)
    if columns is not None or not is_header:
        order = _order(columns, first, path)
        roles = {role: role if role in order else None for role in _ROLES}
        for role, column in named.items():
            if column is not None and columns is not None:
                raise DataError(f"{path}: --columns and {_OPTIONS[role]} exclude one another; give one of them")
            if column is not None:
                raise DataError(f"{path}: {_OPTIONS[role]} needs a header (give --columns, say {','.join(order)})")
        numeric: list[str] = [role for role in ("rating", "timestamp") if role in order]
        names = [role if role in _ROLES else f"_{i}" for i, role in enumerate(order)]
        table = delimited.read_delimited(path, names, delimiter, is_header, numeric)
        guessed = "" if columns is not None else ": guessed, --columns says otherwise"
        header = "columns" if is_header else "no header, columns"
        return table, roles, (f"{header} {', '.join(order)}{guessed}",)
    roles = _roles(first, named, f"{path}:1")
    numeric = [column for column in (roles["rating"], roles["timestamp"]) if column is not None]
    table = delimited.read_delimited(path, first, delimiter, True, numeric)
    return table, roles, (_say(roles),)


def _refuse_unprintable(ids: np.ndarray, role: str, given: Any, table: OwnTable) -> None:
    """Raise DataError at an id with a control character (NUL, escape ...), which no file of ids means to have."""
    if ids.dtype != np.int64 and any(not one.isprintable() and re.search(_CONTROL, one) for one in ids):
        row = int(np.argmax(given.astype(str).str.contains(_CONTROL)))
        raise DataError(f"{table.where(row)}: {role} {shown(str(given.iloc[row]))} has a control character; remove it")


def _template(template: str | None, has_items: bool) -> str:
    if template is None:
        return DEFAULT_TEMPLATE
    if not has_items:
        raise DataError("--template: there are no item texts to make of it (give --items)")
    try:
        return check_template(template)
    except ValueError as error:
        raise DataError(f"--template: {error}") from None


def _is_header(first: list[str], named: dict[str, str | None]) -> bool:
    known = {alias for aliases in _ROLES.values() for alias in aliases}
    if any(column in first for column in named.values()) or any(plain_name(field) in known for field in first):
        return True
    return not (len(first) >= 3 and _is_number(first[2]))


def _order(columns: str | Sequence[str] | None, first: list[str], path: Path) -> list[str]:
    if columns is None:
        if len(first) not in (3, 4):
            raise DataError(f"{path}:1: no header and {len(first)} columns (give --columns, say user,item,rating)")
        return ["item", "user", "rating"] if len(first) == 3 else ["user", "item", "rating", "timestamp"]
    order = [c.strip().lower() for c in (columns.split(",") if isinstance(columns, str) else columns)]
    order = ["timestamp" if column == "time" else column for column in order]
    for column in order:
        if column not in _ROLES and column not in _SKIPPED:
            raise DataError(f"--columns: '{column}' is none of {', '.join(_ROLES)} or _")
    wrong = [role for role in ("user", "item", "rating") if order.count(role) != 1] or (order.count("timestamp") > 1)
    if wrong:
        raise DataError(f"--columns {','.join(order)}: needs user, item and rating once each")
    if len(order) != len(first):
        raise DataError(f"{path}:1: {len(first)} columns, but --columns names {len(order)}")
    return order


def _roles(columns: list[str], named: dict[str, str | None], where: str) -> dict[str, str | None]:
    """Return each role's column: the one named, else the best-known name that no other role has been given."""
    roles: dict[str, str | None] = {}
    for role, column in named.items():
        if column is not None and column not in columns:
            raise DataError(f"{where}: no column '{column}' ({_OPTIONS[role]}){nearest(column, columns)}")
        if column is not None and column in roles.values():
            other = next(one for one, given in roles.items() if given == column)
            raise DataError(f"{_OPTIONS[other]} and {_OPTIONS[role]} both name the column '{column}'")
        roles[role] = column
    for role, aliases in _ROLES.items():
        if roles[role] is None:
            free = [column for column in columns if column not in roles.values()]
            roles[role] = find_column(free, aliases)
        if roles[role] is None and role != "timestamp":
            shown = ", ".join(f"'{column}'" for column in columns[:12])
            raise DataError(f"{where}: no column for the {role} among {shown} (give {_OPTIONS[role]})")
    return roles


def _say(roles: dict[str, str | None]) -> str:
    return "columns " + ", ".join(f"{role} = '{column}'" for role, column in roles.items() if column is not None)


def _scale(
    path: Path, rating: np.ndarray, scale: tuple[float, float] | None, negatives: int | None
) -> tuple[Scale, str]:
    if scale is None and negatives is not None and (rating == 1).all():
        return Scale(0.0, 1.0, 1.0), "scale 0 to 1: clicks, as --negatives says"
    if scale is None and (rating == 1).all():
        raise DataError(f"{path}: every rating is 1: clicks need what was not clicked too (give --negatives R to "
                        "sample R items beside each, or --scale LOW HIGH for ratings)")  # fmt: skip
    if scale is not None:
        try:
            low, high = (float(bound) for bound in scale)
        except (TypeError, ValueError):
            raise DataError(f"--scale: {shown(scale)} is not two numbers, the lowest and the highest rating") from None
        if not np.isfinite([low, high]).all():
            raise DataError(f"--scale {low:g} {high:g}: give two finite numbers, the lowest and the highest rating")
        if not low < high:
            raise DataError(f"--scale {low:g} {high:g}: the lowest rating must be below the highest")
        return Scale(low, high, scale_step(rating, low)), f"scale {low:g} to {high:g}"
    guess = guess_scale(rating)
    if guess.low == guess.high:
        raise DataError(f"{path}: every rating is {guess.low:g}, so the scale can't be guessed (give --scale LOW HIGH)")
    return guess, f"scale {guess.low:g} to {guess.high:g}: guessed, --scale says otherwise"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
