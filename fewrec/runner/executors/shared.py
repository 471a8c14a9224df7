"""Data sets for other processes: bare copies without what is computed from them, and one copy in memory for all.

Pickles in here go from fewrec to fewrec, through memory that no other program is given; no file is ever read as one.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from fewrec.data.table import Dataset

_ALIGN = 64


def bare(dataset: Dataset) -> Dataset:
    """Return the data set without hashes that were computed of it: who receives it computes them of what came."""
    return replace(dataset, table=replace(dataset.table), catalog=replace(dataset.catalog))


class SharedDatasets:
    """Data sets in one piece of memory (a file without a name), which workers map and so have together.

    It ends with the last process that has it open, however that ends.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        buffers: list[pickle.PickleBuffer] = []
        payload = pickle.dumps({k: bare(v) for k, v in datasets.items()}, 5, buffer_callback=buffers.append)
        pieces = [memoryview(payload), *(buffer.raw() for buffer in buffers)]
        places, end = [], 0
        for piece in pieces:
            places.append((end, piece.nbytes))
            end += -(-piece.nbytes // _ALIGN) * _ALIGN
        self.places = places
        self._file: BinaryIO | Any = _nameless()
        for (start, _), piece in zip(places, pieces, strict=True):
            self._file.seek(start)
            self._file.write(piece)
        self._file.truncate(max(end, 1))
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def read_shared(descriptor: int, places: list[tuple[int, int]]) -> dict[str, Dataset]:
    """Return the data sets of ``SharedDatasets`` by its descriptor, without a copy.

    What is written to the arrays, though nothing should, stays in this process.
    """
    whole = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    payload, *buffers = (whole[start : start + size] for start, size in places)
    return pickle.loads(payload, buffers=buffers)


def _nameless() -> BinaryIO | Any:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("fewrec-data"), "w+b")
    return tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
