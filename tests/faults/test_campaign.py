"""The campaign's own parts: what it compares, how it damages, what it measures; and one fault from end to end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.campaign import FAULTS, STEPS
from benchmarks.faults.child import PHASES
from benchmarks.faults.damage import _made_anew_with, flip, tear
from benchmarks.faults.endurance import measured, slope_of
from benchmarks.faults.page_checksums import count
from benchmarks.faults.report import Row, markdown, merged, read, write
from benchmarks.faults.world import Ended, archive_of, complete_files, differences, final_state

ROOT = Path(__file__).resolve().parents[2]


def test_a_torn_file_is_a_beginning_and_a_flipped_one_differs_in_one_bit():
    content, rng = bytes(range(256)), random.Random(0)
    for _ in range(200):
        torn, flipped = tear(content, rng), flip(content, rng)
        assert content.startswith(torn) and len(torn) < len(content)
        bits = np.unpackbits(np.frombuffer(content, np.uint8) ^ np.frombuffer(flipped, np.uint8))
        assert bits.sum() == 1


@pytest.mark.parametrize(
    ("name", "lost"),
    [("cells/a/block-0001.parquet", "cells/a/block-0001.parquet"), ("cells/a/cell.json", ""),
     ("cells/a/block-0001.timing.json", "cells/a/block-0001.parquet"), ("cells/a/begun.json", ""),
     ("cells/a/sums-0001.json", "cells/a/block-0001.parquet"), ("cells/a/timing.json", ""),
     ("cells/a/predictions-0001.parquet", "cells/a/block-0001.parquet"), ("manifest.json", ""),
     ("meta/key/state.safetensors", "meta/key/meta.json"), ("meta/key/meta.json", "meta/key/meta.json")],
)  # fmt: skip
def test_of_what_is_complete_only_the_block_or_the_meta_fit_of_a_damaged_file_may_be_made_again(tmp_path, name, lost):
    assert _made_anew_with(tmp_path / name, tmp_path) == lost


def test_processes_that_a_killed_one_leaves_are_found_until_they_end():
    from benchmarks.faults.together import _workers
    from benchmarks.faults.world import Process

    if not Path("/proc/self/stat").exists():
        pytest.skip("read from /proc")
    parent = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    process, child = Process(parent, 0.0), int(parent.stdout.readline())
    assert _workers(process) == [child]
    parent.kill()
    assert _workers(process) == [child]
    os.kill(child, signal.SIGKILL)
    limit = time.monotonic() + 10
    while _workers(process) and time.monotonic() < limit:
        time.sleep(0.01)
    assert _workers(process) == [] and parent.wait() == -9


def test_the_final_state_leaves_out_costs_and_tells_what_is_left_over(tmp_path):
    cell = tmp_path / "cells" / "abc"
    cell.mkdir(parents=True)
    for name in ("block-0000.parquet", "cell.json", "sums-0000.json", "timing.json", "latency.json", ".x.tmp"):
        (cell / name).write_text(name)
    (tmp_path / ".lock").write_text("")
    table = (
        "label,rmse,meta_fit_s,adapt_ms_p50,episodes_per_s,peak_mb,prepare_s,device_peak_mb,tie\nb,1.5,9,9,9,9,9,,1\n"
    )
    (tmp_path / "leaderboard.csv").write_text(table)
    state = final_state(tmp_path)
    assert state.pop("leaderboard.csv") == b"label,rmse,tie\nb,1.5,1"
    assert {name.removeprefix("cells/abc/") for name in state} == {
        "block-0000.parquet", "cell.json", "sums-0000.json", ".x.tmp",
    }  # fmt: skip
    assert state["cells/abc/.x.tmp"] == b"left over"
    assert set(complete_files(tmp_path)) == {"cells/abc/block-0000.parquet"}


def test_differences_name_each_file_and_forgive_what_was_set_aside():
    wanted, found = {"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"9", "d": b"4", "superseded/x": b"5"}
    assert differences(wanted, found) == ["c is missing", "d is left over", "b has other bytes"]
    assert differences(wanted, wanted) == []


def test_what_was_said_leaves_out_progress_and_paths_of_this_machine(tmp_path):
    ended = Ended(2, "", f"[1/6] cell: ok, 0.1 s, ETA 0:01\n\nerror: {tmp_path}/out/x: no room\n", 1.0)
    row = Row("a", "b")
    row.note(ended.said, [tmp_path])
    row.note(ended.said, [tmp_path])
    assert row.said == ["error: out/x: no room"] and not ended.traceback


def test_a_row_fails_by_its_problems_and_counts_what_was_made_again():
    row = Row("kill", "killed")
    row.compare([], "first")
    row.kept({"x": (1, 2), "y": (3, 4)}, {"x": (1, 2), "y": (3, 4)}, "first")
    assert row.result == "passed" and row.same_bytes and row.recomputed == 0
    row.kept({"x": (1, 2), "y": (3, 4)}, {"x": (9, 2)}, "second")
    row.compare(["b has other bytes"], "second")
    row.compare([], "third")
    assert row.result == "failed" and row.same_bytes is False and row.recomputed == 2 and len(row.problems) == 2
    text = markdown([row, Row("w", "x", not_run="no --jobs")], {"system": "Linux"}, 60, "make faults")
    assert "**no**" in text and "not run: no --jobs" in text and "- kill: second: b has other bytes" in text


def test_a_fault_that_is_done_again_replaces_its_rows_alone(tmp_path):
    first = [Row("a", "old", problems=["no"]), Row("b", "old", phases={"adapt": 1})]
    write(tmp_path, first, 60.0, "make faults")
    assert read(tmp_path) == first and read(tmp_path / "nowhere") == []
    again = [Row("a", "new", times=2), Row("c", "new")]
    assert merged(read(tmp_path), again) == [again[0], first[1], again[1]]


def test_the_slope_is_that_of_the_textbook():
    rng = np.random.default_rng(0)
    x = np.arange(50.0)
    y = 3 + 0.5 * x + rng.normal(size=50)
    slope, half = slope_of(x, y)
    expected = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    residual = y - y.mean() - expected * (x - x.mean())
    error = np.sqrt((residual**2).sum() / 48 / ((x - x.mean()) ** 2).sum())
    assert slope == pytest.approx(expected) and half == pytest.approx(2.0106347546964454 * error)  # t(0.975, 48)
    assert slope_of(x, np.full(50, 4.0)) == (0.0, 0.0)


def test_the_peak_of_a_process_is_measured():
    _, processor, megabytes, code = measured([sys.executable, "-c", "x = bytearray(200 * 2**20); exit(3)"], {})
    assert code == 3 and processor > 0 and megabytes > 200


def test_a_page_checksum_guards_pages_and_not_the_footer():
    size, found = count(flips=300)
    assert found["refused"] > 250 and found["believed, pages"] == 0 and found.total() == 300 <= size


def test_archives_are_the_same_bytes_each_time():
    assert archive_of({"a": b"1", "b": b"2"}) == archive_of({"a": b"1", "b": b"2"})


def test_every_fault_has_steps_and_every_phase_gets_at_least_five_kills():
    import benchmarks.faults.__main__  # noqa: F401  (registers them)
    from benchmarks.faults.kills import KILLS, PAUSE, WINDOW

    assert KILLS // len(PHASES) >= 5 and set(PAUSE) == set(WINDOW) == set(PHASES)
    assert {name for name in FAULTS if not (STEPS[name](False) >= STEPS[name](True) >= 1)} == set()
    assert "\nfaults:" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_a_quick_fault_from_end_to_end(tmp_path):
    command = [
        sys.executable,
        "-P",
        "-m",
        "faults",
        "--quick",
        "--only",
        "stale-lock",
        "--out",
        str(tmp_path / "report"),
    ]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work")], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "benchmarks")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "minutes left" in done.stderr and "1 faults, 0 failed" in done.stderr
    assert "| **stale lock**" in (tmp_path / "report" / "report.md").read_text()
    assert list((tmp_path / "work").iterdir()) == []
