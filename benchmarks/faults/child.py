"""The real command line in a process that tells its phases, one of them drawn out so that a signal can meet it.

``python -P child.py LOG PHASE SECONDS run ...``: each line of LOG is the phase that begins. SECONDS are slept at each
seam inside PHASE: before a file is written, when half of it is, when it has no name yet, and when it has its name.
The parsed copy, which only data sets of a million ratings get, is kept here whatever their size.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AGAIN = "~"  # before a phase that goes on after another one inside it
PHASES = ("fetching", "loading", "prepare", "meta-fit", "adapt", "writing", "reporting")


class Teller:
    """Writes the phases, and sleeps in the one that is drawn out."""

    def __init__(self, log: Path, target: str, seconds: float) -> None:
        self.log, self.target, self.seconds = log.open("a", buffering=1), target, seconds
        self.now = "starting"

    def begin(self, phase: str, mark: str = "") -> None:
        self.now = phase
        self.log.write(f"{mark}{phase}\n")

    @contextmanager
    def inside(self, phase: str) -> Iterator[None]:
        before = self.now
        self.begin(phase)
        self.sleep()
        yield
        self.begin(before, AGAIN)

    def sleep(self) -> None:
        if self.now == self.target:
            time.sleep(self.seconds)

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Make ``owner.name`` a phase of its own."""
        original = getattr(owner, name)

        def told(*args: Any, **kwargs: Any) -> Any:
            with self.inside(phase):
                return original(*args, **kwargs)

        setattr(owner, name, told)

    def seam(self, owner: Any, name: str) -> None:
        """Sleep after ``owner.name``, in the phase that it is called in."""
        original = getattr(owner, name)

        def told(*args: Any, **kwargs: Any) -> Any:
            out = original(*args, **kwargs)
            self.sleep()
            return out

        setattr(owner, name, told)


def draw_out(teller: Teller) -> None:
    """Put the teller into the places where phases begin and files come to be."""
    from fewrec.data import fetch, load, parsed
    from fewrec.report import render
    from fewrec.runner import api, files, meta_fits, progress, store

    parsed.LEAST_RATINGS = 0
    teller.wrap(fetch, "_fetch_from", "fetching")
    teller.seam(fetch, "_write_stamp")
    teller.wrap(load, "read_files", "loading")
    teller.wrap(parsed, "_store", "loading")
    teller.seam(parsed, "sha256_of")

    def phase(self: Any, name: str) -> None:
        teller.begin(name)
        teller.sleep()

    progress.LineReporter.phase = phase
    teller.wrap(api, "write_leaderboard", "reporting")
    render.write_whole = drawn_out_writer(teller)
    original = files.replace_file

    def replace(path: Path, write: Callable[[Path], Any]) -> None:
        def in_halves(temporary: Path) -> None:
            write(temporary)
            if teller.target == "writing":
                whole = temporary.read_bytes()
                temporary.write_bytes(whole[: len(whole) // 2])
                teller.sleep()
                temporary.write_bytes(whole)
                teller.sleep()

        with teller.inside("writing"):
            original(path, in_halves)
            teller.sleep()

    for module in (files, meta_fits, store):
        module.replace_file = replace


def drawn_out_writer(teller: Teller) -> Callable[[Path, bytes], None]:
    from fewrec.report.files import write_with

    def write(path: Path, content: bytes) -> None:
        def in_halves(part: Path) -> None:
            part.write_bytes(content[: len(content) // 2])
            teller.sleep()
            part.write_bytes(content)

        write_with(path, in_halves)
        teller.sleep()

    return write


def main() -> None:
    log, target, seconds, *arguments = sys.argv[1:]
    teller = Teller(Path(log), target, float(seconds))
    os.environ["FAULTS_PAUSE"] = f"{target}:{seconds}"
    sys.argv = ["fewrec", *arguments]
    draw_out(teller)
    from fewrec.cli import main as command_line

    command_line(prog_name="fewrec")


if __name__ == "__main__":
    main()
