"""What a case is: what somebody did, with which files, and the message that it gets; and how files are made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

Content = str | bytes | None | Callable[[bytes], str | bytes]


@dataclass(frozen=True)
class Case:
    """A bad input and its message.

    ``did`` says it in words. ``given`` is a command (``run own.toml --shots few``: what stands behind ``fewrec``) or a
    call in Python (``fewrec.run("own.toml", shots=["few"])``). ``message`` is the whole line that comes of it, without
    ``error: `` before it; "…" stands for what depends on the machine, a library's version or a hash. ``files`` are
    written beforehand into the folder that the command runs in: a path (a pattern with ``*`` is one file that is
    there), and its content, a function of the present content, or None to remove it; a path that ends in ``/`` is a
    folder. ``needs`` names what must be there, of ``world.py``. ``env`` are environment variables. ``lacks`` is a package
    that isn't installed, ``has`` one that is (elsewhere the case is skipped). ``code`` is the exit code.
    """

    did: str
    given: str
    message: str
    files: Mapping[str, Content] = field(default_factory=dict)
    needs: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    lacks: str = ""
    has: str = ""
    code: int = 2

    @property
    def is_call(self) -> bool:
        return "(" in self.given.split(" ")[0]


def ratings(*rows: str, head: str = "user,item,rating") -> str:
    """Return a CSV file of these rows behind two good ones."""
    return "\n".join([head, "1,1,3", "1,2,4", *rows, ""])


def parquet(**columns: Any) -> bytes:
    """Return a Parquet file with these columns."""
    out = io.BytesIO()
    pd.DataFrame(columns).to_parquet(out, index=False)
    return out.getvalue()


def packed(text: str) -> bytes:
    """Return a text as gzip, the same bytes each time."""
    return gzip.compress(text.encode(), mtime=0)


def replaced(old: str, new: str) -> Callable[[bytes], str]:
    """Return what replaces a part of a text file that is there; the part has to be in it."""

    def change(content: bytes) -> str:
        text = content.decode()
        assert old in text, f"'{old}' is not in the file"
        return text.replace(old, new, 1)

    return change


def resealed(old: str, new: str) -> Callable[[bytes], bytes]:
    """Return ``replaced`` for a record of a run, with the seal of the new values: another program could write it."""

    def change(content: bytes) -> bytes:
        from fewrec.checksums import sealed

        return json.dumps(sealed(json.loads(replaced(old, new)(content))), indent=1).encode()

    return change


def rerecorded(name: str, data: bytes) -> Callable[[bytes], bytes]:
    """Return what puts the checksum and the rows of a Parquet file into the record of frozen episodes beside it."""

    def change(content: bytes) -> bytes:
        record = json.loads(content)
        rows = len(pd.read_parquet(io.BytesIO(data)))
        record["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "rows": rows}
        return json.dumps(record, indent=1, sort_keys=True).encode()

    return change


def cut(content: bytes) -> bytes:
    """Return the first half of a file, as a download that broke off leaves it."""
    return content[: len(content) // 2]
