"""The campaign's report: one row a fault, as Markdown for people and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEADER = ("fault", "times", "where it fell", "what the next run said", "same bytes", "recomputed", "s", "result")


@dataclass
class Row:
    """What came of a fault.

    ``times``: how often it was done. ``phases``: in which phases it fell, and how often. ``said``: the lines that the
    program had for its user. ``same_bytes``: whether the end state was that of an undisturbed run, None where there is
    none to compare. ``recomputed``: complete blocks and meta-fits that were made again. ``not_run``: why, where it
    couldn't be done here. ``problems``: what was not as promised. ``measured``: figures, by name.
    """

    name: str
    what: str
    times: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    same_bytes: bool | None = None
    recomputed: int | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    not_run: str = ""
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> str:
        if self.not_run:
            return f"not run: {self.not_run}"
        return "failed" if self.problems else "passed"

    def count(self, phase: str) -> None:
        self.times += 1
        self.phases[phase] = self.phases.get(phase, 0) + 1

    def note(self, lines: Sequence[str], hide: Sequence[Path] = ()) -> None:
        """Keep what was said, each different line once, without the paths of this machine."""
        for line in lines:
            for folder in hide:
                line = line.replace(f"{folder}/", "")
            if line not in self.said:
                self.said.append(line)

    def expect(self, condition: object, problem: str) -> bool:
        """Note a problem unless the condition holds; return whether it does."""
        if not condition and problem not in self.problems:
            self.problems.append(problem)
        return bool(condition)

    def compare(self, lines: Sequence[str], where: str) -> None:
        """Note how an end state differs from an undisturbed run's: ``differences`` of the two."""
        self.same_bytes = (self.same_bytes is not False) and not lines
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        self.expect(not lines, f"{where}: {', '.join(lines[:3])}{more}")

    def kept(self, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], where: str) -> None:
        """Note which complete files were written again."""
        again = sorted(name for name in before if after.get(name) != before[name])
        self.recomputed = (self.recomputed or 0) + len(again)
        self.expect(not again, f"{where}: written again although complete: {', '.join(again[:3])}")


def markdown(rows: Sequence[Row], environment: dict[str, str], seconds: float, command: str) -> str:
    """Return the report as a page."""
    failed = [row for row in rows if row.problems]
    lines = [
        "# Fault campaign", "",
        f"`{command}`: {len(rows)} faults, {sum(row.times for row in rows)} times in all, "
        f"{seconds / 60:.1f} minutes; {len(failed)} failed. {', '.join(environment.values())}.", "",
        "| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER),
    ]  # fmt: skip
    for row in rows:
        cells = (
            f"**{row.name}**: {row.what}", str(row.times), _counts(row.phases), _quoted(row.said), _yes(row.same_bytes),
            "" if row.recomputed is None else str(row.recomputed), f"{row.seconds:.0f}", row.result,
        )  # fmt: skip
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    measured = [(row.name, name, value) for row in rows for name, value in row.measured.items()]
    if measured:
        lines += ["", "| fault | figure | value |", "| --- | --- | --- |"]
        lines += [f"| {_cell(a)} | {_cell(b)} | {_cell(str(c))} |" for a, b, c in measured]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [f"- {row.name}: {problem}" for row in failed for problem in row.problems]
    return "\n".join(lines) + "\n"


def read(folder: Path) -> list[Row]:
    """Return the rows of the report in a folder, [] where there is none."""
    try:
        faults = json.loads((folder / "report.json").read_text(encoding="utf-8"))["faults"]
    except (OSError, ValueError, KeyError):
        return []
    return [Row(**{name: value for name, value in one.items() if name != "result"}) for one in faults]


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Return the rows of an earlier report in which those that were done again are replaced, new ones at the end."""
    fresh = {row.name: row for row in new}
    return [fresh.pop(row.name, row) for row in old] + list(fresh.values())


def write(folder: Path, rows: Sequence[Row], seconds: float, command: str) -> None:
    """Write report.md and report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = describe()
    (folder / "report.md").write_text(markdown(rows, environment, seconds, command), encoding="utf-8")
    value = {
        "schema": 1, "command": command, "environment": environment, "seconds": round(seconds, 1),
        "faults": [{**asdict(row), "seconds": round(row.seconds, 1), "result": row.result} for row in rows],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def describe() -> dict[str, str]:
    """Return where the campaign ran, in a few words."""
    import os

    import torch

    import fewrec

    return {
        "fewrec": f"fewrec {fewrec.__version__}", "python": f"Python {platform.python_version()}",
        "torch": f"torch {torch.__version__}", "system": f"{platform.system()} {platform.machine()}",
        "cores": f"{len(os.sched_getaffinity(0))} cores",
    }  # fmt: skip


def _counts(phases: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in phases.items())


def _quoted(lines: Sequence[str]) -> str:
    shown = [f"`{line[:220].replace('`', chr(39))}`" for line in lines[:4]]
    return "<br>".join([*shown, *([f"and {len(lines) - 4} more"] if len(lines) > 4 else [])])


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "**no**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
