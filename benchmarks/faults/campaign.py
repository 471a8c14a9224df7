"""What every fault gets: the world, the undisturbed run that it is compared with, and how a run comes to its end."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .child import PHASES
from .report import Row
from .world import Ended, Place, World, complete_files, differences, final_state


@dataclass
class Campaign:
    """A campaign in a folder of its own. ``quick``: once or twice where the whole campaign does it often."""

    world: World
    seed: int = 0
    quick: bool = False
    undisturbed: Place = field(init=False)
    wanted: dict[str, bytes] = field(init=False)
    seen: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.undisturbed = self.world.place()
        ended = self.world.run(self.undisturbed)
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed run failed: {ended.err[-2000:]}")
        self.wanted = final_state(self.undisturbed.out)
        told = self.world.place()
        process = self.world.start(told, "none")  # with all phases told and none drawn out: the bytes are the same
        ended = process.end()
        if ended.code != 0 or final_state(told.out) != self.wanted:
            lines = differences(self.wanted, final_state(told.out))
            raise RuntimeError(f"telling phases changed the run: {lines[:3]} {ended.err[-2000:]}")
        self.seen = Counter(process.phases())
        self.parsed_cache = told.cache  # the plain run keeps no parsed copy of so few ratings

    def random(self, name: str) -> random.Random:
        """Return the random numbers of one fault, which depend on its name and the campaign's seed alone."""
        return random.Random(f"{self.seed} {name}")

    def place(self, *, cached: bool = False, finished: bool = False, parsed: bool = False) -> Place:
        """Return new folders, with the downloaded data, the parsed copy or all results of an undisturbed run."""
        place = self.world.place()
        if parsed:
            shutil.copytree(self.parsed_cache, place.cache)
        elif cached or finished:
            shutil.copytree(self.undisturbed.cache, place.cache)
        if finished:
            shutil.copytree(self.undisturbed.out, place.out)
        return place

    def resume(self, row: Row, place: Place, where: str, said: bool = True) -> Ended:
        """Run a place to its end, undisturbed, and note whether the bytes are right and what was made again."""
        before = complete_files(place.out)
        ended = self.world.run(place)
        self.check_end(row, ended, where)
        if ended.code == 0:
            row.compare(differences(self.wanted, final_state(place.out)), where)
            row.kept(before, complete_files(place.out), where)
        if said:
            row.note(ended.said, [self.world.folder])
        return ended

    def check_end(self, row: Row, ended: Ended, where: str, code: int = 0) -> None:
        """Note a run that ended otherwise than with ``code``, or with a traceback."""
        last = ended.err.strip().splitlines()[-1:] or ["nothing was said"]
        row.expect(ended.code == code, f"{where}: exit code {ended.code}, not {code} ({last[0][:200]})")
        row.expect(not ended.traceback, f"{where}: a traceback")

    def spread(self, times: int) -> list[str]:
        """Return the phases that ``times`` faults fall in, each about as often."""
        return [PHASES[i % len(PHASES)] for i in range(times)]


Fault = Callable[[Campaign, Callable[[], None]], list[Row]]
"""A fault: gets the campaign and a function to call after each step, and returns its rows of the report."""

STEPS: dict[str, Callable[[bool], int]] = {}  # how many steps a fault has, for the ETA
FAULTS: dict[str, Fault] = {}


def fault(name: str, steps: int, quick_steps: int | None = None) -> Callable[[Fault], Fault]:
    """Register a fault under a name, with the number of its steps."""

    def add(function: Fault) -> Fault:
        FAULTS[name] = function
        STEPS[name] = lambda quick: quick_steps if quick and quick_steps is not None else steps
        return function

    return add


def one_line(row: Row, ended: Ended, wanted: str, where: str, hide: Path) -> None:
    """Note what a refused run said, which has to be one line that contains ``wanted``."""
    said = ended.said
    row.note(said, [hide])
    row.expect(len(said) == 1 and wanted in said[0], f"{where}: expected one line with '{wanted}', got {said[:3]}")
