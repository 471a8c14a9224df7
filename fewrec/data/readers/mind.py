"""MIND, the Microsoft News Dataset: impressions as labelled rows, and the news as text; any number of parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fewrec.data.readers.raw import Fields, Layout, RawFiles, read_fields
from fewrec.data.readers.text import item_text, join_genres
from fewrec.data.validate import RawRatings
from fewrec.errors import DataError

_TABS = Layout("\t")
_TIME = "%m/%d/%Y %I:%M:%S %p"  # 11/11/2019 9:05:58 AM


def read(folder: Path, stem: str = "") -> RawFiles:
    """Return a row for each news item that was shown to a user: 1 if it was clicked, 0 if not, with the time.

    Reads every ``behaviors.tsv`` (impression id, user, time, history, impressions such as ``N1-1 N2-0``) and
    ``news.tsv`` in the folder and below it. A history has no time and no items that were passed over: it is not read.

    Raises:
        DataError: in one line with its place, for a time of another form and for an impression without label.
    """
    behaviors = sorted(folder.rglob("behaviors.tsv"), reverse=True)  # train before dev
    news = sorted(folder.rglob("news.tsv"), reverse=True)
    if not behaviors or not news:
        raise DataError(f"{folder}: no {'news' if behaviors else 'behaviors'}.tsv in it or below it")
    parts = [_impressions(read_fields(path, _TABS, 5)) for path in behaviors]
    user, item = (pa.chunked_array([part[i] for part in parts]).unify_dictionaries() for i in (0, 1))
    label, time = (pd.Series(np.concatenate([part[i] for part in parts])) for i in (2, 3))
    starts = np.cumsum([0, *(len(part[2]) for part in parts)])

    def where(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part][5].where(int(parts[part][4][row - starts[part]]))

    frame = pd.concat([read_fields(path, _TABS, 8).frame for path in news], ignore_index=True)
    genres = [join_genres(list(dict.fromkeys(names))) for names in zip(frame[1], frame[2], strict=True)]
    return RawFiles(
        ratings=RawRatings(user.to_pandas(), item.to_pandas(), label, time, where),
        item_ids=frame[0].to_numpy(object),
        item_text=item_text(list(frame[3]), [""] * len(frame), genres, list(frame[4])),
    )


def _impressions(fields: Fields) -> tuple[pa.Array, pa.Array, np.ndarray, np.ndarray, np.ndarray, Fields]:
    """Return user, item, label, time and the line's row of each shown item, without a Python object for any of them."""
    frame = fields.frame
    when = pd.to_datetime(frame[2], format=_TIME, errors="coerce")
    if when.isna().any():
        row = int(np.argmax(when.isna().to_numpy()))
        raise DataError(f"{fields.where(row)}: time '{frame[2].iloc[row]}' is not like 11/11/2019 9:05:58 AM")
    lists = pc.split_pattern(pc.utf8_trim_whitespace(pa.array(frame[4], pa.large_string())), " ")
    shown, row_of = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    clicked = pc.ends_with(shown, "-1")
    bad = pc.invert(pc.or_(clicked, pc.ends_with(shown, "-0"))).to_numpy(zero_copy_only=False)
    if bad.any():
        at = int(np.argmax(bad))
        raise DataError(f"{fields.where(int(row_of[at]))}: impression '{shown[at]}' does not end with -0 or -1")
    item = pc.utf8_slice_codeunits(shown, 0, -2).cast(pa.string()).dictionary_encode()
    user = pa.array(frame[1], pa.string()).dictionary_encode().take(pa.array(row_of))
    seconds = when.to_numpy("datetime64[s]").astype(np.int64)
    label = clicked.to_numpy(zero_copy_only=False).astype(np.float64)
    return user, item, label, seconds[row_of], row_of, fields
