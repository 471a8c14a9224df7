"""Which unit of a run may start next: from cells and what is on disk to units, in an order that only these decide.

A unit is a fit (prepare and meta-fit, once for all cells that share it) or a block of a cell. There is no executor and
no clock in here, so that a simulator drives the very class that a run does: ``ready``, ``started``, ``done``, ``lost``.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

TIMINGS = -1  # the start of a unit that has no block left to score, only latency or throughput to measure


@dataclass(frozen=True)
class Unit:
    """A fit (``cell`` is the first that needs it, ``start`` ``TIMINGS``) or the block of a cell that begins with the
    episode ``start``. ``instance`` tells learners apart that differ in meta-fit or configuration."""

    kind: Literal["fit", "block"]
    cell: str
    instance: str
    start: int = TIMINGS


@dataclass(frozen=True)
class Work:
    """What is left of a cell: the blocks that begin with the episodes ``starts``, after the fit of ``instance``.

    Instances of one ``key`` share a meta-fit: one of them makes it, the others read it. ``fit_s`` and ``block_s`` are
    expected seconds of the fit and of a block; they decide the order and nothing else.
    """

    cell: str
    key: str
    instance: str
    starts: tuple[int, ...]
    fit_s: float = 1.0
    block_s: float = 1.0


class Schedule:
    """The units of a run that may start, best first.

    Long fits come first, since nothing can shorten them; blocks of a fitted learner come next, those of the learners
    that idle workers hold before others, else in the order of the fits. At most ``in_flight`` units are under way
    (default: ``slots``, the number of workers), and at most ``open_fits`` learners are being fitted or have blocks that
    have not begun (default: twice the slots): what their states take in memory is bounded so.
    """

    def __init__(
        self, works: Sequence[Work], slots: int, *, in_flight: int | None = None, open_fits: int | None = None
    ) -> None:
        self.in_flight = max(in_flight or slots, 1)
        self.open_fits = max(open_fits or 2 * slots, 1)
        self._place = {work.cell: place for place, work in enumerate(works)}
        self._of_instance: dict[str, list[Work]] = defaultdict(list)
        for work in works:
            self._of_instance[work.instance].append(work)
        self._key = {work.instance: work.key for work in works}
        self._fit_s = {name: max(work.fit_s for work in cells) for name, cells in self._of_instance.items()}
        self._behind: dict[str, deque[str]] = defaultdict(deque)  # by key: instances that wait for its meta-fit
        self._waiting: list[tuple[float, int, str]] = []  # fits that may start
        for name, key in self._key.items():
            self._behind[key].append(name)
        for key in self._behind:
            self._offer_next(key)
        self._blocks: dict[str, deque[Unit]] = {}  # of fitted instances, those that have not begun
        self._running: set[Unit] = set()
        self._fitting = 0
        self._dropped: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether nothing is under way and nothing is left to start."""
        return not self._running and not self._blocks and self._first_fits(1) == []

    def ready(self, near: Iterable[str] = ()) -> list[Unit]:
        """Return the units to start now, best first; ``near``: the instances that idle workers hold, one a worker."""
        room = self.in_flight - len(self._running)
        if room <= 0:
            return []
        opened = self._fitting + len(self._blocks)
        fits = self._first_fits(min(room, max(self.open_fits - opened, 0 if self._running or self._blocks else 1)))
        return fits + self._first_blocks(room - len(fits), near)

    def started(self, unit: Unit) -> None:
        """Note that a unit of ``ready`` is under way."""
        self._running.add(unit)
        if unit.kind == "fit":
            self._waiting = [entry for entry in self._waiting if entry[2] != unit.instance]
            heapq.heapify(self._waiting)
            self._fitting += 1
        else:
            self._blocks[unit.instance].remove(unit)
            self._close(unit.instance)

    def done(self, unit: Unit) -> None:
        """Note that a unit has ended; after a fit its blocks may start, and the next instance of its key."""
        self._end(unit)
        if unit.kind == "fit":
            cells = sorted(self._of_instance[unit.instance], key=lambda work: self._place[work.cell])
            self._blocks[unit.instance] = deque(
                Unit("block", work.cell, unit.instance, start)
                for work in cells if work.cell not in self._dropped for start in work.starts
            )  # fmt: skip
            self._close(unit.instance)
            self._offer_next(self._key[unit.instance])

    def lost(self, unit: Unit) -> None:
        """Note that a unit has ended without a result; it may start again, unless its cells were dropped."""
        self._end(unit)
        if unit.kind == "fit":
            self._offer(unit.instance)
        elif unit.cell not in self._dropped:
            self._blocks.setdefault(unit.instance, deque()).appendleft(unit)

    def drop(self, cell: str) -> None:
        """Take back what has not begun of a cell; what is under way ends by ``done`` or ``lost`` all the same."""
        self._dropped.add(cell)
        for name, blocks in list(self._blocks.items()):
            if any(unit.cell == cell for unit in blocks):
                self._blocks[name] = deque(unit for unit in blocks if unit.cell != cell)
                self._close(name)

    def _end(self, unit: Unit) -> None:
        self._running.remove(unit)
        if unit.kind == "fit":
            self._fitting -= 1

    def _close(self, instance: str) -> None:
        if not self._blocks[instance]:
            del self._blocks[instance]

    def _offer_next(self, key: str) -> None:
        if self._behind[key]:
            self._offer(self._behind[key].popleft())

    def _offer(self, instance: str) -> None:
        first = min(self._place[work.cell] for work in self._of_instance[instance])
        heapq.heappush(self._waiting, (-self._fit_s[instance], first, instance))

    def _first_fits(self, count: int) -> list[Unit]:
        """Return the first ``count`` fits that may start; those whose cells were all dropped are passed over."""
        taken: list[tuple[float, int, str]] = []
        units: list[Unit] = []
        while self._waiting and len(units) < count:
            entry = heapq.heappop(self._waiting)
            cells = [work.cell for work in self._of_instance[entry[2]] if work.cell not in self._dropped]
            if not cells:
                self._offer_next(self._key[entry[2]])
                continue
            taken.append(entry)
            units.append(Unit("fit", min(cells, key=self._place.__getitem__), entry[2]))
        for entry in taken:
            heapq.heappush(self._waiting, entry)
        return units

    def _first_blocks(self, count: int, near: Iterable[str]) -> list[Unit]:
        units: list[Unit] = []
        taken: dict[str, int] = defaultdict(int)
        for name in near:
            blocks = self._blocks.get(name)
            if blocks and len(units) < count and taken[name] < len(blocks):
                units.append(blocks[taken[name]])
                taken[name] += 1
        for name, blocks in self._blocks.items():
            if len(units) >= count:
                break
            for place in range(taken[name], min(len(blocks), taken[name] + count - len(units))):
                units.append(blocks[place])
        return units
