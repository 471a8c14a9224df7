"""Long runs and large tables: memory and open files over 10,000 episodes, and a report of 1,000,000 score rows."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .campaign import Campaign, fault
from .report import Row
from .world import Place, Process

EPISODES, BLOCK, LEARNER = 10_000, 20, "maml-mf"
WARM = 0.2  # share of the episodes after which memory has to be flat: caches and allocators have filled by then
BYTES_AN_EPISODE = 400.0  # the upper end of the slope's interval: 4 MB over 10,000 episodes
CELLS, ROWS = 20, 1_000_000
REPORT_SECONDS, REPORT_MB = 30.0, 2048.0


@fault("endurance", steps=1)
def endurance(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Sample memory and open files of one process over many episodes."""
    episodes = 1_000 if campaign.quick else EPISODES
    row = Row("endurance", f"{episodes:,} episodes of {LEARNER} in one process: memory and open files against episodes")
    suite = campaign.world.write_suite("endurance", [LEARNER], episodes, BLOCK)
    suite.write_text(suite.read_text().replace("shots = [2, 3]", "shots = [3]"))
    place = campaign.place(cached=True)
    process = campaign.world.start(place, suite=suite)
    samples = sample(process, place, episodes)
    ended = process.end()
    row.count("adapt")
    campaign.check_end(row, ended, "the run")
    kept = samples[samples[:, 0] >= WARM * episodes]
    if row.expect(len(kept) >= 20, f"only {len(kept)} samples"):
        done, resident, anonymous, files = kept.T
        slope, half = slope_of(done, anonymous)
        row.measured["anonymous memory, slope"] = f"{slope:.1f} ± {half:.1f} bytes an episode (95 %)"
        row.measured["bound"] = f"{BYTES_AN_EPISODE:g} bytes an episode, after the first {WARM:.0%} of them"
        if not campaign.quick:
            row.expect(slope + half <= BYTES_AN_EPISODE, f"memory grows by {slope:.0f} ± {half:.0f} bytes an episode")
        for name, values in (("anonymous", anonymous), ("resident", resident)):
            row.measured[f"{name} memory"] = f"{values[0] / 2**20:.1f} MB, at the end {values[-1] / 2**20:.1f} MB"
        row.measured["open files, slope"] = "{:.1e} ± {:.1e} files an episode (95 %)".format(*slope_of(done, files))
        row.measured["open files"] = f"{files.min():.0f} to {files.max():.0f}"
        row.expect(files[-1] <= files[0] + 1, "more files are open at the end")
    step()
    return [row]


def sample(process: Process, place: Place, episodes: int) -> np.ndarray:
    """Return (episodes done, resident bytes, those that are no file's, open files) of a run until it ends.

    A leak shows in what is no file's: pages of libraries come and go as the kernel likes.
    """
    out, proc = [], Path(f"/proc/{process.popen.pid}")
    while process.popen.poll() is None:
        try:
            done = BLOCK * sum(1 for _ in place.out.glob("cells/*/block-*.parquet"))
            lines = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
            memory = [1024 * int(lines[name].split()[0]) for name in ("VmRSS", "RssAnon")]
            out.append((done, *memory, len(os.listdir(proc / "fd"))))
        except (OSError, KeyError):
            pass  # it has just ended
        time.sleep(0.1)
    rows = np.array(out, dtype=float).reshape(-1, 4)
    return rows[(rows[:, 0] > 0) & (rows[:, 0] < episodes)]  # not what comes after the last one: the tables


def slope_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the slope of y on x by least squares and the half width of its 95 % interval (normal errors)."""
    from scipy import stats

    if np.ptp(x) == 0:
        return 0.0, float("inf")
    if np.ptp(y) == 0:
        return 0.0, 0.0
    fit = stats.linregress(x, y)
    return float(fit.slope), float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)


@fault("large-report", steps=1)
def large_report(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Report many score rows."""
    rows = 100_000 if campaign.quick else ROWS
    row = Row("large report", f"`fewrec report` of {CELLS} cells with {rows:,} score rows together")
    folder = campaign.world.folder / "large"
    write_large_run(campaign.undisturbed.out, folder, rows // CELLS)
    for name, more in (("tables alone", ["--no-plots"]), ("tables, plots and page", [])):
        environment = campaign.world.environment(campaign.undisturbed)
        command = [sys.executable, "-P", "-m", "fewrec", "report", str(folder), *more]
        seconds, processor, megabytes, code = measured(command, environment)
        row.count("reporting")
        row.expect(code == 0, f"{name}: exit code {code}")
        row.measured[name] = f"{seconds:.1f} s ({processor:.1f} s of a processor), peak {megabytes:.0f} MB"
        row.expect(seconds <= REPORT_SECONDS, f"{name}: {seconds:.1f} s, the bound is {REPORT_SECONDS:g}")
        row.expect(megabytes <= REPORT_MB, f"{name}: {megabytes:.0f} MB, the bound is {REPORT_MB:g}")
    step()
    return [row]


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float, float, int]:
    """Return the seconds, those of a processor, the peak of resident memory in MB and the exit code of a process."""
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    return seconds, usage.ru_utime + usage.ru_stime, _kilobytes(usage) / 1024, process.returncode


def _kilobytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 1024 if sys.platform == "darwin" else usage.ru_maxrss


def write_large_run(run: Path, folder: Path, rows: int, n_users: int = 1_200, block: int = 1_000) -> None:
    """Write a folder like a run's with ``CELLS`` cells of ``rows`` score rows each, five test users an episode.

    The learners' errors are drawn: all see the same users, as in a real table. ``run`` gives the form of the records.
    """
    from fewrec.runner.cell import CellSpec
    from fewrec.runner.damage import read_json
    from fewrec.runner.files import write_json
    from fewrec.runner.store import RunFolder

    store = RunFolder(folder)
    manifest = read_json(run / "manifest.json")
    write_json(folder / "manifest.json", manifest)
    source = next(iter(sorted(run.glob("cells/*/cell.json"))))
    record, timing = read_json(source), read_json(source.with_name("timing.json"))
    episodes = rows // 5
    rng = np.random.default_rng(0)
    user = np.concatenate([rng.choice(n_users, 5, replace=False) for _ in range(episodes)])
    ease = rng.normal(size=n_users)
    for number in range(CELLS):
        label = "bias" if number == 0 else f"learner-{number:02d}"
        spec = {**record["spec"], "learner": label, "label": label, "n_users": 5, "n_query": 10, "k_shot": 5,
                "episodes": episodes, "block": block}  # fmt: skip
        cell = CellSpec.from_canonical(spec)
        frame = _scores(rng, user, ease, 0.9 + 0.01 * number)
        target = store.cell(cell)
        for start in range(0, episodes, block):
            part = frame.iloc[5 * start : 5 * (start + block)]
            store.write_block(target, start // block, {"block": part}, {"batches": []})
        write_json(target / "timing.json", timing)
        new = {**record, "spec": spec, "spec_hash": cell.spec_hash, "files": store.sums(cell)}
        write_json(target / "cell.json", json.loads(json.dumps(new)))


def _scores(rng: np.random.Generator, user: np.ndarray, ease: np.ndarray, error: float):  # noqa: ANN202
    import pandas as pd

    n = len(user)
    squared = 10 * error**2 * rng.chisquare(10, n) / 10 * np.exp(0.2 * ease[user])
    mean = 3.5 + 0.3 * rng.normal(size=n)
    return pd.DataFrame({
        "episode": np.repeat(np.arange(n // 5), 5), "user": user, "n": 10, "se": squared,
        "ae": np.sqrt(10 * squared) * 0.85, "ndcg5": rng.beta(8, 2, n), "auc": rng.beta(4, 3, n), "pred_mean": mean,
        "pred_min": mean - rng.random(n), "pred_max": mean + rng.random(n),
    })  # fmt: skip
