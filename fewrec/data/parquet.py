"""Parquet that somebody else wrote, read within bounds: a file of a few bytes may claim, and unpack to, any size.

What a file says of itself is checked before a column is decoded, and what comes out is counted while it comes, so that
time and memory stay in proportion to the file. What the format leaves open is one page at a time: at most 2 GB.
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
FREE_ROWS, ROWS_A_BYTE = 1 << 20, 64  # more rows in fewer bytes are hardly told apart
FREE_BYTES, BYTES_A_BYTE = 1 << 28, 256  # in memory, and how many of them may come of a byte of the file
_BATCH = 1 << 16
_INDEX = "__index_level_"  # pandas' name of a nameless index
BROKEN = (OSError, pa.ArrowException, MemoryError, ValueError, TypeError, OverflowError, KeyError)
"""What reading a broken file may raise: Arrow has many kinds, and none of them concerns the user."""


def read_flat(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return ``columns``, or all columns of plain values, of a Parquet file as a frame with a plain index.

    Lists, structs and types of an extension are left out: nothing that fewrec reads is in such a column. What pandas
    noted in the file, an index among it, counts for nothing.

    Raises:
        DataError: for a file that can't be read, or is larger inside than a file of its size has any reason to be.
    """
    try:
        return bounded_table(path, path.stat().st_size, columns).to_pandas()
    except BROKEN as error:
        said = f"not a readable Parquet file ({reason(error)})"
        raise DataError(f"{path}: {said}; write it again, or mend its ending") from None


def bounded_table(
    source: Path | pa.Buffer, size: int, columns: Sequence[str] | None = None, most_rows: int = MOST_ROWS
) -> pa.Table:
    """Return columns of a Parquet file of ``size`` bytes as a table without metadata, texts not as codes.

    Raises what ``BROKEN`` lists; ``ValueError`` says what is too large.
    """
    with pq.ParquetFile(_opened(source)) as file:
        schema, metadata = file.schema_arrow, file.metadata
    wanted = _wanted(schema, columns)
    rows, groups = metadata.num_rows, [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if min((group.num_rows for group in groups), default=0) < 0 or rows != sum(group.num_rows for group in groups):
        raise ValueError("its parts hold other numbers of rows than it says")
    if rows > min(most_rows, FREE_ROWS + ROWS_A_BYTE * size):
        raise ValueError(f"it says that it holds {rows:,} rows, too many for {size:,} bytes")
    limit = FREE_BYTES + BYTES_A_BYTE * size
    said = sum(group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns))
    if said > limit:
        raise ValueError(f"it says that its {size:,} bytes unpack to {said:,}")
    texts = [name for name in wanted if _is_text(_values(schema.field(name).type))]
    found, read = 0, {}
    # A text that many rows share is kept once, and a column is read after the other: one page is unpacked at a time.
    with pq.ParquetFile(_opened(source), read_dictionary=texts) as file:
        for name in wanted:
            chunks, kind = [], _values(schema.field(name).type)
            for column in _chunks(file, name):
                found += _size(column)
                if found > limit:
                    raise ValueError(f"its {size:,} bytes unpack to more than {limit:,}")
                chunks.append(_decoded(column).cast(kind))
            if sum(map(len, chunks)) != rows:
                raise ValueError(f"column '{name}' has other numbers of rows than it says")
            read[name] = pa.chunked_array(chunks, type=kind)
    return pa.table(read)


def reason(error: Exception) -> str:
    """Return in a user's words why a Parquet file can't be read, from what ``bounded_table`` raised."""
    return "it is damaged, or of another kind" if isinstance(error, pa.ArrowException) else reason_of(error)


def _opened(source: Path | pa.Buffer) -> Any:
    return pa.BufferReader(source) if isinstance(source, pa.Buffer) else source


def _wanted(schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    names = [field.name for field in schema if _is_plain(_values(field.type)) and not field.name.startswith(_INDEX)]
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


def _size(column: pa.Array) -> int:
    """Return the bytes of a column once each of its rows has its value."""
    if not (isinstance(column, pa.DictionaryArray) and _is_text(column.dictionary.type)):
        return column.nbytes
    lengths = pc.cast(pc.binary_length(column.dictionary), pa.int64())
    return column.dictionary.nbytes + 8 * len(column) + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
