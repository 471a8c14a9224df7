"""``fewrec verify``: choose recorded cells, have them run again in a fresh process, and judge what comes out."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.data.cards import list_cards
from fewrec.data.own import looks_like_a_file
from fewrec.errors import DataError, FewrecError, SuiteError
from fewrec.report.beside import score_files
from fewrec.report.comparison.environment_difference import environment_difference
from fewrec.report.comparison.integrity import check_integrity
from fewrec.report.comparison.verification import CellVerdict, Verification, judge
from fewrec.report.results import Results, load_results
from fewrec.runner.cell import CellSpec
from fewrec.runner.choose import Filter, cheap_first, choose, draw_sample, expected_seconds
from fewrec.runner.environment import choose_device
from fewrec.runner.progress import Reporter

_NOT_RERUN = {"timeout": "a time limit depends on the machine", "incomplete": "they lack episodes"}
# The child sees the modules that this process sees, wherever it was started.
_START = (
    "import json, sys; request = json.loads(sys.stdin.buffer.read()); sys.path[:] = request['path']; "
    "from fewrec.runner.rerun import main; main(request)"
)


def verify(
    folder: str | Path,
    *,
    count: int | None = 5,
    draw: int = 0,
    wanted: Filter | None = None,
    own: Mapping[str, Any] | None = None,
    plugins: Iterable[str | Path] = (),
    device: str | None = None,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> Verification:
    """Run cells of a results folder again in a fresh process and compare their scores with the recorded ones.

    ``count`` cells are drawn by the seed ``draw``, spread over learners, states and K, from those that ``wanted``
    leaves; None takes all of them, cells that are recorded as failed or not applicable too. ``own`` are the options of
    ``load_own`` with the file as ``data``, for results made from the user's own file. Nothing is written but a
    temporary folder, which is removed.

    Raises ``FewrecError`` where the folder, an option or the own data can't be used.
    """
    results = load_results(folder)
    for plugin in plugins:
        if not Path(plugin).is_file():
            raise SuiteError(f"--plugin {plugin}: no such file")
    if own is not None and not Path(str(own["data"])).exists() and looks_like_a_file(str(own["data"])):
        raise DataError(f"--data {own['data']}: no such file")
    if device is not None:
        choose_device(device)
    found = check_integrity(results)
    pool = choose(results, wanted or Filter())
    left_out = Counter(pool["status"][pool["status"].isin(list(_NOT_RERUN))])
    for status, number in sorted(left_out.items()):
        found.notes.append(f"{number} cells recorded as {status} are not run again: {_NOT_RERUN[status]}")
    pool = pool[~pool["status"].isin(list(_NOT_RERUN))]
    if count is not None:
        pool = pool[pool["status"] == "ok"] if (pool["status"] == "ok").any() else pool
        pool = pool.iloc[draw_sample(pool, count, draw)]
    if not len(pool):
        raise SuiteError(f"{results.path}: there is no cell to run again")
    own_name = _own_name(results, pool, own)
    records = {one["spec_hash"]: one for one in results.metadata}
    expected = expected_seconds(pool)
    order = cheap_first(pool, expected)
    recorded = results.manifest.get("environment") or {}
    request = {
        "path": sys.path, "plugins": [str(Path(plugin)) for plugin in plugins], "offline": offline, "device": device,
        "recorded_device": str(recorded.get("device") or "cpu").split()[0], "threads": recorded.get("threads"),
        "own": dict(own) if own else None, "own_name": own_name,
    }  # fmt: skip
    rerun = _Rerun(results, recorded, [records[cell] for cell in order], [expected[cell] for cell in order],
                   reporter or Reporter())  # fmt: skip
    verdicts = rerun.run(request)
    return Verification(str(folder), len(results.cells), rerun.exact, rerun.reason, rerun.environment,
                        tuple(rerun.differences), tuple(verdicts), found)  # fmt: skip


def _own_name(results: Results, cells: pd.DataFrame, own: Mapping[str, Any] | None) -> str | None:
    """Return the recorded name of the data set that the user's own file stands for.

    Raises ``DataError`` where a data set of the cells has no card and no file was given for it.
    """
    cards = {card.name for card in list_cards()} | {"synthetic"}
    names = sorted(set(cells["dataset"]))
    unknown = [name for name in names if name not in cards and not Path(name).is_file()]
    if own is None:
        if unknown:
            raise DataError(
                f"{unknown[0]}: a file of someone's own ({_sources(results, unknown[0])}); "
                "give that file, and the options it was read with, as --data FILE"
            )
        return None
    unknown = unknown or names
    if len(unknown) > 1:
        stem = Path(str(own["data"])).name.removesuffix(".gz").rsplit(".", 1)[0]
        if stem not in unknown:
            raise DataError(f"--data: which of {', '.join(unknown)} it is can't be told; give one as --dataset")
        return stem
    return unknown[0]


def _sources(results: Results, name: str) -> str:
    data = (results.manifest.get("datasets") or {}).get(name) or {}
    files = [f"{file}, sha256 {sha256}" for file, sha256 in sorted((data.get("sources") or {}).items())]
    return "; ".join(files) or f"its table has sha256 {data.get('sha256', 'not recorded')}"


class _Rerun:
    """Has cells run again in fresh processes: one for all of them, and another after each that dies."""

    def __init__(self, results: Results, recorded: dict[str, Any], records: Sequence[dict[str, Any]],
                 expected: Sequence[float], reporter: Reporter) -> None:  # fmt: skip
        self.recorded, self.reporter = recorded, reporter
        self.scores = dict(iter(results.scores.groupby("cell", sort=False)))
        self.none = results.scores.iloc[:0]
        self.verdicts: list[CellVerdict | None] = [None] * len(records)
        self.waiting: list[tuple[int, dict[str, Any], CellSpec, float]] = []
        self.environment: dict[str, Any] = {}
        self.differences: list[str] = []
        self.exact, self.reason = False, "no cell could be run"
        for place, (record, seconds) in enumerate(zip(records, expected, strict=True)):
            try:
                spec = CellSpec.from_canonical(record["spec"])
            except SuiteError as error:
                self._keep(place, record, {"event": "refused", "reason": str(error)})
                continue
            if spec.spec_hash != record["spec_hash"]:
                self._keep(place, record, {"event": "refused", "reason": "its specification is not that of its hash"})
                continue
            self.waiting.append((place, record, spec, seconds))

    def run(self, request: dict[str, Any]) -> list[CellVerdict]:
        self.reporter.start([spec for _, _, spec, _ in self.waiting], [seconds for *_, seconds in self.waiting])
        try:
            while self.waiting:
                with tempfile.TemporaryDirectory(prefix="fewrec-verify-", ignore_cleanup_errors=True) as out:
                    self._process({**request, "out": out, "cells": [record for _, record, _, _ in self.waiting]})
        finally:
            self.reporter.stop()
        return [verdict for verdict in self.verdicts if verdict is not None]

    def _process(self, request: dict[str, Any]) -> None:
        out = Path(request["out"])
        with open(out / "stderr.txt", "w+b") as said, _child(request, said) as child:
            begun = False
            for event in _events(child):
                kind = event["event"]
                if kind == "environment":
                    self._settle_rule(event["value"])
                elif kind == "error":
                    raise FewrecError(event["text"])
                elif kind == "begun":
                    begun = True
                    self.reporter.cell(self.waiting[0][2])
                elif kind == "phase":
                    self.reporter.phase(event["name"])
                elif kind == "episodes":
                    self.reporter.episodes_done(event["count"])
                else:
                    self._finish(event, out)
                    begun = False
            code = child.wait()
            if not self.waiting:
                return
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            reason = f"the process that ran it ended with {how}{f' ({lines[-1][:200]})' if lines else ''}"
            if not begun:
                raise FewrecError(f"the cells can't be run again: {reason}")
            self._finish({"event": "refused", "reason": reason}, out)

    def _settle_rule(self, environment: dict[str, Any]) -> None:
        self.environment = environment
        self.differences = environment_difference(self.recorded, environment)
        on_cpu = environment["device"] == "cpu"
        self.exact = not self.differences and on_cpu
        if self.differences:
            self.reason = f"the environment is another ({'; '.join(self.differences)})"
        elif on_cpu:
            self.reason = "the environment is the recorded one"
        else:
            self.reason = f"sums on {environment['device']} have no fixed order, though the environment is the same"

    def _finish(self, event: dict[str, Any], out: Path) -> None:
        place, record, spec, _ = self.waiting.pop(0)
        verdict = self._keep(place, record, event, out / "cells" / spec.spec_hash)
        self.reporter.finished(spec, "ok" if verdict.agrees else verdict.verdict)

    def _keep(
        self, place: int, record: dict[str, Any], event: dict[str, Any], folder: Path | None = None
    ) -> CellVerdict:
        new = None
        if folder is not None and event["event"] == "finished":
            parts = [pd.read_parquet(file) for file in score_files(folder)]
            new = pd.concat(parts, ignore_index=True) if parts else None
        old = self.scores.get(record["spec_hash"], self.none)
        verdict = judge(record, event, old, new, self.exact)
        self.verdicts[place] = verdict
        return verdict


@contextmanager
def _child(request: dict[str, Any], stderr: Any) -> Iterator[subprocess.Popen]:
    """Yield a process that runs the request; it never outlives the block."""
    command = [sys.executable, "-P", "-c", _START]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
    assert child.stdin is not None and child.stdout is not None
    try:
        with suppress(BrokenPipeError):  # it died at once: its exit code and last words tell why
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _events(child: subprocess.Popen) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        yield json.loads(line)
