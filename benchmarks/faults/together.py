"""Other runs, old locks, wrong clocks, and memory that ends: in one process and in a worker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .campaign import Campaign, fault, one_line
from .report import Row
from .world import Place, Process, complete_files, differences, final_state

YEARS = 30
KILLS = 3  # of a run with workers,
WINDOW = 3.0  # in so many seconds after its first worker was started, or after its first block
LONGEST = 30.0  # how long a worker may outlive it: one that is starting notices when it has imported torch
# Shifts the wall clock of a process (sitecustomize.py), and lets it jump back and forth while it runs.
CLOCK = """
import itertools, time
_time, _time_ns, _jump = time.time, time.time_ns, itertools.cycle([0, 86400, -86400])
time.time = lambda: _time() + {seconds} + next(_jump)
time.time_ns = lambda: _time_ns() + ({seconds} + next(_jump)) * 10**9
"""


@fault("two-runs", steps=1)
def two_runs(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Start a second run in the folder of one that works."""
    row = Row("two runs", "a second run is started in the folder of one that is adapting")
    place = campaign.place(cached=True)
    first = campaign.world.start(place, "adapt", 0.5)
    row.expect(first.wait_for("adapt", 2), "the first run did not get to adapt")
    second = campaign.world.run(place)
    row.count("adapt")
    campaign.check_end(row, second, "the second run", 2)
    one_line(row, second, "another run is writing there", "the second run", place.folder)
    row.expect(first.popen.poll() is None, "the first run had ended before the second was refused")
    campaign.check_end(row, first.end(), "the first run")
    row.compare(differences(campaign.wanted, final_state(place.out)), "the first run")
    step()
    return [row]


@fault("stale-lock", steps=1)
def stale_lock(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Leave lock files of runs that are no more."""
    row = Row("stale lock", "lock files of killed runs lie in the results and in the cache, with anything in them")
    place = campaign.place(cached=True)
    place.out.mkdir()
    (place.out / ".lock").write_text("4194303\n")
    (place.cache / "datasets" / ".faults.lock").write_text("4194303\n")
    row.count("before the run")
    campaign.resume(row, place, "the run")
    step()
    return [row]


@fault("clock", steps=4, quick_steps=2)
def clock(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Run with a wall clock that is years off and jumps, and with files that are years off."""
    row = Row("wrong clock", f"time.time is {YEARS} years late or early and jumps by a day; files are as far off")
    for sign in (1, -1):
        seconds = sign * YEARS * 365 * 86400
        site = campaign.world.folder / f"clock{sign}"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(CLOCK.format(seconds=seconds))
        shifted = {"PYTHONPATH": str(site)}
        place = campaign.place()
        ended = campaign.world.run(place, environment=shifted)
        row.count("late" if sign > 0 else "early")
        campaign.check_end(row, ended, f"clock {sign * YEARS:+d} years")
        etas = [line for line in ended.err.splitlines() if "ETA" in line]
        row.expect(etas and not any("-" in line.rsplit("ETA", 1)[1] for line in etas), "no ETA, or a negative one")
        row.compare(differences(campaign.wanted, final_state(place.out)), f"clock {sign * YEARS:+d} years")
        step()
        if campaign.quick:
            continue
        next(iter(sorted(place.out.glob("cells/*/cell.json")))).unlink()
        now = time.time()
        for file in [*place.out.rglob("*"), *place.cache.rglob("*")]:
            os.utime(file, (now + seconds, now + seconds))
        row.count("files late" if sign > 0 else "files early")
        campaign.resume(row, place, f"files {sign * YEARS:+d} years off")
        step()
    return [row]


@fault("memory", steps=1)
def memory(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Let a learner allocate until its process may have no more."""
    row = Row("memory ends", "a learner allocates, and touches, 600 MB more than its process may have (RLIMIT_AS)")
    place = campaign.place(cached=True)
    ended = campaign.world.run(place, environment={"FAULTS_HUNGRY_MB": "600"})
    row.count("adapt")
    campaign.check_end(row, ended, "the run that had too little")
    _others_went_on(campaign, row, place.out)
    row.note([line for line in ended.err.splitlines() if ": failed" in line][:1], [place.folder])
    campaign.resume(row, place, "with enough memory")
    step()
    return [row]


@fault("worker", steps=1)
def worker(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Kill a worker process as the kernel does when memory ends."""
    row = Row("killed worker", "one of two workers (--jobs 2) gets SIGKILL while it adapts, as from the kernel")
    if "--jobs" not in campaign.world.start(campaign.place(), command=["run", "--help"]).end().out:
        row.not_run = "this version has no --jobs"
        step()
        return [row]
    place = campaign.place(cached=True)
    died = place.folder / "died"
    ended = campaign.world.run(place, arguments=["--jobs", "2"], environment={"FAULTS_DIES": str(died)})
    row.count("adapt")
    row.expect(died.exists(), "no worker was killed")
    campaign.check_end(row, ended, "the run whose worker was killed")
    row.note(ended.said, [place.folder])
    _others_went_on(campaign, row, place.out)
    _resume_with_workers(campaign, row, place, "the next run", {"FAULTS_DIES": str(died)})
    step()
    return [row]


@fault("killed-jobs", steps=KILLS)
def killed_jobs(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Kill a run with workers, and not them: they must end by themselves, and the next run goes on."""
    row = Row(
        "killed run with workers", "a run with --jobs 2 gets SIGKILL, its workers don't; then it is started again"
    )
    if not Path("/proc/self/stat").exists():
        row.not_run = "which processes are left is read from /proc, which only Linux has"
        return [row]
    rng = campaign.random(row.name)
    slowest = 0.0
    for number in range(1, KILLS + 1):
        place, where = campaign.place(cached=True), f"kill {number}"
        slow = {"FAULTS_PAUSE": "adapt:0.3"}
        process = campaign.world.start(place, arguments=["--jobs", "2"], environment=slow)
        limit = time.monotonic() + 120
        phase = "starting" if number == 1 else "among the blocks"

        def reached(phase: str = phase, process: Process = process, out: Path = place.out) -> bool:
            return bool(_workers(process)) and (phase == "starting" or any(out.glob("cells/*/block-*.parquet")))

        while process.popen.poll() is None and not reached() and time.monotonic() < limit:
            time.sleep(0.02)
        row.expect(reached(), f"{where}: it did not get so far")
        time.sleep(rng.uniform(0, WINDOW))
        os.kill(process.popen.pid, signal.SIGKILL)
        killed = time.monotonic()
        while _workers(process) and time.monotonic() < killed + LONGEST:
            time.sleep(0.02)
        slowest = max(slowest, time.monotonic() - killed)
        row.expect(not _workers(process), f"{where}: workers were there {LONGEST:g} s after the run was killed")
        if _workers(process):
            process.signal(signal.SIGKILL)
        ended = process.end()
        row.expect(ended.code == -signal.SIGKILL, f"{where}: the run ended before it was killed")
        row.count(phase)
        _resume_with_workers(campaign, row, place, f"{where}, the next run")
        step()
    row.measured["seconds until the last worker had ended"] = round(slowest, 1)
    return [row]


def _workers(process: Process) -> list[int]:
    """Return the processes that a run has started and that are alive (Linux: of its process group)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue  # it has just ended
        if int(group) == process.popen.pid and state not in "ZX" and int(stat.parent.name) != process.popen.pid:
            found.append(int(stat.parent.name))
    return found


def _resume_with_workers(
    campaign: Campaign, row: Row, place: Place, where: str, environment: dict[str, str] | None = None
) -> None:
    """Run a place to its end with two workers, and note whether the bytes are right and what was made again."""
    before = complete_files(place.out)
    ended = campaign.world.run(place, arguments=["--jobs", "2"], environment=environment)
    campaign.check_end(row, ended, where)
    row.note(ended.said, [campaign.world.folder])
    found, wanted = final_state(place.out), dict(campaign.wanted)
    for state in (found, wanted):
        state.pop("manifest.json", None)  # it names the command, which has --jobs here
    row.compare(differences(wanted, found), where)
    row.kept(before, complete_files(place.out), where)


def _others_went_on(campaign: Campaign, row: Row, out: Path) -> None:
    """Note whether the cells of the other learners are as in an undisturbed run, and what became of the hungry ones."""
    found = final_state(out)
    for file in sorted((campaign.undisturbed.out / "cells").glob("*/cell.json")):
        learner = json.loads(file.read_text())["spec"]["learner"]
        name = f"cells/{file.parent.name}/cell.json"
        if learner != "slow-means":
            row.expect(found.get(name) == campaign.wanted[name], f"the cell of {learner} did not go on")
        elif name in found:
            record = json.loads(found[name])
            row.expect(record["status"] in ("failed", "ok"), f"its status is {record['status']}")
            row.measured["status of the hungry learner"] = f"{record['status']} {record['reason'][:120]}".strip()
