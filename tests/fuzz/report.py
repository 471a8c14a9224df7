"""The report of a long run: a file a target as soon as it ends, and of all of them a table and JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.fuzz.harness import Target

_COLUMNS = ("target", "reads", "inputs", "distinct", "accepted", "refused", "messages", "faults", "seconds",
            "slowest s", "most MB")  # fmt: skip
OUT = Path(os.environ.get("FEWREC_FUZZ_OUT", "results/fuzz"))


def write_target(target: Target, wanted: int, wall_s: float, seed: int) -> None:
    """Write what one target was given and what it did, in place of what an earlier run wrote."""
    tally = target.tally
    record = {
        "target": target.name, "reads": target.reads, "wanted": wanted, "inputs": tally.executed,
        "distinct": tally.distinct,
        "accepted": tally.accepted, "refused": dict(sorted(tally.refused.items())), "messages": len(tally.messages),
        "faults": {at: text for at, (_, text, _) in sorted(tally.faults.items())}, "seed": seed,
        "wall_s": round(wall_s, 1),
        "cpu_s_in_readers": round(tally.seconds, 1), "slowest_cpu_s": round(tally.slowest_s, 3),
        "most_memory_mb": round(tally.most_mb, 1),
    }  # fmt: skip
    folder = OUT / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{target.name}.json").write_text(json.dumps(record, indent=1) + "\n")


def write_faults(target: Target) -> Path:
    """Write the smallest input of each fault into a folder, and return it."""
    folder = OUT / "faults" / target.name
    shutil.rmtree(folder, ignore_errors=True)
    for number, (at, (_, text, files)) in enumerate(sorted(target.tally.faults.items())):
        here = folder / f"{number:02d}"
        here.mkdir(parents=True)
        (here / "FAULT").write_text(f"{at}\n{text}\n", errors="backslashreplace")
        for name, content in files.items():
            path = here / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=True) if name.endswith("/") else path.write_bytes(content)
    return folder


def write_report() -> None:
    """Write report.md and report.json of all targets that have been run."""
    records: list[dict[str, Any]] = [json.loads(file.read_text()) for file in sorted((OUT / "targets").glob("*.json"))]
    if not records:
        return
    about = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}",
             "versions": {name: version(name) for name in ("hypothesis", "numpy", "pandas", "pyarrow", "pydantic",
             "torch")}}  # fmt: skip
    (OUT / "report.json").write_text(json.dumps({"about": about, "targets": records}, indent=1) + "\n")
    total = {key: sum(record[key] for record in records) for key in ("inputs", "distinct", "accepted", "wall_s")}
    faults = sum(len(record["faults"]) for record in records)
    lines = [
        "# Fuzzing", "",
        f"{len(records)} targets, {total['inputs']:,} inputs ({total['distinct']:,} of different bytes), "
        f"{total['accepted']:,} of them accepted, {faults} faults, {total['wall_s'] / 60:.0f} minutes. "
        f"Python {about['python']}, {', '.join(f'{name} {number}' for name, number in about['versions'].items())}.", "",
        "`messages` counts the different messages of refusals, without what they quote. `slowest s` are seconds of CPU "
        "in one input, `most MB` what one input took of memory beyond what was in use.", "",
        f"| {' | '.join(_COLUMNS)} |", "| --- | --- |" + " ---: |" * (len(_COLUMNS) - 2),
    ]  # fmt: skip
    for r in records:
        refused, seconds = sum(r["refused"].values()), (f"{r['wall_s']:.0f}", f"{r['slowest_cpu_s']:.2f}")
        row = (r["target"], r["reads"], *(f"{n:,}" for n in (r["inputs"], r["distinct"], r["accepted"], refused)),
               str(r["messages"]), str(len(r["faults"])), *seconds, f"{r['most_memory_mb']:.0f}")  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    (OUT / "report.md").write_text("\n".join(lines) + "\n")
