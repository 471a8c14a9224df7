"""Why blocks have a SHA-256 each: how many flipped bits of a Parquet file its own page checksums let through.

``PYTHONPATH=benchmarks python -m faults.page_checksums`` prints the counts that docs/faults.md has.
"""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FLIPS = 4_000


def count(rows: int = 500, flips: int = FLIPS, seed: int = 0) -> tuple[int, Counter[str]]:
    """Return the bytes of a file of score rows, and how often a flipped bit was refused, harmless or believed.

    Believed flips, other values without a word, are counted by where they are: ``believed, footer`` or ``, pages``.
    """
    rng = np.random.default_rng(seed)
    user, episode = rng.integers(0, 1200, rows), np.repeat(np.arange(rows // 5), 5)
    table = pa.table({"episode": episode, "user": user, "se": rng.random(rows), "auc": rng.random(rows)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    content = buffer.getvalue()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    found: Counter[str] = Counter()
    for place in rng.choice(len(content), min(flips, len(content)), replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            read = pq.read_table(pa.BufferReader(bytes(changed)), page_checksum_verification=True)
        except Exception:  # Arrow's readers end in many kinds of error
            found["refused"] += 1
            continue
        believed = "believed, footer" if place >= footer else "believed, pages"
        found["harmless" if read.equals(table) else believed] += 1
    return len(content), found


if __name__ == "__main__":
    size, found = count()
    print(f"{size:,} bytes, pyarrow {pa.__version__}: {dict(found)}")
