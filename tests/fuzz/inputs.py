"""Strategies that make inputs: valid files with a few changes that a person, a disk or an enemy makes, or noise."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.fuzz.harness import Files

Piece = Callable[[Random], bytes]
Inside = Callable[[Random, str, bytes], bytes | None]

ODD = tuple(word.encode("utf-8", "surrogatepass") for word in (
    "", " ", "0", "-1", "1", "7", "07", "1.5", "-0.0", "1e5", "1e308", "-1e309", "1e-320", "NaN", "nan", "inf",
    "-Infinity",
    "9" * 19, "9223372036854775808", "-9223372036854775809", "4294967296", "9" * 30, "1" * 5000, "1_000", "0x10", "+3",
    "1,5", "٣", "½", "NA", "null", "None", "true", "True", "\x00", "\x1b[31m\x07", "\u202e", "\ufeff", "\ud800",
    "\u2028",
    "\x85", "\x1c", "é", "🎬", "'", '"', '""', '"""', "\\", '\\"', ",", ";", "|", "::", ":", "\t", "\t\t", "\r",
    "\n", "\r\n",
    "\n\n", "\n \n", "=1+1", "{", "}", "{}", "[]", "[", "]", "{title!r}", "{title:>9999999}", "{0}", "%s", "#",
    "../../x",
    "/etc/passwd", "C:\\x", "CON", "a" * 300, "x" * 70_000, "[" * 3000, "(" * 300, "-" * 3000, "1979-05-27T07:32:00Z",
    "2005-03-31", "99999-01-01", "0001-01-01", "1e400", "<b>", "&#0;", "&#x110000;", "&amp;" * 9, "(1995)", "rest",
    "user", "item",
    "rating", "timestamp", "title",
))  # fmt: skip
_RANGES = ((32, 126), (32, 126), (0, 31), (128, 591), (0x600, 0x6FF), (0x2000, 0x206F), (0x4E00, 0x4E7F), (0xD800,
0xDFFF),
           (0x1F600, 0x1F64F))  # fmt: skip


def whole(r: Random) -> int:
    """Return a whole number, most often a small one."""
    return r.choice((r.randint(-3, 12), r.randint(-(2**16), 2**16), r.randint(-(2**65), 2**65)))


def real(r: Random) -> float:
    """Return a float, any of them."""
    return r.choice((r.uniform(-10, 10), round(r.uniform(-1, 6), 1), struct.unpack("d", r.randbytes(8))[0]))


def text(r: Random, most: int = 12) -> str:
    """Return text of any script, control characters and lone surrogates included."""
    low, high = r.choice(_RANGES)
    return "".join(chr(r.randint(low, high)) for _ in range(r.randint(0, most)))


def piece(r: Random) -> bytes:
    """Return what may stand in the place of a word."""
    how = r.randint(0, 4)
    if how < 2:
        return r.choice(ODD)
    if how == 2:
        return str(whole(r) if r.random() < 0.6 else real(r)).encode()
    return text(r).encode("utf-8", "surrogatepass") if how == 3 else r.randbytes(r.randint(0, 12))


_WORD = re.compile(rb"[^,;\t:|\"'\n\r =\[\]{}()]+")


def _byte(r: Random, content: bytes, tokens: Piece) -> bytes:
    at = r.randint(0, max(0, len(content) - 1))
    return content[:at] + bytes([r.randint(0, 255)]) + content[at + 1 :]


def _insert(r: Random, content: bytes, tokens: Piece) -> bytes:
    at = r.randint(0, len(content))
    return content[:at] + tokens(r) + content[at:]


def _cut(r: Random, content: bytes, tokens: Piece) -> bytes:
    at = r.randint(0, len(content))
    return content[:at] + content[at + r.randint(1, 40) :]


def _end_early(r: Random, content: bytes, tokens: Piece) -> bytes:
    return content[: r.randint(0, len(content))]


def _word(r: Random, content: bytes, tokens: Piece) -> bytes:
    words = list(_WORD.finditer(content))
    if not words:
        return content + tokens(r)
    at = words[r.randint(0, len(words) - 1)]
    return content[: at.start()] + tokens(r) + content[at.end() :]


def _word_of_the_file(r: Random, content: bytes, tokens: Piece) -> bytes:
    words = list(_WORD.finditer(content))
    if len(words) < 2:
        return content
    at, other = (words[r.randint(0, len(words) - 1)] for _ in range(2))
    return content[: at.start()] + other[0] + content[at.end() :]


def _lines(r: Random, content: bytes, tokens: Piece) -> bytes:
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at, other = (r.randint(0, len(lines) - 1) for _ in range(2))
    how = r.choice(["delete", "twice", "swap", "many", "move", "blank", "odd"])
    if how == "delete":
        del lines[at]
    elif how == "twice":
        lines.insert(at, lines[at])
    elif how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "many":
        lines[at:at] = [lines[at]] * r.randint(2, 300)
    elif how == "move":
        lines.insert(other, lines.pop(at))
    else:
        lines.insert(at, b"\n" if how == "blank" else tokens(r) + b"\n")
    return b"".join(lines)


def _encoding(r: Random, content: bytes, tokens: Piece) -> bytes:
    as_text = content.decode("latin-1")
    how = r.choice(["utf-16", "utf-16-le", "utf-32", "utf-8", "utf-8-sig", "cp037", "cr", "crlf", "gzip", "nul"])
    if how == "gzip":
        return gzip.compress(content, mtime=0)
    if how in ("cr", "crlf"):
        return content.replace(b"\n", b"\r" if how == "cr" else b"\r\n")
    if how == "nul":
        return content + b"\0" * r.randint(1, 4096)
    return as_text.encode(how)


def _all_new(r: Random, content: bytes, tokens: Piece) -> bytes:
    how = r.randint(0, 2)
    return (
        r.randbytes(r.randint(0, 200))
        if how == 0
        else b"".join(tokens(r) for _ in range(1 if how == 1 else r.randint(0, 12)))
    )


_CHANGES = (
    _byte,
    _insert,
    _cut,
    _end_early,
    _word,
    _word,
    _word,
    _word_of_the_file,
    _lines,
    _lines,
    _encoding,
    _all_new,
)


def changed(r: Random, content: bytes, tokens: Piece = piece, changes: Sequence[Any] = _CHANGES) -> bytes:
    """Return content with one change."""
    return r.choice(changes)(r, content, tokens)


def folders(
    seeds: Sequence[Files], tokens: Sequence[bytes] = (), inside: Inside | None = None, lose: bool = True
) -> Any:
    """Return a strategy: one of ``seeds``, whole folders of valid files, with one to four changes.

    ``tokens`` are words of the format. ``inside`` (random, name, content) -> content or None changes what is packed, so
    that most changes reach what is behind a decompressor or a checksum. ``lose``: a file may be missing. Hypothesis
    draws a seed and the number of changes: drawing each change by a strategy takes longer than reading the file.
    """

    def one(seed: int, changes: int) -> Files:
        r = Random(seed)
        files = dict(r.choice(seeds))
        for _ in range(changes):
            change_folder(r, files, tokens, inside, lose)
        return files

    return st.builds(one, st.integers(0, 2**64 - 1), st.integers(1, 4))


def change_folder(
    r: Random, files: dict[str, bytes], tokens: Sequence[bytes], inside: Inside | None, lose: bool
) -> None:
    """Change one of the files, in place."""

    def word(r: Random) -> bytes:
        return r.choice(tokens) if tokens and r.random() < 0.35 else piece(r)

    name = r.choice(sorted(files) or ["nothing/"])
    if name.endswith("/"):
        return
    if lose and r.randint(0, 60) == 60:
        del files[name]
        if r.random() < 0.5 or not files:
            files[f"{name}/"] = b""
        return
    new = inside(r, name, files[name]) if inside is not None and r.randint(0, 5) else None
    if new is None and name.endswith(".gz") and r.randint(0, 5):
        new = gzip.compress(changed(r, _unpacked(files[name]), word), 1, mtime=0)
    files[name] = changed(r, files[name], word) if new is None else new


def _unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, ValueError):
        return content
    except Exception:  # zlib.error
        return content


# JSON

_ODD_VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 5, 1.5, -0.0, 2**31, 2**31 - 1, 2**40, 2**63 - 1, 2**63, -(2**63) - 1,
    10**30, 10**400, 1e308,
    float("nan"), float("inf"), float("-inf"), "", " ", "x", "1", "rest", "nan", "\x00", "\x1b[2J", "\u202e",
    "\ud800", "\u2028",
    "../../x", "/etc/passwd", "a\nb", "é🎬", "x" * 70_000, "0" * 64, [], {}, [[]], [None], [1, 2, 3], {"x": 1},
    {"": None}, [1e308] * 3,
    ["a", "b"], {"\ud800": "\x1b"},
)  # fmt: skip


def odd_value(r: Random) -> Any:
    """Return what may stand in the place of a JSON value."""
    return r.choice((r.choice(_ODD_VALUES), r.choice(_ODD_VALUES), whole(r), real(r), text(r, 8)))


def _places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Return the path of every value in a tree of JSON, those of long lists by their first few."""
    out = [path] if path else []
    if isinstance(tree, dict):
        for key, value in tree.items():
            out += _places(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree[:6]):
            out += _places(value, (*path, i))
    return out


def changed_tree(r: Random, tree: Any, values: Callable[[Random], Any] = odd_value) -> Any:
    """Return a copy of a JSON value with one part changed: another value, lost, renamed, wrapped or made large."""
    tree = json.loads(json.dumps(tree))
    places = _places(tree)
    if not places or r.randint(0, 40) == 40:
        return values(r)
    *path, last = places[r.randint(0, len(places) - 1)]
    parent = tree
    for key in path:
        parent = parent[key]
    how = r.choice(["value", "value", "value", "value", "lose", "rename", "wrap", "more", "other", "unwrap"])
    if how == "value":
        parent[last] = values(r)
    elif how == "lose":
        del parent[last]
    elif how == "wrap":
        parent[last] = [parent[last]] if r.random() < 0.5 else {"x": parent[last]}
    elif how == "unwrap":
        inner = parent[last]
        children = list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, list) else []
        parent[last] = children[0] if children else values(r)
    elif how == "other":
        *way, at = places[r.randint(0, len(places) - 1)]
        found = tree
        for key in (*way, at):
            found = found[key]
        parent[last] = json.loads(json.dumps(found))
    elif isinstance(parent, dict):
        if how == "rename":
            parent[r.choice([text(r, 6), "x", last.upper(), f"{last} "])] = parent.pop(last)
        else:
            parent[text(r, 8)] = values(r)
    else:
        parent.insert(last, values(r))
    return tree


def as_json(r: Random, tree: Any) -> bytes:
    """Return JSON, now and then with what its grammar has no words for: a key twice, depth, digits without end."""
    written = json.dumps(tree)
    how = r.randint(0, 30)
    if how == 30:
        return b'{"a":' * 2000 + written.encode() + b"}" * 2000
    if how == 29:
        return b"[" * 100_000
    if how == 28:
        return written.replace("1", "1" * 4400, 1).encode()
    if how == 27:
        return written.replace("{", '{"schema":2,"schema":1,', 1).encode()
    return written.encode()


def inside_json(r: Random, name: str, content: bytes) -> bytes | None:
    """Change a file of JSON as the tree that it is; None for other files."""
    if not name.endswith(".json"):
        return None
    try:
        return as_json(r, changed_tree(r, json.loads(content)))
    except (ValueError, RecursionError):
        return None


# Parquet

_TYPES: tuple[pa.DataType, ...] = (
    pa.string(), pa.large_string(), pa.binary(), pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.int32(),
    pa.uint32(), pa.int64(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(38, 10), pa.decimal256(60, 2),
    pa.timestamp("ns"),
    pa.timestamp("s", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.date32(), pa.date64(), pa.time64("us"),
    pa.duration("s"),
    pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()),
    pa.dictionary(pa.int32(), pa.string()),
    pa.null(), pa.binary(4), pa.list_(pa.float32(), 2),
)  # fmt: skip
_CELLS = [None, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 1e308, float("nan"), float("inf"), -0.0, 0.5, "", "x", "7",
"\x00\x1b"]  # fmt: skip


def _cell(r: Random) -> Any:
    return r.choice((r.choice(_CELLS), r.choice(_CELLS), whole(r), real(r), text(r, 6)))


def changed_table(r: Random, table: pa.Table) -> pa.Table:
    """Return a table with one change: a cell, a column's type or name, rows or columns lost, doubled, added."""
    how = r.choice(["cell", "cell", "cell", "type", "lose", "rename", "twice", "add", "rows", "empty", "many", "swap"])
    if table.num_columns == 0:
        return pa.table({"x": [1]})
    i = r.randint(0, table.num_columns - 1)
    name, column = table.field(i).name, table.column(i)
    if how == "cell" and table.num_rows:
        values, row = column.to_pylist(), r.randint(0, table.num_rows - 1)
        values[row] = _cell(r)
        new = _array(values, column.type)
        return table.set_column(i, name, new)
    if how == "type":
        return table.set_column(i, name, _array(column.to_pylist(), r.choice(_TYPES)))
    if how == "lose":
        return table.remove_column(i)
    if how == "rename":
        new_name = r.choice(["", "x", name.upper(), "rating", "user", "item", "\x1b[2J", "a\nb", "index", "x" * 3000])
        return table.set_column(i, new_name, column)
    if how == "twice":
        return table.append_column(name, column)
    if how == "add":
        return table.append_column(r.choice(["x", "rating", "__index_level_0__", "extra"]), column)
    if how == "rows" and table.num_rows:
        rows = [r.randint(0, table.num_rows - 1) for _ in range(r.randint(0, 2 * table.num_rows))]
        return table.take(pa.array(rows, pa.int64()))
    if how == "many":
        return pa.concat_tables([table] * r.randint(2, 50)).slice(0, 2_000)
    if how == "swap":
        return table.select(r.sample(range(table.num_columns), table.num_columns))
    return table.slice(0, r.randint(0, 1))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return an array of the type if the values go into it, else one of what they are."""
    for convert in (
        lambda v: v,
        lambda v: None if v is None else str(v),
        lambda v: None if v is None else [1],
        lambda v: None,
    ):
        try:
            return pa.array([convert(value) for value in values], kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
            continue
    return pa.array([str(value) for value in values])


_PANDAS = (
    "{", "[]", '{"index_columns": ["nowhere"], "columns": []}',
    '{"index_columns": [{"kind": "range", "start": 0, "stop": 99999999999, "step": 1, "name": "i"}], "columns": []}',
    '{"index_columns": [], "columns": [{"name": "user", "field_name": "user", "pandas_type": "categorical", '
    '"numpy_type": "int8", "metadata": {"num_categories": 5, "ordered": false}}], "column_indexes": [{"name": null, '
    '"pandas_type": "datetime", "numpy_type": "x", "metadata": null}]}',
)  # fmt: skip
_METADATA: list[dict[bytes, bytes] | None] = [
    None, None, None, None, {b"ARROW:schema": b"AAAA"}, *({b"pandas": text.encode()} for text in _PANDAS),
]  # fmt: skip


def as_parquet(r: Random, table: pa.Table) -> bytes:
    """Return a table as Parquet in one of the ways to write it, what pandas would note about it included."""
    metadata = r.choice(_METADATA)
    out = pa.BufferOutputStream()
    table = table.replace_schema_metadata(metadata)
    compression = r.choice(["zstd", "snappy", "none", "gzip"])
    try:
        pq.write_table(table, out, compression=compression, row_group_size=r.choice([1 << 20, 3]))
    except (pa.ArrowException, ValueError, OverflowError):
        return plain_parquet(pa.table({"x": [1]}))
    return out.getvalue().to_pybytes()


def plain_parquet(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue().to_pybytes()


def read_back(content: bytes) -> pa.Table | None:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        return file.read() if file.metadata.num_rows <= 10_000 else None  # more is a lie, which stays as it is
    except Exception:  # bytes that an earlier change broke
        return None


def inside_parquet(r: Random, name: str, content: bytes) -> bytes | None:
    """Change a Parquet file as the table that it is; None for other files."""
    if not name.endswith((".parquet", ".pq")) or (table := read_back(content)) is None:
        return None
    if r.randint(0, 60) == 60 and table.num_rows and table.num_columns:
        return large_parquet(r, table)
    for _ in range(r.randint(1, 3)):
        try:
            table = changed_table(r, table)
        except (OverflowError, ValueError, TypeError, pa.ArrowException):  # cells that Python can't hold
            break
    return as_parquet(r, table)


_COUNTED = {pa.int64(): "DELTA_BINARY_PACKED", pa.float64(): "BYTE_STREAM_SPLIT"}  # the encodings that pack 0, 1, 2 ...


def large_parquet(r: Random, table: pa.Table) -> bytes:
    """Return a small file of very many rows: the first one again and again, in every other file with counted ids."""
    rows, counted = r.choice((250_000, 500_000, 750_000, 1_000_000, 4_000_000)), r.random() < 0.5
    out, part = pa.BufferOutputStream(), 250_000
    try:
        wide = table.slice(0, 1).take(pa.array(np.zeros(part, np.int64)))
        encodings = {f.name: _COUNTED[f.type] for f in wide.schema if counted and f.type in _COUNTED}
        options = {"use_dictionary": False, "column_encoding": encodings} if encodings else {}
        with pq.ParquetWriter(out, table.schema, compression="zstd", **options) as writer:
            for start in range(0, rows, part):
                for i, field in enumerate(wide.schema):
                    if field.name in encodings:
                        count = np.arange(start, start + part)
                        wide = wide.set_column(
                            i, field, pa.array(count % 5 if "rating" in field.name else count, field.type)
                        )
                writer.write_table(wide)
        return out.getvalue().to_pybytes()
    except (pa.ArrowException, OSError, ValueError, OverflowError):  # OSError: an encoding that the column can't have
        return plain_parquet(table.slice(0, 0))


def inside_known(r: Random, name: str, content: bytes) -> bytes | None:
    """Change JSON as a tree and Parquet as a table."""
    found = inside_json(r, name, content)
    return inside_parquet(r, name, content) if found is None else found
