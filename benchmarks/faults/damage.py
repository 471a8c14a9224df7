"""Files that are not what was written: torn, or with a bit flipped; noticed every time, made anew or refused."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from .campaign import Campaign, fault, one_line
from .report import Row
from .world import Ended, Place, complete_files, differences, final_state

UNFINISHED = "begun.json of an unfinished cell"
# What is damaged, of a finished run: a pattern below the place's folder, and whether a run heals it or refuses it.
FILES = {
    "block": ("out/cells/*/block-*.parquet", "heal"),
    "predictions": ("out/cells/*/predictions-*.parquet", "heal"),
    "checksums of a block": ("out/cells/*/sums-*.json", "heal"),
    "timings of a block": ("out/cells/*/block-*.timing.json", "heal"),
    "cell.json": ("out/cells/*/cell.json", "heal"),
    "begun.json": ("out/cells/*/begun.json", "heal"),
    UNFINISHED: ("out/cells/*/begun.json", "heal"),
    "timing.json": ("out/cells/*/timing.json", "heal"),
    "meta-fit's state": ("out/meta/*/state.safetensors", "heal"),
    "meta-fit's record": ("out/meta/*/meta.json", "heal"),
    "manifest.json": ("out/manifest.json", "refuse"),
    "downloaded file": ("cache/datasets/faults/archive-*/*.csv", "heal"),
    "parsed copy": ("cache/datasets/faults/parsed-*/*.*", "heal"),
}
# What `fewrec report` reads: it must refuse these.
REPORTED = ("block", "cell.json", "timing.json", "manifest.json")


def tear(content: bytes, rng: random.Random) -> bytes:
    """Return the beginning of a file, as a disk that filled up or a lost power leaves it."""
    return content[: rng.randrange(0, len(content))]


def flip(content: bytes, rng: random.Random) -> bytes:
    """Return a file with one bit changed."""
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@fault("damage", steps=3 * len(FILES), quick_steps=2 * len(FILES))
def damage(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Damage each kind of file of a finished run, then report it and run it again."""
    rows = []
    for how, change in (("torn", tear), ("bit-flipped", flip)):
        for what, (pattern, kind) in FILES.items():
            row = Row(f"{how} {what}", "damaged in a finished run, which is then reported, and run again")
            rng = campaign.random(row.name)
            for number in range(1 if campaign.quick or how == "torn" else 2):
                _one(campaign, row, what, pattern, kind, change, rng, f"{number + 1}")
                step()
            rows.append(row)
    return rows


def _one(
    campaign: Campaign, row: Row, what: str, pattern: str, kind: str, change: Callable, rng: random.Random, where: str
) -> None:
    place = campaign.place(finished=True, parsed=what == "parsed copy")
    if what in ("meta-fit's state", "meta-fit's record"):
        _lose_a_cell_of_each(place)  # a meta-fit is read only where a cell needs it
    files = sorted(file for file in place.folder.glob(pattern) if file.name != ".lock")
    if not row.expect(files, f"{where}: there is no {pattern}"):
        return
    file = rng.choice(files)
    if what == UNFINISHED:
        _lose_the_last_block(file.parent)
    complete = complete_files(place.out)
    was = file.read_bytes()
    new = change(was, rng)
    while new == was:
        new = change(was, rng)
    file.write_bytes(new)
    row.count("after the run")
    if what in REPORTED:
        ended = campaign.world.start(place, command=["report", str(place.out), "--no-plots"]).end()
        campaign.check_end(row, ended, f"{where}, report", 2)
        one_line(row, ended, file.name, f"{where}, report", place.folder)
    ended = campaign.world.run(place)
    if kind == "refuse":
        campaign.check_end(row, ended, where, 2)
        one_line(row, ended, file.name, where, place.folder)
        file.write_bytes(was)  # the copy that the line asks for
        campaign.resume(row, place, f"{where}, with a copy of it", said=False)
        return
    _healed(campaign, row, ended, place, file, where)
    lost = _made_anew_with(file, place.out)
    row.kept({name: at for name, at in complete.items() if name != lost}, complete_files(place.out), where)


def _made_anew_with(file: Path, out: Path) -> str:
    """Return the block or meta-fit, as ``complete_files`` names it, that a damaged file is part of, or ""."""
    if file.parent.parent == out / "meta":
        return f"meta/{file.parent.name}/meta.json"
    found = re.match(r"(?:block|predictions|steps|sums)-(\d+)\.", file.name)
    return f"cells/{file.parent.name}/block-{found[1]}.parquet" if found else ""


def _healed(campaign: Campaign, row: Row, ended: Ended, place: Place, file: Path, where: str) -> None:
    campaign.check_end(row, ended, where)
    row.note(ended.said, [place.folder])
    told = any(file.name in line or file.parent.name in line for line in ended.said)
    row.expect(told, f"{where}: nothing was said of {file.name}, got {ended.said[:2]}")
    row.compare(differences(campaign.wanted, final_state(place.out)), where)


def _lose_the_last_block(cell: Path) -> None:
    """Leave of a finished cell what a run leaves that was killed before its last block."""
    number = max(cell.glob("block-*.parquet")).stem.removeprefix("block-")
    for file in (*cell.glob(f"*-{number}.*"), cell / "timing.json", cell / "cell.json"):
        file.unlink()


def _lose_a_cell_of_each(place: Place) -> None:
    """Remove cells, so that the next run needs every meta-fit."""
    import shutil

    for folder in (place.out / "cells").iterdir():
        shutil.rmtree(folder)
