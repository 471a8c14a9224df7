"""Parquet read within bounds: a file of a kilobyte can say that it holds a billion values, and be right.

Runs of equal values take no room in a file, so its size alone bounds nothing. What is refused here is far beyond what
ratings, texts and scores can be packed into.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LEAST_VALUES, VALUES_A_BYTE = 4 << 20, 64
LEAST_TEXT, TEXT_A_BYTE = 64 << 20, 100  # bytes of text, unpacked


def read_bounded(source: Path | bytes, columns: Sequence[str] | None = None, flat: bool = False) -> pa.Table:
    """Return the table of a Parquet file, or of its ``columns``; ``flat``: without columns of lists and structs.

    Raises ``pa.ArrowException``, ``OSError`` or ``ValueError`` for what is no readable Parquet, and ``pa.ArrowInvalid``
    for a file of far more values, or of far more text, than its size explains.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    with pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source) as file:
        schema = file.schema_arrow
        wanted = list(schema.names if columns is None else columns)
        if flat:
            wanted = [name for name in wanted if not pa.types.is_nested(schema.field(schema.names.index(name)).type)]
        _check_values(file.metadata, size)
    texts = [name for name in wanted if schema.names.count(name) == 1 and _is_text(schema.field(name).type)]
    # Texts come as codes and a dictionary, so that their size is known before each is written out.
    again = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(again, read_dictionary=texts) as file:
        table = file.read(None if not flat and columns is None else wanted)
    _check_text(table, size)
    for name in texts:
        place = table.column_names.index(name)
        table = table.set_column(place, schema.field(name), table.column(place).cast(schema.field(name).type))
    return table


def _check_values(metadata: pq.FileMetaData, size: int) -> None:
    values = sum(
        metadata.row_group(group).column(column).num_values
        for group in range(metadata.num_row_groups)
        for column in range(metadata.row_group(group).num_columns)
    )
    values = max(values, metadata.num_rows * (metadata.num_columns > 0))
    if values > LEAST_VALUES + VALUES_A_BYTE * size:
        raise pa.ArrowInvalid(f"it says that it holds {values:,} values in {size:,} bytes")


def _check_text(table: pa.Table, size: int) -> None:
    total = 0
    for column in table.columns:
        if pa.types.is_fixed_size_binary(column.type):
            total += column.type.byte_width * len(column)
        for chunk in column.chunks:
            if isinstance(chunk, pa.DictionaryArray) and _is_text(chunk.type.value_type):
                total += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
    if total > LEAST_TEXT + TEXT_A_BYTE * size:
        raise pa.ArrowInvalid(f"it unpacks to {total:,} bytes of text from {size:,} bytes")


def _is_text(kind: pa.DataType) -> bool:
    of_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(check(kind) for check in of_text)
