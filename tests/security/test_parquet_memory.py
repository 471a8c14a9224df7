"""What reading somebody else's Parquet takes of memory, with all that is made of its rows, and what is still read."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fewrec.data import parquet
from fewrec.data.own import load_own
from fewrec.data.readers import delimited
from fewrec.errors import DataError
from tests.security.test_sizes import ROWS, ratings, written

PEAK = """
import json, sys
from pathlib import Path
from fewrec.data.own import load_own
from fewrec.errors import DataError

def now(what):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(what)) << 10

Path("small.csv").write_text("user,item,rating\\n1,1,5\\n2,2,4\\n")
load_own("small.csv", users="small.parquet", items="small.parquet")  # what is imported first counts for no file
said = {}
for file in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = now("VmRSS")
    try:
        load_own(file) if sys.argv[1] == "ratings" else load_own("small.csv", **{sys.argv[1]: file})
        found = "read"
    except DataError as error:
        found = str(error)
    said[file] = [found, now("VmHWM") - before]
print(json.dumps(said))
"""


def counted(rows: int, **columns) -> bytes:
    """Return rows of which each is another user, item and rating, packed to less than a byte a row."""
    row = np.arange(rows)
    table = pa.table({"user": row, "item": row, "rating": row % 5 + 1.0} | columns)
    packed = {pa.int64(): "DELTA_BINARY_PACKED", pa.float64(): "BYTE_STREAM_SPLIT"}
    encodings = {field.name: packed[field.type] for field in table.schema if field.type in packed}
    return written(table, use_dictionary=False, column_encoding=encodings)


def columns_of(kind: str, rows: int) -> dict[str, pa.Array | np.ndarray]:
    row = np.arange(rows)
    texts = pa.array(row).cast(pa.string())
    return {
        "numbers": {"timestamp": row},
        "texts": {"user": pc.binary_join_element_wise("u", texts, ""), "item": texts},
        "reals": {"user": row + 0.5, "item": row + 0.5},
        "decimals": {
            "user": pa.array(row).cast(pa.decimal128(38, 10)),
            "rating": pa.array(row % 5).cast(pa.decimal128(38, 10)),
        },
        "dates": {"timestamp": pa.array(np.full(rows, "2005-03-31T10:00:00Z"))},
        "titles": {"title": texts, "year": row, "genres": texts, "description": row + 0.5},
        "features": {"age": row, "job": texts, "town": texts, "height": row + 0.5},
    }[kind]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured by Linux")
@pytest.mark.parametrize(
    ("role", "kind"),
    [
        *(("ratings", kind) for kind in ("numbers", "texts", "reals", "decimals", "dates")),
        ("items", "titles"),
        ("users", "features"),
    ],
)
def test_what_reading_parquet_takes_stays_below_what_is_said(tmp_path, child, role, kind):
    """Peaks of memory with all that is made of the rows, for the most rows that are read and for those refused."""
    small = {"title": ["A", "B"], "age": [1, 2]}
    (tmp_path / "small.parquet").write_bytes(counted(2, **small))
    sizes = [120_000 * 2**i for i in range(4)]  # a smaller one first: what it leaves is used again
    for rows in sizes:
        (tmp_path / f"{rows}.parquet").write_bytes(counted(rows, **columns_of(kind, rows)))
    done = child(PEAK, role, *(f"{rows}.parquet" for rows in sizes))
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    for file, (found, peak) in said.items():
        limit = parquet.FREE_BYTES + parquet.BYTES_A_BYTE * (tmp_path / file).stat().st_size
        assert peak < limit + (16 << 20), (file, found)  # of allocators and what the first use of a path loads
    assert "not a readable" not in said[f"{sizes[0]}.parquet"][0]


def test_four_million_equal_rows_in_some_kilobytes_are_refused_by_what_reading_them_takes(tmp_path):
    rows = 4_000_000
    equal = {name: np.ones(rows, np.int64) for name in ("user", "item", "timestamp")}
    content = written(pa.table({**equal, "rating": np.full(rows, 3.0)}))
    (tmp_path / "equal.parquet").write_bytes(content)
    assert len(content) < 100_000
    with pytest.raises(DataError, match="it says that it holds 4,000,000 rows, too many for"):
        load_own(tmp_path / "equal.parquet")
    with pytest.raises(DataError, match="it says that it holds 4,000,000 rows, too many for"):
        delimited.read_parquet(tmp_path / "equal.parquet")


def test_two_million_ratings_of_a_byte_each_are_read_whatever_is_beside_them(tmp_path):
    """As densely packed as ratings come: users and items in order, no time; and texts that nobody needs."""
    random, row = np.random.default_rng(0), np.arange(2_000_000)
    item = row % 100 * 2 + random.integers(0, 2, len(row))
    columns = {"user": row // 100, "item": item, "rating": random.integers(1, 6, len(row)).astype(float)}
    (tmp_path / "dense.parquet").write_bytes(written(pa.table(columns)))
    assert (tmp_path / "dense.parquet").stat().st_size < 1.2 * len(row)
    assert len(load_own(tmp_path / "dense.parquet").table) == len(row)
    text = pa.DictionaryArray.from_arrays(np.zeros(ROWS, np.int32), ["x" * 100_000])
    (tmp_path / "beside.parquet").write_bytes(written(ratings().append_column("review", text)))
    assert len(load_own(tmp_path / "beside.parquet").table) == ROWS


def test_one_long_id_does_not_give_every_id_its_room(tmp_path):
    """20,000 ids, one of them of 70,000 characters: NumPy's texts would take 5.6 GB."""
    (tmp_path / "ratings.csv").write_text("user,item,rating\n1,1,5\n2,2,4\n")
    ids = ["x" * 70_000, *map(str, range(20_000))]
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"{one},T{one[:5]}\n" for one in ids))
    (tmp_path / "users.csv").write_text("user,age\n" + "".join(f"{one},20\n" for one in ids))
    tracemalloc.start()
    found = load_own(tmp_path / "ratings.csv", items=tmp_path / "items.csv", users=tmp_path / "users.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.catalog.text["title"].tolist() == ["T1", "T2"] and found.user_features["age"].tolist() == [20, 20]
    assert peak < 200 << 20
