"""Files that lie about their size: Parquet, safetensors, GGUF and config.json; refused, and in little memory and time.

States of saved learners are in tests/learners/test_saved.py, packed text in test_archives.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewrec.data import parquet
from fewrec.data.own import load_own
from fewrec.data.parquet import read_flat
from fewrec.data.weights import find_weights
from fewrec.episodes.frozen.files import read_parquet
from fewrec.episodes.frozen.layout import FileRecord
from fewrec.errors import DataError
from fewrec.report import load_results

ROWS = 12_345  # a number whose bytes stand nowhere else in a footer


def varint(number: int) -> bytes:
    """Return a number as the footer of Parquet has it: zigzag, seven bits a byte."""
    number, out = number << 1, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def with_footer(content: bytes, was: int, now: int, count: int = -1) -> bytes:
    """Return a Parquet file in whose footer a number is another one."""
    length = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - length], content[-8 - length : -8]
    assert varint(was) in footer
    footer = footer.replace(varint(was), varint(now), count)
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def written(table: pa.Table, **options) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table, out, **{"compression": "zstd", "write_statistics": False, **options})
    return out.getvalue().to_pybytes()


def ratings(rows: int = ROWS) -> pa.Table:
    row = np.arange(rows)
    return pa.table({"user": row // 100, "item": row % 100, "rating": row % 5 + 1.0})


def many_rows(groups: int = 4, rows: int = 1 << 24) -> bytes:
    """Return ``groups * rows`` rows of three columns in a few kilobytes."""
    zeros = pa.array(np.zeros(rows, np.int8))
    table = pa.table({"user": zeros, "item": zeros, "rating": zeros})
    out = pa.BufferOutputStream()
    with pq.ParquetWriter(out, table.schema, compression="zstd", write_statistics=False) as writer:
        for _ in range(groups):
            writer.write_table(table, row_group_size=rows)
    return out.getvalue().to_pybytes()


def one_text_for_all(rows: int = 200_000, length: int = 100_000) -> bytes:
    """Return rows that share one long text, 20 GB in all, which a dictionary holds once."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * length])
    row = np.arange(rows)
    return written(pa.table({"user": row // 1000, "item": row % 1000, "rating": row % 5 + 1, "timestamp": texts}))


LIES = {
    "2^31 rows by its footer": lambda: with_footer(written(ratings()), ROWS, 1 << 31, 1),
    "2^31 rows in one part": lambda: with_footer(written(ratings()), ROWS, 1 << 31),
    "2^26 rows in a few kilobytes": many_rows,
    "one text for all rows": one_text_for_all,
}
SAID = {
    "2^31 rows by its footer": "its parts hold other numbers of rows",
    "2^31 rows in one part": "it says that it holds 2,147,483,648 rows, too many for",
    "2^26 rows in a few kilobytes": "it says that it holds 67,108,864 rows, too many for",
    "one text for all rows": "unpack to more than",
}

LIMITED = """
import json, resource, sys, time
import fewrec.data.own, pandas, pyarrow.parquet
from fewrec.errors import DataError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(1.5 * 2**30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
said = {}
for file in sys.argv[1:]:
    start = time.perf_counter()
    try:
        fewrec.data.own.load_own(file)
        said[file] = ["read", 0]
    except DataError as error:
        said[file] = [str(error), time.perf_counter() - start]
print(json.dumps(said))
"""


def test_parquet_that_claims_or_unpacks_to_far_more_is_refused_within_seconds_and_a_gigabyte(tmp_path, child):
    for number, make in enumerate(LIES.values()):
        (tmp_path / f"{number}.parquet").write_bytes(make())
        assert (tmp_path / f"{number}.parquet").stat().st_size < 1_000_000
    done = child(LIMITED, *(f"{number}.parquet" for number in range(len(LIES))))
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    for number, name in enumerate(LIES):
        message, seconds = said[f"{number}.parquet"]
        assert "not a readable Parquet file" in message and SAID[name] in message, (name, message)
        assert "\n" not in message and seconds < 20


def test_parquet_that_hides_what_it_unpacks_to_is_refused_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "FREE_BYTES", 1 << 20)
    table = pa.table({"user": ["a" * 1_000_000] * 60, "item": range(60), "rating": [1.0] * 60})
    honest = written(table, use_dictionary=False)
    unpacked = pq.ParquetFile(pa.BufferReader(honest)).metadata.row_group(0).total_byte_size
    (tmp_path / "honest.parquet").write_bytes(honest)
    (tmp_path / "lying.parquet").write_bytes(with_footer(honest, unpacked, 100))
    with pytest.raises(DataError, match="it says that its .* bytes unpack to 60,"):
        read_flat(tmp_path / "honest.parquet")
    with pytest.raises(DataError, match="its .* bytes unpack to more than"):
        read_flat(tmp_path / "lying.parquet")


FLIPPED = """
import sys
from pathlib import Path
import pandas, pyarrow.parquet
from fewrec.data.parquet import read_flat
from fewrec.errors import DataError
file = Path(sys.argv[1])
content, read = file.read_bytes(), 0
length = int.from_bytes(content[-8:-4], "little")
for at in range(len(content) - 8 - length, len(content) - 8):
    for bit in range(8):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        try:
            read_flat(file)
            read += 1
        except DataError:
            pass
print(read, 8 * length)
"""


def test_no_flipped_bit_of_a_footer_ends_the_process(tmp_path, child):
    table = pa.table({"item": ["i1", None, "i3"], "title": ["a", "b", None]})
    (tmp_path / "items.parquet").write_bytes(written(table))
    done = child(FLIPPED, "items.parquet")
    assert done.returncode == 0, done.stderr[:2000]
    read, flipped = map(int, done.stdout.split())
    assert 0 < read < flipped and flipped > 2_000


def test_parquet_of_the_usual_kinds_is_read_as_before(tmp_path):
    frame = ratings().to_pandas().set_index("user")
    frame["title"] = [f"Title {i}" for i in frame["item"]]
    frame["kind"] = frame["title"].astype("category")
    frame["tags"] = [["a", "b"]] * len(frame)  # not a plain value: left out
    frame.to_parquet(tmp_path / "my.parquet")
    found = read_flat(tmp_path / "my.parquet")
    assert list(found) == ["item", "rating", "title", "kind", "user"] and len(found) == ROWS
    assert (found["kind"] == found["title"]).all() and found["kind"].dtype == found["title"].dtype
    assert len(load_own(tmp_path / "my.parquet").table) == ROWS


def test_frozen_episodes_whose_record_agrees_with_the_lie_are_refused(tmp_path):
    file, content = tmp_path / "meta_train.parquet", many_rows()
    file.write_bytes(content)
    schema = pa.schema([(name, pa.int8()) for name in ("user", "item", "rating")])
    record = FileRecord(sha256=hashlib.sha256(content).hexdigest(), rows=1 << 26)
    with pytest.raises(DataError, match=r"meta_train.parquet: not a readable Parquet file \(it says that it holds"):
        read_parquet(file, record, schema)


def test_score_rows_that_claim_far_more_are_refused(small_run, tmp_path):
    from fewrec.report import export_reference

    export_reference(small_run.path, tmp_path / "reference")
    file = tmp_path / "reference" / "scores.parquet"
    file.write_bytes(many_rows())
    with pytest.raises(DataError, match="scores.parquet: can't be read .it says that it holds 67,108,864 rows"):
        load_results(tmp_path / "reference")


# model weights


def safetensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BROKEN = {
    "a header of 2^63 bytes": safetensors({}, length=1 << 63),
    "a header longer than the file": safetensors({}, length=1000),
    "offsets behind the file's end": safetensors({"a": tensor(0, 1 << 40, [1 << 38])}, bytes(8)),
    "offsets that overlap": safetensors({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)),
    "offsets that go backwards": safetensors({"a": tensor(8, 0, [2])}, bytes(8)),
    "a shape that its bytes don't have": safetensors({"a": tensor(0, 8, [1 << 31, 1 << 31])}, bytes(8)),
    "a shape that overflows": safetensors({"a": tensor(0, 0, [1 << 62, 1 << 62])}),
    "an unknown type": safetensors({"a": tensor(0, 8, [1], "OBJECT")}, bytes(8)),
    "no JSON": safetensors(b"\x80\x04\x95pickled"),
    "a list": safetensors(b"[]"),
    "nesting without end": safetensors(b"[" * 200_000),
    "nothing": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_weights_whose_safetensors_lie_are_one_line(content, tiny_bert, tmp_path):
    from fewrec.learners.text.backbone import load_backbone

    shutil.copytree(tiny_bert, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path / 'model'}: ") as caught:
        load_backbone(str(tmp_path / "model"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_hidden_layers", 10**7, "num_hidden_layers = 10000000, and the weights hold"),
        ("vocab_size", 1 << 40, "a table of 1,099,511,627,776 x 48 numbers"),
        ("hidden_size", 1 << 20, "a table of 1,048,576 x 1,048,576 numbers"),
        ("intermediate_size", 1 << 30, "a table of 1,073,741,824 x"),
    ],
)
def test_a_configuration_that_describes_a_far_larger_model_is_refused_at_once(field, value, said, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {field: value}))
    with pytest.raises(DataError, match=said):
        find_weights(tmp_path / "model")
    file.write_text(json.dumps({"text_config": config | {field: value}}))  # of a model within a model
    with pytest.raises(DataError, match=said):
        find_weights(tmp_path / "model")
    file.write_text(json.dumps(config))
    assert find_weights(tmp_path / "model").folder == tmp_path / "model"


@pytest.mark.parametrize("config", [b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": "' + b"x" * (1 << 24) + b'"}'])
def test_a_configuration_that_is_none_is_one_line(config, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_bytes(config)
    with pytest.raises(DataError, match="config.json") as caught:
        find_weights(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("tensors", "values"), [(1 << 62, 0), (0, 1 << 62), (1, 1), (1 << 62, 1 << 62)])
def test_a_gguf_file_that_claims_far_more_is_one_line(tensors, values, tmp_path):
    pytest.importorskip("gguf", reason="GGUF needs: pip install 'fewrec[lm]'")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + struct.pack("<Q", 1 << 62) + bytes(1000))
    with pytest.raises(DataError, match="transformers can't read this GGUF file") as caught:
        find_weights(file, cache=tmp_path / "cache", notify=lambda line: None)
    assert "\n" not in str(caught.value)
    assert not [path for path in Path(tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
