"""Signals at random moments of every phase: SIGKILL, which nobody can catch, Ctrl-C and SIGTERM."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from .campaign import Campaign, fault
from .child import AGAIN, PHASES
from .report import Row
from .world import Ended, Place

KILLS, LEAST = 50, 5  # in all, and in each phase
# Seconds slept at each seam of a phase that is drawn out, and how long one occurrence of it then takes at least.
PAUSE = {"fetching": 0.2, "loading": 0.15, "prepare": 0.9, "meta-fit": 0.9, "adapt": 0.3, "writing": 0.2,
         "reporting": 0.15}  # fmt: skip
WINDOW = {"fetching": 1.2, "loading": 0.5, "prepare": 0.6, "meta-fit": 0.7, "adapt": 0.2, "writing": 0.6,
          "reporting": 0.9}  # fmt: skip
RESUME_LINE = "run the same command again"


@fault("sigkill", steps=KILLS, quick_steps=len(PHASES))
def sigkill(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Kill the run and all that it started, then run it again to its end."""
    row = Row("SIGKILL", "the run and its children are killed at a random moment of a phase, then started again")
    rng = campaign.random("sigkill")
    waiting = campaign.spread(len(PHASES) if campaign.quick else KILLS)
    number = 0
    while waiting:
        phase, number = waiting.pop(0), number + 1
        place = place_for(campaign, phase)
        where = f"kill {number}, {phase}"
        asked = campaign.world.server.requests
        met, ended = hit(campaign, place, phase, rng, signal.SIGKILL)
        if not row.expect(ended.code == -signal.SIGKILL, f"{where}: the run ended before it was killed"):
            continue
        row.count(met)
        campaign.resume(row, place, where)
        if phase not in ("fetching",):
            row.expect(campaign.world.server.requests - asked <= int(phase == "loading"), f"{where}: fetched again")
        step()
        if not waiting and not campaign.quick and number < 2 * KILLS:  # some came late, on a busy machine
            waiting = [phase for phase in PHASES if row.phases.get(phase, 0) < LEAST]
    row.measured = {f"kills while {name}": count for name, count in sorted(row.phases.items())}
    if not campaign.quick:
        short = [phase for phase in PHASES if row.phases.get(phase, 0) < LEAST]
        row.expect(not short, f"fewer than {LEAST} kills in {', '.join(short)}")
    return [row]


@fault("ctrl-c", steps=len(PHASES))
def ctrl_c(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Interrupt: exit code 130, one line that says how to go on."""
    row = Row("Ctrl-C", "SIGINT at a random moment of a phase, then the same command again")
    return [_ended_in_words(campaign, step, row, signal.SIGINT, 130)]


@fault("sigterm", steps=len(PHASES), quick_steps=2)
def sigterm(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Terminate, as schedulers do before they kill: exit code 143, one line."""
    row = Row("SIGTERM", "SIGTERM at a random moment of a phase, then the same command again")
    return [_ended_in_words(campaign, step, row, signal.SIGTERM, 143)]


def _ended_in_words(campaign: Campaign, step: Callable[[], None], row: Row, number: int, code: int) -> Row:
    rng = campaign.random(row.name)
    phases = PHASES if not (campaign.quick and number == signal.SIGTERM) else ("meta-fit", "writing")
    for phase in phases:
        place, where = place_for(campaign, phase), f"{row.name} while {phase}"
        met, ended = hit(campaign, place, phase, rng, number)
        row.count(met)
        campaign.check_end(row, ended, where, code)
        row.note(ended.said, [place.folder, campaign.world.folder])
        row.expect(len(ended.said) == 1 and RESUME_LINE in ended.said[0], f"{where}: said {ended.said[:3]}")
        campaign.resume(row, place, where)
        step()
    return row


def place_for(campaign: Campaign, phase: str) -> Place:
    """Return folders in which a run will go through ``phase``: with the data in the cache, unless they are fetched."""
    return campaign.place(cached=phase not in ("fetching", "loading"))


def hit(campaign: Campaign, place: Place, phase: str, rng: random.Random, number: int) -> tuple[str, Ended]:
    """Start a run, send a signal at a random moment of ``phase``; return the phase it met and how the run ended."""
    server = campaign.world.server
    server.seconds = 1.0 if phase == "fetching" else 0.0
    try:
        process = campaign.world.start(place, phase, PAUSE[phase])
        process.wait_for(phase, rng.randint(1, campaign.seen[phase]))
        time.sleep(rng.uniform(0, WINDOW[phase]))
        met = (process.phases() or ["starting"])[-1].removeprefix(AGAIN)
        if process.popen.poll() is None:
            process.signal(number)
        return met, process.end()
    finally:
        server.seconds = 0.0
