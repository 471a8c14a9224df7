"""Parquet that somebody else wrote, read within bounds: a file of a few bytes may claim, and unpack to, any size.

What reading takes is counted with what is made of the values later (pandas' columns, Python's objects, codes, sorted
copies): by the rows that a file claims before a column is decoded, by its texts while they come. So time and memory
stay in proportion to the file. What the format leaves open is one page at a time: at most 2 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fewrec.errors import DataError, reason_of

MOST_ROWS = 2**28  # of one file: beyond any data set of the field, within what a machine can hold
FREE_BYTES, BYTES_A_BYTE = 1 << 27, 384  # of memory, and how many of them a byte of the file may take
# Bytes of memory, rounded up from measured peaks: the value in Arrow and in pandas, what checks make of it for a while.
_NUMBER, _OBJECT = 16, 160  # whole numbers, reals, times; decimals, dates: objects of Python in pandas
_TEXT, _A_CHARACTER, _A_DIFFERENT_TEXT = 40, 3, 128
_MADE_A_TEXT = 80  # a number that is no whole one, in a column of ids
_BATCH = 1 << 16
_INDEX = "__index_level_"  # pandas' name of a nameless index
BROKEN = (OSError, pa.ArrowException, MemoryError, ValueError, TypeError, OverflowError, KeyError)
"""What reading a broken file may raise: Arrow has many kinds, and none of them concerns the user."""


def read_flat(
    path: Path, columns: Sequence[str] | None = None, a_row: int = 0, ids: Sequence[str] = ()
) -> pd.DataFrame:
    """Return ``columns``, or all columns of plain values, of a Parquet file as a frame with a plain index.

    Lists, structs and types of an extension are left out: nothing that fewrec reads is in such a column. What pandas
    noted in the file, an index among it, counts for nothing. ``a_row`` and ``ids`` are those of ``bounded_table``.

    Raises:
        DataError: for a file that can't be read, or is larger inside than a file of its size has any reason to be.
    """
    try:
        return bounded_table(path, path.stat().st_size, columns, a_row, ids).to_pandas()
    except BROKEN as error:
        raise _unreadable(path, error) from None


def plain_names(path: Path) -> list[str]:
    """Return the names of all columns of plain values; raise ``DataError`` for a file that can't be read."""
    try:
        with pq.ParquetFile(path) as file:
            return _plain(file.schema_arrow)
    except BROKEN as error:
        raise _unreadable(path, error) from None


def bounded_table(
    source: Path | pa.Buffer, size: int, columns: Sequence[str] | None = None, a_row: int = 0, ids: Sequence[str] = ()
) -> pa.Table:
    """Return columns of a Parquet file of ``size`` bytes as a table without metadata, texts not as codes.

    The file is refused where it takes more than ``FREE_BYTES`` and ``BYTES_A_BYTE`` for each of its bytes, counted with
    ``a_row`` bytes that the caller is going to take for each row, beyond the columns and a copy of them as a frame.
    ``ids`` names the columns of which the caller makes texts unless they hold whole numbers.

    Raises what ``BROKEN`` lists; ``ValueError`` says what is too large.
    """
    with pq.ParquetFile(_opened(source)) as file:
        schema, metadata = file.schema_arrow, file.metadata
    wanted = _wanted(schema, columns)
    rows, groups = metadata.num_rows, [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if min((group.num_rows for group in groups), default=0) < 0 or rows != sum(group.num_rows for group in groups):
        raise ValueError("its parts hold other numbers of rows than it says")
    limit = FREE_BYTES + BYTES_A_BYTE * size
    kinds = {name: _values(schema.field(name).type) for name in wanted}
    taken = rows * (a_row + sum(_a_value(kind, name in ids) for name, kind in kinds.items()))
    if rows > MOST_ROWS or taken > limit:
        raise ValueError(f"it says that it holds {rows:,} rows, too many for {size:,} bytes")
    said = sum(group.total_byte_size for group in groups)  # asking a damaged column for its own ends the process
    if said > limit:
        raise ValueError(f"it says that its {size:,} bytes unpack to {said:,}")
    texts = [name for name, kind in kinds.items() if _is_text(kind)]
    read = {}
    # A text that many rows share is kept once, and a column is read after the other: one page is unpacked at a time.
    with pq.ParquetFile(_opened(source), read_dictionary=texts) as file:
        for name, kind in kinds.items():
            chunks = []
            for column in _chunks(file, name):
                taken += _of_texts(column)
                if taken > limit:
                    raise ValueError(f"its {size:,} bytes unpack to more than {limit:,}")
                chunks.append(_decoded(column).cast(kind))
            if sum(map(len, chunks)) != rows:
                raise ValueError(f"column '{name}' has other numbers of rows than it says")
            read[name] = pa.chunked_array(chunks, type=kind)
    return pa.table(read)


def reason(error: Exception) -> str:
    """Return in a user's words why a Parquet file can't be read, from what ``bounded_table`` raised."""
    return "it is damaged, or of another kind" if isinstance(error, pa.ArrowException) else reason_of(error)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable Parquet file ({reason(error)}); write it again, or mend its ending")


def _opened(source: Path | pa.Buffer) -> Any:
    return pa.BufferReader(source) if isinstance(source, pa.Buffer) else source


def _plain(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _is_plain(_values(field.type)) and not field.name.startswith(_INDEX)]


def _wanted(schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    names = _plain(schema)
    wanted = names if columns is None else list(columns)
    for name in wanted:
        if schema.names.count(name) != 1 or name not in names:
            said = "several columns" if schema.names.count(name) > 1 else "no column of plain values"
            raise ValueError(f"it has {said} '{name}'")
    return wanted


def _chunks(file: pq.ParquetFile, name: str) -> Iterator[pa.Array]:
    for batch in file.iter_batches(batch_size=_BATCH, columns=[name], use_threads=False):
        yield batch.column(batch.schema.names.index(name))


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    of = pa.types
    return of.is_string(kind) or of.is_large_string(kind) or of.is_binary(kind) or of.is_large_binary(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind) or _is_text(kind)


def _a_value(kind: pa.DataType, is_id: bool) -> int:
    """Return the bytes that a value of the kind takes, whatever it is."""
    of = pa.types
    if _is_text(kind):
        return _TEXT
    if of.is_decimal(kind) or of.is_date(kind) or of.is_time(kind):
        return _OBJECT + _MADE_A_TEXT * is_id
    return _NUMBER + _MADE_A_TEXT * (is_id and not of.is_integer(kind))


def _of_texts(column: pa.Array) -> int:
    """Return the bytes that texts take beyond what every text takes: 0 for other columns.

    A text that many rows share is one object, but its characters stand in each row.
    """
    if not isinstance(column, pa.DictionaryArray):
        return _A_CHARACTER * column.nbytes + _A_DIFFERENT_TEXT * len(column) if _is_text(column.type) else 0
    if not _is_text(column.dictionary.type):
        return 0
    lengths = pc.cast(pc.binary_length(column.dictionary), pa.int64())
    characters = pc.sum(lengths.take(column.indices)).as_py() or 0
    return _A_CHARACTER * characters + _A_DIFFERENT_TEXT * min(len(column.dictionary), len(column))


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
