"""``make faults``: the faults one after the other, with progress and ETA, and a report at the end.

Exit code 0: every fault ended as promised, 1: one did not, 2: the options are wrong.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import damage, disk, download, endurance, kills, together  # noqa: F401  (they register their faults)
from .campaign import FAULTS, STEPS, Campaign
from .report import Row, merged, read, write
from .world import World

OUT = Path("results/faults")


def main() -> int:
    arguments = _arguments()
    # A shell ignores Ctrl-C in what it starts in the background, and so would the runs, which inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names = list(dict.fromkeys(arguments.only)) or list(FAULTS)
    begun = time.monotonic()
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="fewrec-faults-", dir=arguments.work))
    rows: list[Row] = []
    world = World(folder / "world")
    try:
        _say("an undisturbed run, to compare with")
        campaign = Campaign(world, arguments.seed, arguments.quick)
        progress = _Progress({name: STEPS[name](arguments.quick) for name in names})
        for name in names:
            progress.begin(name)
            began = time.monotonic()
            try:
                found = FAULTS[name](campaign, progress.step)
            except Exception:  # the campaign's own mistake is a failure too, and the others go on
                found = [Row(name, "the fault could not be done", problems=[traceback.format_exc().strip()[-600:]])]
            share = (time.monotonic() - began) / len(found)
            for row in found:
                row.seconds = row.seconds or share
                _say(f"  {row.name}: {row.result}, {row.times} times")
                for problem in row.problems:
                    _say(f"    {problem}")
            rows += found
            progress.end()
    finally:
        world.close()
        if arguments.keep:
            _say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    command = "make faults" + (f" ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else "")
    seconds = time.monotonic() - begun
    if arguments.only and (old := read(arguments.out)):
        rows = merged(old, rows)
        command, seconds = f"make faults, last of it {command}", sum(row.seconds for row in rows)
    write(arguments.out, rows, seconds, command)
    failed = sum(bool(row.problems) for row in rows)
    _say(f"{len(rows)} faults, {failed} failed; {arguments.out / 'report.md'} has all of them")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults ARGS=", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=list(FAULTS),
        help="this one (repeatable); replaces its rows of the report",
    )
    parser.add_argument("--quick", action="store_true", help="each fault once or twice")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and bits (default: 0)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the report (default: {OUT})")
    parser.add_argument("--work", type=Path, help="folder for the runs (default: that of temporary files)")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the runs")
    return parser.parse_args()


class _Progress:
    """One line a fault and every few steps, with the time that is left by the steps so far."""

    def __init__(self, steps: dict[str, int]) -> None:
        self.steps, self.total, self.done = steps, sum(steps.values()), 0
        self.begun, self.name, self.of_fault = time.monotonic(), "", 0

    def begin(self, name: str) -> None:
        self.name, self.of_fault = name, 0
        self._show()

    def step(self) -> None:
        self.of_fault += 1
        self._show()

    def end(self) -> None:
        self.done += self.steps[self.name]

    def _show(self) -> None:
        done = self.done + min(self.of_fault, self.steps[self.name])
        seconds = time.monotonic() - self.begun
        left = f", about {seconds / done * (self.total - done) / 60:.1f} minutes left" if done else ""
        _say(f"[{done}/{self.total}] {self.name} {self.of_fault}/{self.steps[self.name]}{left}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
