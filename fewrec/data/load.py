"""From a name or a path to a data set: the one entrance that everything behind the data layer uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewrec.data.cards import Card, load_card
from fewrec.data.fetch import Notify, fetch
from fewrec.data.parsed import parsed
from fewrec.data.readers import (
    amazon,
    anime,
    books,
    clover,
    jester,
    mind,
    movielens_100k,
    movielens_csv,
    movielens_dat,
    recbole,
)
from fewrec.data.readers.raw import RawFiles
from fewrec.data.readers.text import align
from fewrec.data.table import Catalog, Dataset
from fewrec.data.validate import code_ratings
from fewrec.errors import DataError, nearest

# A format's reader gets the folder of the files and the stem of their names.
READERS: dict[str, Callable[[Path, str], RawFiles]] = {
    "movielens-100k": movielens_100k.read,
    "movielens-dat": movielens_dat.read,
    "movielens-csv": movielens_csv.read,
    "movietweetings": movielens_dat.read_movietweetings,
    "recbole-atomic": recbole.read,
    "book-crossing": books.read_book_crossing,
    "goodbooks": books.read_goodbooks,
    "amazon-2018": amazon.read_2018,
    "amazon-2023": amazon.read_2023,
    "mind": mind.read,
    "jester": jester.read,
    "jester-matrix": jester.read_matrix,
    "anime": anime.read,
    "clover": clover.read,
}


def load_dataset(
    name: str,
    *,
    offline: bool | None = None,
    cache: str | Path | None = None,
    notify: Notify | None = None,
) -> Dataset:
    """Return the data set whose card is ``name`` (``ml-100k``, or a path to a card), fetched at first use.

    The table is the same whichever source the files came from; ``sources`` tells which, with each file's SHA-256.

    Raises:
        DataError: for an unknown name (with the nearest), when no source works, for files that differ from the card.
    """
    card = load_card(name)
    if card.own:
        from fewrec.data.own_cards import open_card

        return open_card(card)
    for source in card.sources:
        _check_format(card, getattr(source, "format", ""))  # before anything is fetched
    fetched = fetch(card, offline=offline, cache=cache, notify=notify)
    stem = Path(next(iter(fetched.files))).stem

    def read() -> Dataset:
        return read_files(card, fetched.folder, getattr(fetched.source, "format", ""), stem)

    dataset = parsed(card, fetched.folder.parent, fetched.files, read, notify)
    _check_size(card, dataset)
    sources = {f"{fetched.source.label}: {file}": sha256 for file, sha256 in sorted(fetched.files.items())}
    return replace(dataset, sources=sources)


def read_files(card: Card, folder: Path, format: str, stem: str) -> Dataset:
    """Return the data set that the files in ``folder`` hold, read as ``format``; their number is not checked."""
    _check_format(card, format)
    raw = READERS[format](folder, stem)
    return dataset_of(card, raw)


def _check_format(card: Card, format: str) -> None:
    if format not in READERS:
        raise DataError(f"{card.name}: no reader for the format '{format}'{nearest(format, READERS)}")


def dataset_of(card: Card, raw: RawFiles) -> Dataset:
    """Return the data set of a card's raw files: rated users and items only, in the order of their ids."""
    coded = code_ratings(raw.ratings, card.scale.scale(), card.duplicates)
    text = features = user_set = None
    if raw.item_text is not None:
        text, _ = align(raw.item_text, raw.item_ids, coded.item_ids)
    if raw.user_features is not None and raw.user_ids is not None:
        features, missing = align(raw.user_features, raw.user_ids, coded.user_ids)
        if missing:
            raise DataError(f"{card.name}: {missing} users with ratings are not in the file of users")
    if raw.user_set is not None and raw.user_ids is not None:
        given, _ = align(pd.DataFrame({"set": raw.user_set}), raw.user_ids, coded.user_ids)
        user_set = given["set"].to_numpy(np.int8)
    return Dataset(
        name=card.name,
        table=coded.table,
        catalog=Catalog(item_ids=coded.item_ids, text=text, template=card.template),
        scale=card.scale.scale(),
        user_ids=coded.user_ids,
        kind=card.kind,
        user_features=features,
        user_set=user_set,
        licence=card.licence,
        citation=card.citation,
        homepage=card.homepage,
        notes=(*raw.notes, *coded.notes),
    )


def open_dataset(
    name_or_path: str | Path,
    *,
    offline: bool | None = None,
    cache: str | Path | None = None,
    notify: Notify | None = None,
    **own: Any,
) -> Dataset:
    """Return the data set of a card, of a user's own file, or ``synthetic``: what the command line's names resolve to.

    A name with a card wins over a file of the same name; ``./name`` is the file. ``own`` are the options of
    ``load_own``; giving one for a card is refused.
    """
    from fewrec.data.cards import card_names
    from fewrec.data.own import load_own, looks_like_a_file

    text = str(name_or_path)
    given = {key: value for key, value in own.items() if value is not None}
    names = card_names()
    if text in names or text.endswith(".toml") or text == "synthetic":
        if given:
            options = ", ".join("--" + key.replace("_", "-") for key in sorted(given))
            raise DataError(f"{text}: {options} can only be given with a file of your own")
        if text == "synthetic":
            from fewrec.data.synthetic import make_synthetic

            return make_synthetic()
        return load_dataset(text, offline=offline, cache=cache, notify=notify)
    if looks_like_a_file(text):
        return load_own(name_or_path, **given)
    raise DataError(f"unknown dataset '{text}'{nearest(text, names)} (a file of your own needs its ending, say my.csv)")


def _check_size(card: Card, dataset: Dataset) -> None:
    for what, expected, actual in (
        ("ratings", card.expected.ratings, len(dataset.table)),
        ("users", card.expected.users, dataset.table.n_users),
        ("items", card.expected.items, dataset.table.n_items),
    ):
        if expected is not None and expected != actual:
            raise DataError(f"{card.name}: the files hold {actual:,} {what}, the card says {expected:,}")
