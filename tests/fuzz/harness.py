"""One fuzz target: place a generated folder of files, read it, and judge what the reader does.

A reader gives a result that keeps its invariants, or raises a ``FewrecError`` whose text is one printable line that
names a file. Anything else is a fault: another exception, a warning, more than ``CPU_SECONDS``, or more memory than the
files' size explains.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewrec.errors import FewrecError

Files = Mapping[str, bytes]
"""The content of each file by its name below the input's folder."""

CPU_SECONDS = 5.0  # an input; of this process alone, so that other work on the machine makes no fault
WALL_SECONDS = 300  # a hang that uses no CPU: the process ends with a traceback
MEMORY = 192 << 20  # of allocators and caches, whatever the input
MEMORY_A_BYTE = 100  # of the input, beyond that
ADDRESS_SPACE = 6 << 30  # a header that lies meets this before it meets the machine's memory
LONGEST_MESSAGE = 2_500


class Fault(AssertionError):
    """What a reader must never do, with the input that made it."""


class _TooSlow(BaseException):
    """Not an Exception: a reader that catches all of them must not catch this one."""


@dataclass
class Tally:
    """What a target was given so far. ``executed`` counts inputs that were read, ``distinct`` those of other bytes."""

    executed: int = 0
    accepted: int = 0
    refused: Counter = field(default_factory=Counter)
    messages: set[str] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)
    seconds: float = 0.0
    slowest_s: float = 0.0
    most_mb: float = 0.0
    faults: dict[str, tuple[int, str, dict[str, bytes]]] = field(default_factory=dict)

    @property
    def distinct(self) -> int:
        return len(self.seen)


@dataclass
class Target:
    """``read`` gets the folder, reads it by public functions and asserts what must hold of the result.

    ``names``: what an error may name besides a file of the input; ``lines``: errors may have a line for each bad row;
    ``ignored``: categories of warnings that are the input's own (a plugin's source).
    """

    name: str
    reads: str
    read: Callable[[Path], Any]
    names: tuple[str, ...] = ()
    lines: bool = False
    ignored: tuple[type[Warning], ...] = ()
    tally: Tally = field(default_factory=Tally)

    def warm_up(self, seeds: list[Files], folder: Path) -> None:
        """Read the valid inputs, so that imports and caches count for no input. Each must be accepted."""
        for files in seeds:
            place(folder, files)
            self.read(folder)

    def execute(self, files: Files, folder: Path) -> None:
        """Read one input and count it; raise ``Fault`` where the reader did what it must not."""
        place(folder, files)
        tally, size = self.tally, sum(map(len, files.values()))
        tally.executed += 1
        tally.seen.add(hashlib.blake2b(repr(sorted(files.items())).encode(), digest_size=8).digest())
        began, refusal = time.process_time(), None
        before, address_space = _reset_peak()
        with warnings.catch_warnings(record=True) as warned, _limits(address_space):
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)  # of other tests' files, whenever memory is cleared
            try:
                self.read(folder)
            except FewrecError as error:
                refusal = error
            except _TooSlow:
                raise Fault(f"more than {CPU_SECONDS:g} s of CPU") from None
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise Fault(f"{type(error).__name__}: {error}"[:400]) from error
        spent, grown = time.process_time() - began, max(0, _peak()[0] - before)
        tally.seconds += spent
        tally.slowest_s, tally.most_mb = max(tally.slowest_s, spent), max(tally.most_mb, grown / 2**20)
        if spent > CPU_SECONDS:
            raise Fault(f"{spent:.1f} s of CPU")
        if grown > MEMORY + MEMORY_A_BYTE * size:
            raise Fault(f"{grown >> 20} MB of memory for {size:,} bytes")
        if others := [w for w in warned if not issubclass(w.category, self.ignored)]:
            first = others[0]
            at = f"{Path(first.filename).name}:{first.lineno}"
            raise Fault(f"{len(others)} warnings, the first: {first.category.__name__} at {at}: {first.message}"[:400])
        if refusal is None:
            tally.accepted += 1
            return
        tally.refused[type(refusal).__name__] += 1
        said = str(refusal)
        tally.messages.add(_shape(said))
        self._judge(said, files, folder)

    def _judge(self, said: str, files: Files, folder: Path) -> None:
        lines = said.split("\n") if self.lines else [said]
        for line in lines:
            if bad := [c for c in line if not c.isprintable()]:
                raise Fault(f"the message holds {bad[0]!r}: {line[:200]!r}")
            if len(line) > LONGEST_MESSAGE:
                raise Fault(f"the message has {len(line):,} characters: {line[:100]!r}")
        if not said.strip():
            raise Fault("the message is empty")
        names = {part for file in files for part in (file, file.rsplit("/", 1)[-1])}
        if not any(name in said for name in (*names, *self.names, str(folder))):
            raise Fault(f"the message names no file: {said[:200]!r}")

    def note_fault(self, fault: Fault, files: Files) -> None:
        """Keep the smallest input of each distinct fault, by where it was raised."""
        at = _signature(fault)
        size = sum(map(len, files.values()))
        if at not in self.tally.faults or size < self.tally.faults[at][0]:
            self.tally.faults[at] = (size, str(fault), dict(files))


def place(folder: Path, files: Files) -> None:
    """Make ``folder`` hold these files and nothing else. A name that ends in "/" is an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Yield a folder in memory where the system has one: ten thousand inputs are ten thousand folders.

    What makes inputs is held to a limit of memory, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if _peak()[1] and soft == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (_peak()[1] + 2 * ADDRESS_SPACE, hard))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="fewrec-fuzz-") as folder:
        try:
            yield Path(folder) / "input"
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _limits(address_space: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooSlow

    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    recursion = sys.getrecursionlimit()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, stop)
    faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
    try:
        sys.setrecursionlimit(depth + 950)  # what a command has; Hypothesis allows more
        if address_space:
            resource.setrlimit(resource.RLIMIT_AS, (address_space + ADDRESS_SPACE, hard))
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.setrecursionlimit(recursion)
        signal.signal(signal.SIGVTALRM, before)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _reset_peak() -> tuple[int, int]:
    with contextlib.suppress(OSError):  # not Linux: nothing is measured
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> tuple[int, int]:
    """Return the peak of resident memory since ``_reset_peak`` and the address space, in bytes; 0 where not known."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            found = {line.split(":")[0]: line.split()[1] for line in stream if line.startswith(("VmHWM", "VmSize"))}
    except OSError:
        return 0, 0
    return int(found["VmHWM"]) << 10, int(found["VmSize"]) << 10


def _shape(said: str) -> str:
    """Return a message without what it quotes: how many of these there are says how far the inputs reach."""
    out, quoted = [], False
    for c in said:
        quoted ^= c == "'"
        if not quoted and not c.isdigit():
            out.append(c)
    return "".join(out)[-120:]


def _signature(fault: Fault) -> str:
    error = fault.__cause__ or fault
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "/fewrec/" in f.filename or "/fuzz/" in f.filename
    ]
    if fault.__cause__ is None:
        what, _, of = str(fault).partition(":")
        return (
            f"{_shape(what)[:40].strip()}: {_shape(of)[-30:].strip()}"  # 209 MB of one file, 213 of another: one fault
        )
    return f"{type(error).__name__} at " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[-2:][::-1])
