"""Disks that are full or read-only: one clear line, what is complete stays, and there is room again for the next run.

As root the disk is a tmpfs of its own, mounted for the fault; elsewhere a limit on the size of a file (RLIMIT_FSIZE)
stands for the full disk, and permissions for the read-only one.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .campaign import Campaign, fault, one_line
from .report import Row
from .world import Ended, Place

_MEGABYTES = 32  # of the small disk: fewrec wants 20 free before it starts
FULL_IN = ("meta-fit", "adapt", "writing", "reporting")


@fault("full-disk", steps=6, quick_steps=3)
def full_disk(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Fill the disk of the results, or of the cache, in the middle of a run."""
    how = f"a tmpfs of {_MEGABYTES} MB is filled" if can_mount() else "files may be no longer than 1,500 bytes"
    results = Row("full disk, results", f"{how} in mid-run; then there is room again")
    for phase in FULL_IN[:1] if campaign.quick else FULL_IN:
        with small_disk(campaign, results) as place:
            _fill_in(campaign, results, place, phase)
        step()
    empty = Row("full disk, at the start", "fewer than 20 MB are free where the results are to go")
    with small_disk(campaign, empty) as place:
        if can_mount():
            _ballast(place.folder)
            ended = campaign.world.run(place)
            empty.count("before the run")
            campaign.check_end(empty, ended, "the run", 2)
            one_line(empty, ended, "--out", "the run", place.folder)
        else:
            empty.not_run = "needs root, to mount a small disk"
    step()
    cache = Row("full disk, cache", f"{how} while the data are fetched; then there is room again")
    _full_cache(campaign, cache)
    step()
    return [results, empty, cache]


def _fill_in(campaign: Campaign, row: Row, place: Place, phase: str) -> None:
    place.out.mkdir(exist_ok=True)
    if can_mount():
        process = campaign.world.start(place, phase, 0.5)
        row.expect(process.wait_for(phase, 1 if phase == "reporting" else 3 if phase == "writing" else 2), phase)
        _ballast(place.folder)
        ended = process.end()
    else:
        ended = _with_short_files(campaign, place)
    row.count(phase)
    campaign.check_end(row, ended, f"full while {phase}", 2)
    one_line(row, ended, "can't be written", f"full while {phase}", place.folder)
    (place.folder / "ballast").unlink(missing_ok=True)
    campaign.resume(row, place, f"after it was full while {phase}", said=False)


def _full_cache(campaign: Campaign, row: Row) -> None:
    with small_disk(campaign, row, of_cache=True) as place:
        if can_mount():
            campaign.world.server.seconds = 1.5
            process = campaign.world.start(place, "fetching", 0.2)
            process.wait_for("fetching")
            _ballast(place.cache)
            ended = process.end()
            campaign.world.server.seconds = 0.0
            (place.cache / "ballast").unlink()
        else:
            ended = _with_short_files(campaign, place)
        row.count("fetching")
        campaign.check_end(row, ended, "full while fetching", 2)
        one_line(row, ended, "can't be written", "full while fetching", place.folder)
        campaign.resume(row, place, "after it was full while fetching", said=False)


@fault("read-only", steps=3)
def read_only(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Make the results, then the cache, read-only."""
    results = Row("read-only results", "a finished run's disk becomes read-only; then it is run again and reported")
    with small_disk(campaign, results) as place:
        shutil.copytree(campaign.undisturbed.out, place.out)
        with unwritable(place.folder if can_mount() else place.out):
            for command in (None, ["report", str(place.out), "--no-plots"]):
                ended = campaign.world.start(place, command=command).end()
                results.count("before the run" if command is None else "before the report")
                where = "run" if command is None else "report"
                if not can_mount() and command is not None:
                    continue
                campaign.check_end(results, ended, where, 2)
                wanted = "can't write there" if command is None else "can't be written"
                one_line(results, ended, wanted, where, place.folder)
                step()
        campaign.resume(results, place, "when it can be written again", said=False)
    cache = Row("read-only cache", "a filled cache becomes read-only; a run needs no more of it than to read")
    with small_disk(campaign, cache, of_cache=True) as place:
        shutil.copytree(campaign.undisturbed.cache / "datasets", place.cache / "datasets")
        with unwritable(place.cache):
            cache.count("before the run")
            campaign.resume(cache, place, "the run")
    step()
    return [results, cache]


def can_mount() -> bool:
    """Return whether this process may mount a small disk."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def small_disk(campaign: Campaign, row: Row, of_cache: bool = False) -> Iterator[Place]:
    """Yield folders of which one, the whole place or its cache, is a small disk; it is unmounted afterwards.

    Where the disk is that of the results, the cache lies beside it, as it does for users.
    """
    base = campaign.world.place()
    place = SmallPlace(base.folder / "disk" if not of_cache else base.folder, base.folder / "cache")
    target = base.folder / ("cache" if of_cache else "disk")
    target.mkdir()
    if not of_cache:
        shutil.copytree(campaign.undisturbed.cache, place.cache)
    if not can_mount():
        yield place
        return
    size = f"size={_MEGABYTES}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "fewrec-faults", str(target)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


class SmallPlace(Place):
    """Folders of a run whose cache lies elsewhere than its results."""

    def __init__(self, folder: Path, cache: Path) -> None:
        super().__init__(folder)
        self._cache = cache

    @property
    def cache(self) -> Path:
        return self._cache

    @property
    def log(self) -> Path:
        return self._cache.with_name("phases")


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Make a folder's disk read-only, or, without the right to do that, the folder and what is in it."""
    if can_mount():
        _remount(folder, "ro")
        try:
            yield
        finally:
            _remount(folder, "rw")
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for one in folders:
        one.chmod(0o555)
    try:
        yield
    finally:
        for one in folders:
            one.chmod(0o755)


def _remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def _ballast(folder: Path) -> None:
    """Fill a disk to its last byte."""
    file = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(file, b"\0" * size)
        except OSError:
            continue
    os.close(file)


def _with_short_files(campaign: Campaign, place: Place) -> Ended:
    """Run with files that can't grow beyond 1,500 bytes: writing fails as on a full disk, with another errno."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        process = campaign.world.start(place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return process.end()
