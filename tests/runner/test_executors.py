"""Local workers: the bytes of a serial run, whatever their number, and what is left when they or the driver die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import fewrec
from fewrec.errors import SuiteError
from tests.runner.conftest import TINY
from tests.runner.test_execute import score_bytes
from tests.runner.test_tracking import Recorder

LEARNERS = ["bias", "mf-foldin", "mf-scratch", "knn"]  # without and with a meta-fit, and one joint over an episode
SMALL = {"learners": LEARNERS, "seeds": [0], "threads": 1, "device": "cpu", "progress": False}

DIES = '''
"""Learners whose process is killed, once or always, as it is where memory runs out."""
import os
import signal
from pathlib import Path

import torch

from fewrec.learners.base import Learner, Predictor


class Mean(Predictor):
    def predict(self, users, items):
        return torch.full((len(items),), 3.0)


class DiesOnce(Learner):
    """Its process is killed at the first try."""
    name = "dies-once"

    def adapt(self, support, ctx):
        mark = Path(os.environ["DIES_MARK"])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Mean()


class DiesInMetaFit(Learner):
    """Its process is killed whenever it is fitted."""
    name = "dies-in-meta-fit"

    def meta_fit(self, source, ctx):
        os.kill(os.getpid(), signal.SIGKILL)

    def adapt(self, support, ctx):
        return Mean()

    def state(self):
        return {}, {}

    def load_state(self, tensors, values, ctx):
        pass
'''


@pytest.fixture(scope="module")
def serial(tiny_data, tmp_path_factory):
    """The folder of an undisturbed run in one process, and its suite."""
    folder = tmp_path_factory.mktemp("serial")
    suite = folder / "tiny.toml"
    suite.write_text(TINY)
    fewrec.run(str(suite), data=tiny_data, out=folder / "out", **SMALL)
    return suite, folder / "out"


def halved(whole: Path, out: Path) -> dict[str, int]:
    """Copy a run without every other block, most records and a meta-fit; return when each block was written."""
    shutil.copytree(whole, out)
    for number, cell in enumerate(sorted((out / "cells").iterdir())):
        if number % 3:
            (cell / "cell.json").unlink()
            for block in sorted(cell.glob("block-*.parquet"))[number % 2 :: 2]:
                block.unlink()
                block.with_suffix(".timing.json").unlink()
    shutil.rmtree(next((out / "meta").iterdir()))
    return {name: (out / name).stat().st_mtime_ns for name in score_bytes(out)}


def test_two_processes_give_the_bytes_of_one(serial, tiny_data, tmp_path):
    suite, whole = serial
    recorder = Recorder()
    results = fewrec.run(str(suite), data=tiny_data, out=tmp_path / "out", jobs=2, track=[recorder], **SMALL)
    assert score_bytes(tmp_path / "out") == score_bytes(whole) != {}
    pd.testing.assert_frame_equal(results.scores, fewrec.load_results(whole).scores, check_exact=True)
    kinds = [event[0] for event in recorder.events if event[0] != "scalars"]
    assert kinds == ["begin", *["cell", "result"] * 8, "end"], "cells overlap, but each is told as a whole"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(node["name"], node["workers"], node["threads"]) for node in manifest["nodes"]] == [("node-1", 2, 1)]


def test_a_half_done_serial_run_is_resumed_by_two_processes(serial, tiny_data, tmp_path):
    suite, whole = serial
    kept = halved(whole, tmp_path / "out")
    fewrec.run(str(suite), data=tiny_data, out=tmp_path / "out", jobs=2, **SMALL)
    assert score_bytes(tmp_path / "out") == score_bytes(whole) and len(kept) < len(score_bytes(whole))
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept} == kept
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [node["workers"] for node in manifest["nodes"]] == [1, 2]


def test_every_status_is_that_of_a_serial_run(tiny_suite, tiny_data, tmp_path, bad_learners):
    results = fewrec.run(
        str(tiny_suite), data=tiny_data, out=tmp_path / "out", plugins=[bad_learners], seeds=[0], shots=[2], jobs=2,
        learners=["raises", "nan", "sleeps", "breaks-meta-fit", "needs-features", "bias"], time_limit=2, threads=1,
    )  # fmt: skip
    table = results.leaderboard.set_index("label")
    assert table["status"].to_dict() == {
        "raises": "failed", "nan": "failed", "sleeps": "timeout", "breaks-meta-fit": "failed",
        "needs-features": "not applicable", "bias": "ok",
    }  # fmt: skip
    assert "RuntimeError: no | luck" in table.loc["raises", "reason"]
    assert "not finished within 2 s" in table.loc["sleeps", "reason"]
    assert "ValueError: cannot learn" in table.loc["breaks-meta-fit", "reason"]


def test_a_killed_worker_loses_its_unit_alone(tiny_suite, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("fewrec.learners.registry._files", {})
    monkeypatch.setenv("DIES_MARK", str(tmp_path / "died"))
    (tmp_path / "dies.py").write_text(DIES)
    with pytest.warns(RuntimeWarning, match=r"signal 9 \(SIGKILL: out of memory\?\).*tried again"):
        results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", plugins=[tmp_path / "dies.py"],
                             seeds=[0], shots=[2], jobs=2, threads=1, progress=False,
                             learners=["dies-once", "dies-in-meta-fit", "bias"])  # fmt: skip
    table = results.leaderboard.set_index("label")
    assert table["status"].to_dict() == {"dies-once": "ok", "dies-in-meta-fit": "failed", "bias": "ok"}
    reason = table.loc["dies-in-meta-fit", "reason"]
    assert reason == "the process that ran it ended with signal 9 (SIGKILL: out of memory?)"


QUEER = '''
"""Learners that end their process, diverge, or give a state that can't be kept."""
import os
import time

import torch

from fewrec.learners.base import Learner, Predictor


class Mean(Predictor):
    def predict(self, users, items):
        return torch.full((len(items),), 3.0)


class Fits(Learner):
    given = {}, {}

    def meta_fit(self, source, ctx):
        ctx.log(1, loss=float("nan"), rate=0.5)

    def adapt(self, support, ctx):
        return Mean()

    def state(self):
        return self.given

    def load_state(self, tensors, values, ctx):
        pass


class Leaves(Fits):
    """Ends its process by itself."""
    name = "leaves"

    def adapt(self, support, ctx):
        os._exit(3)


class Diverges(Fits):
    """Its loss is NaN, what it predicts is not."""
    name = "diverges"


one = torch.ones(3)


class Tied(Fits):
    """Two names of its state are one tensor."""
    name = "tied"
    given = {"a": one, "b": one.view(3, 1)}, {}


class NoTensor(Fits):
    """A part of its state is a list."""
    name = "no-tensor"
    given = {"a": [1.0]}, {}


class NoJson(Fits):
    """A value of its state is NaN."""
    name = "no-json"
    given = {}, {"best": float("nan")}


class Versioned(Fits):
    """Its weights are what the environment says."""
    name = "versioned"

    def loaded(self):
        return {"weights": os.environ["QUEER_WEIGHTS"]}


class Sleepy(Fits):
    """Each block takes less than the limit, the cell more."""
    name = "sleepy"
    batch_episodes = 2

    def adapt(self, support, ctx):
        time.sleep(0.7)
        return Mean()
'''


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_state_that_can_t_be_kept_is_its_learner_s_failure_and_the_others_go_on(
    jobs, tiny_suite, tiny_data, tmp_path, monkeypatch
):
    monkeypatch.setattr("fewrec.learners.registry._files", {})
    (tmp_path / "queer.py").write_text(QUEER)
    options = {"learners": ["no-tensor", "no-json", "diverges", "tied", "bias"], "plugins": [tmp_path / "queer.py"],
               "seeds": [0], "shots": [2], "threads": 1, "progress": False, "jobs": jobs}  # fmt: skip
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", **options)
    table = results.leaderboard.set_index("label")
    assert table["status"].to_dict() == {
        "no-tensor": "failed", "no-json": "failed", "diverges": "ok", "tied": "ok", "bias": "ok",
    }  # fmt: skip
    assert table.loc["no-tensor", "reason"].startswith("TypeError: state(): 'a' is a list, not a tensor")
    assert table.loc["no-json", "reason"].startswith("ValueError: state(): its values are not JSON")
    curves = [json.loads(file.read_text())["curve"] for file in tmp_path.glob("out/meta/*/meta.json")]
    assert curves.count([{"rate": 0.5, "step": 1}]) == 2, "NaN is left out"
    again = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", **options)
    assert again.leaderboard["status"].value_counts().to_dict() == {"ok": 3, "failed": 2}


def test_blocks_that_other_weights_of_the_same_name_made_are_not_mixed(tiny_suite, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("fewrec.learners.registry._files", {})
    (tmp_path / "queer.py").write_text(QUEER)
    options = {"suite": str(tiny_suite), "data": tiny_data, "plugins": [tmp_path / "queer.py"], "seeds": [0],
               "shots": [2], "learners": ["versioned"], "progress": False, "out": tmp_path / "out"}  # fmt: skip
    monkeypatch.setenv("QUEER_WEIGHTS", "1")
    fewrec.run(**options)
    [cell] = (tmp_path / "out" / "cells").iterdir()
    (cell / "cell.json").unlink()
    (cell / "block-0001.parquet").unlink()
    monkeypatch.setenv("QUEER_WEIGHTS", "2")
    [reason] = fewrec.run(**options).leaderboard["reason"]
    assert reason.startswith("weights of the same name have changed") and f"remove {cell}" in reason
    monkeypatch.setenv("QUEER_WEIGHTS", "1")
    assert fewrec.run(**options).leaderboard["status"].tolist() == ["ok"]


def test_a_process_that_ends_by_itself_is_told_with_its_exit_code(tiny_suite, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("fewrec.learners.registry._files", {})
    (tmp_path / "queer.py").write_text(QUEER)
    with pytest.warns(RuntimeWarning, match="exit code 3; what it was at is tried again"):
        results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", plugins=[tmp_path / "queer.py"],
                             seeds=[0], shots=[2], jobs=2, threads=1, progress=False, learners=["leaves"])  # fmt: skip
    assert results.leaderboard["reason"].tolist() == ["the process that ran it ended with exit code 3"]


def test_blocks_side_by_side_share_the_time_limit_of_their_cell(tiny_suite, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("fewrec.learners.registry._files", {})
    (tmp_path / "queer.py").write_text(QUEER)
    options = {"data": tiny_data, "plugins": [tmp_path / "queer.py"], "seeds": [0], "shots": [2], "jobs": 2,
               "learners": ["sleepy"], "threads": 1, "progress": False}  # fmt: skip
    results = fewrec.run(str(tiny_suite), out=tmp_path / "out", time_limit=6, **options)
    assert results.leaderboard["status"].tolist() == ["timeout"], "three blocks of 2.8 s and more"
    results = fewrec.run(str(tiny_suite), out=tmp_path / "long", time_limit=60, **options)
    assert results.leaderboard["status"].tolist() == ["ok"]


def command(tmp_path, tiny_data, *options):
    table = tiny_data.table
    frame = pd.DataFrame({"user": table.user, "item": table.item, "rating": table.rating})
    frame.to_csv(tmp_path / "tiny.csv", index=False)
    (tmp_path / "tiny.toml").write_text(TINY.replace("episodes = 6", "episodes = 60"))
    (tmp_path / "slow.py").write_text(SLOW)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fewrec", "run", str(tmp_path / "tiny.toml"), "--data", str(tmp_path / "tiny.csv"),
         "--plugin", str(tmp_path / "slow.py"), "--learner", "slow,bias", "--seed", "0", "--shots", "2", "--threads",
         "1", "--device", "cpu", "--out", str(tmp_path / "out"), "--jobs", "2", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


SLOW = '''
"""A learner slow enough to be killed."""
import time

import torch

from fewrec.learners.base import Learner, Predictor


class Mean(Predictor):
    def predict(self, users, items):
        return torch.full((len(items),), 3.0)


class Slow(Learner):
    """Sleeps, then predicts 3."""
    name = "slow"
    batch_episodes = 1

    def adapt(self, support, ctx):
        time.sleep(0.02)
        return Mean()
'''


def workers_of(driver: subprocess.Popen) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == driver.pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=90):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked up in /proc")
@pytest.mark.slow
def test_no_worker_outlives_a_killed_driver_and_the_next_run_goes_on(tiny_data, tmp_path):
    driver = command(tmp_path, tiny_data)
    wait_until(lambda: driver.poll() is not None or len(score_bytes(tmp_path / "out")) > 2)
    workers = workers_of(driver)
    assert len(workers) == 2, driver.poll()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not any(map(alive, workers)), 10)
    kept = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in score_bytes(tmp_path / "out")}

    driver = command(tmp_path, tiny_data)
    wait_until(lambda: driver.poll() is not None or len(score_bytes(tmp_path / "out")) > len(kept) + 2)
    workers = workers_of(driver)
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130 and "run the same command again" in output and "Traceback" not in output, output
    assert not any(map(alive, workers))

    driver = command(tmp_path, tiny_data)
    output, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, output
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept} == kept
    assert len(score_bytes(tmp_path / "out")) == 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"jobs": 0}, "--jobs 0: at least one worker"),
        ({"executor": "slurm"}, "--executor slurm: unknown executor"),
        ({"ray_address": "auto"}, "--ray-address auto: only goes with --executor ray"),
    ],
)
def test_options_that_can_t_be_are_refused_at_once(options, said, tiny_suite, tiny_data, tmp_path):
    with pytest.raises(SuiteError, match=said):
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_threads_are_a_worker_s_share_unless_they_are_given(monkeypatch):
    from fewrec.runner.workers import choose_workers

    monkeypatch.setattr("fewrec.runner.workers.available_threads", lambda: 8)
    assert choose_workers(None, None, None).default_threads() == 8
    assert choose_workers(3, None, None).default_threads() == 2
    assert choose_workers(16, None, None).default_threads() == 1


def test_without_ray_one_line_says_how_to_get_it(monkeypatch, tiny_suite, tiny_data, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SuiteError, match=r"^--executor ray needs ray, .*pip install 'fewrec\[ray\]'$"):
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", executor="ray")


def test_what_workers_share_is_the_same_data(tiny_data):
    from fewrec.runner.executors.shared import SharedDatasets, read_shared

    shared = SharedDatasets({"tiny": tiny_data})
    try:
        came = read_shared(os.dup(shared.fileno()), shared.places)["tiny"]
        assert "sha256" not in vars(came.table), "the hash is of what came, not of what was said"
        assert came.table.sha256 == tiny_data.table.sha256 and came.catalog.text_sha256 == tiny_data.catalog.text_sha256
    finally:
        shared.close()
