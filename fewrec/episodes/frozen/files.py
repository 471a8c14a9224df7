"""Reading and writing the files of frozen episodes: the same bytes each time, nothing believed unchecked.

A file is read once: its bytes are hashed, its size is compared with its record, and only then are its columns decoded.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from fewrec.data.parquet import BROKEN, bounded_table
from fewrec.episodes.frozen.layout import FORMAT, FileRecord
from fewrec.errors import DataError, reason_of
from fewrec.validation import first_problem

Record = TypeVar("Record", bound=BaseModel)
_LARGEST_JSON = 1 << 26


def write_parquet(path: Path, columns: dict[str, Any], schema: pa.Schema) -> FileRecord:
    """Write columns, (n,) arrays or sequences by name, as ``schema`` has them; return the file's record."""
    table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    pq.write_table(table, path, compression="zstd")
    return FileRecord(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), rows=table.num_rows)


def write_json(path: Path, value: BaseModel) -> str:
    """Write a record as JSON with sorted keys; return the file's SHA-256."""
    text = json.dumps(value.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n"
    path.write_bytes(text.encode())
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path, model: type[Record], sha256: str | None = None) -> Record:
    """Return the record in a JSON file; raise ``DataError`` where it is missing, changed, broken or of another version.

    ``sha256``: what the file's SHA-256 must be, where another file says it.
    """
    content = _bytes(path, _LARGEST_JSON)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path}: its SHA-256 is not the recorded one; export the episodes again")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({reason_of(error)}); export the episodes again") from None
    found = value.get("format") if isinstance(value, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise DataError(f"{path}: not a record of frozen episodes; export the episodes again")
    if found != FORMAT:
        raise DataError(f"{path}: written in format {found}, this fewrec reads format {FORMAT}; export it again")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise DataError(f"{path}: broken ({_first_line(first_problem(error))}); export the episodes again") from None


def read_parquet(path: Path, record: FileRecord, schema: pa.Schema) -> dict[str, Any]:
    """Return the columns of a Parquet file as NumPy arrays (n,), texts as lists; each is as ``schema`` says.

    Raises ``DataError`` where the file is missing, differs from its record in checksum or rows, or where a column is
    missing, unknown, of another type, or has empty places.
    """
    content = _bytes(path)
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise DataError(f"{path}: its SHA-256 is not the recorded one; export the episodes again")
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        check_columns(path, file.schema_arrow, schema)
        if file.metadata.num_rows != record.rows:
            raise DataError(
                f"{path}: it says that it holds {file.metadata.num_rows:,} rows, its record {record.rows:,}"
            )
        table = bounded_table(pa.py_buffer(content), len(content), schema.names)
    except BROKEN as error:
        raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None
    if table.num_rows != record.rows:
        raise DataError(f"{path}: it holds {table.num_rows:,} rows, its record says {record.rows:,}")
    columns = {}
    for field in schema:
        column = table.column(field.name)
        if column.null_count:
            raise DataError(f"{path}: column '{field.name}' has {column.null_count:,} empty places")
        try:
            columns[field.name] = column.to_pylist() if pa.types.is_string(field.type) else column.to_numpy()
        except UnicodeDecodeError:
            raise DataError(f"{path}: column '{field.name}' is not UTF-8") from None
    return columns


def check_columns(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    """Raise ``DataError`` naming the first column that is unknown, missing or of another type."""
    for name in found.names:
        if name not in wanted.names:
            answers = " (a query must not hold its answers)" if name == "rating" else ""
            raise DataError(f"{path}: column '{_first_line(name)}' doesn't belong there{answers}")
    for field in wanted:
        if found.names.count(field.name) != 1:
            said = "missing" if field.name not in found.names else "there twice"
            raise DataError(f"{path}: column '{field.name}' is {said}")
        if found.field(field.name).type != field.type:
            actual = found.field(field.name).type
            raise DataError(f"{path}: column '{field.name}' is {actual}, it must be {field.type}")


def _bytes(path: Path, limit: int | None = None) -> bytes:
    try:
        if limit is not None and path.stat().st_size > limit:
            raise DataError(f"{path}: larger than {limit >> 20} MB, which no record of frozen episodes is")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from None


def _first_line(said: Any) -> str:
    """Return the first line of what an error says, without characters that a terminal would obey."""
    lines = str(said).strip().splitlines()
    return "".join(c if c.isprintable() else " " for c in lines[0])[:200] if lines else type(said).__name__
