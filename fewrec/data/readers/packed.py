"""Files that may be packed by gzip, read within bounds: a file of a few bytes may unpack to any size."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from fewrec.errors import DataError

FREE_BYTES, BYTES_A_BYTE = 1 << 28, 200  # gzip makes tables 3 to 20 times smaller, and nothing more than 1,032 times


def open_bytes(path: Path) -> BinaryIO:
    """Return a file's bytes as a stream, unpacked where its name ends in ``.gz``.

    Reading on raises DataError where a packed file gives more than a file of its size has any reason to hold.
    """
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Bounded(path), 1 << 20))


class _Bounded(io.RawIOBase):
    """What gzip unpacks, counted."""

    def __init__(self, path: Path) -> None:
        self._path, self._stream = path, gzip.open(path)
        self._packed, self._given = os.stat(path).st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self._stream.read1(len(buffer))
        except zlib.error as error:  # the other kinds of damage are OSError and EOFError
            raise OSError(str(error)) from None
        self._given += len(data)
        if self._given > FREE_BYTES + BYTES_A_BYTE * self._packed:
            raise DataError(
                f"{self._path}: {self._packed:,} bytes of gzip unpack to more than {self._given:,}, as no table does; "
                "unpack it yourself if you trust it"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
