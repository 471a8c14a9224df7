"""Files that travel to a node: weights and plugins, verified by SHA-256, and written to its cache and nowhere else."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fewrec.data.download import sha256_of
from fewrec.data.fetch import locked
from fewrec.data.weights import PATTERNS, Weights, use_weights
from fewrec.errors import DataError
from fewrec.paths import cache_folder
from fewrec.seeding import digest


@dataclass(frozen=True)
class ShippedWeights:
    """A folder of weights: what they are, and each file's name below it, reference to its bytes, and SHA-256."""

    name: str
    sha256: str
    source: str
    files: tuple[tuple[str, Any, str], ...]


def ship_weights(weights: Weights, put: Callable[[Any], Any]) -> ShippedWeights:
    """Put the files of ``weights`` into an object store by ``put``: what fewrec reads of them, no code, no pickles."""
    found = sorted({path for pattern in PATTERNS for path in weights.folder.glob(pattern) if path.is_file()})
    files = tuple((path.name, put(np.fromfile(path, np.uint8)), sha256_of(path)) for path in found)
    return ShippedWeights(weights.name, weights.sha256, weights.source, files)


def install_weights(name: str, sent: ShippedWeights) -> Weights:
    """Write weights that came to this node into its cache, once for all its processes, and let ``name`` mean them.

    Raises ``DataError`` where a file would lie elsewhere than in their folder, or is not what was sent.
    """
    home = cache_folder() / "weights" / "shipped" / digest([[file, sha256] for file, _, sha256 in sent.files])
    for file, _, _ in sent.files:
        _inside(home, file)
    with locked(home):
        for file, reference, sha256 in sent.files:
            path = _inside(home, file)
            if not path.is_file() or sha256_of(path) != sha256:
                import ray

                _write(path, ray.get(reference), sha256)
    weights = Weights(sent.name, home, sent.sha256, sent.source)
    use_weights(name, weights)
    return weights


def install_plugin(name: str, text: bytes, sha256: str, cache: Path) -> Path:
    """Write the text of a plugin's file into ``cache`` and return its path.

    Raises ``DataError`` for a text that is not what was sent, and for a name that is not that of a Python file alone.
    """
    if not re.fullmatch(r"[^/\\\0]+\.py", name) or name.startswith("."):
        raise DataError(f"plugin {name!r}: not the name of a Python file")
    path = cache / sha256 / name
    with locked(path.parent):
        if not path.is_file() or sha256_of(path) != sha256:
            _write(path, text, sha256)
    return path


def _inside(home: Path, file: str) -> Path:
    parts = PurePosixPath(file).parts
    if (
        not parts
        or file != "/".join(parts)
        or any(part in ("..", "/") for part in parts)
        or re.search(r"[\\:\0]", file)
    ):
        raise DataError(f"weights: a file is called {file!r}, which lies outside their folder")
    return home.joinpath(*parts)


def _write(path: Path, data: Any, sha256: str) -> None:
    data = memoryview(data)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{path.name}: what came to this node is not what was sent")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
