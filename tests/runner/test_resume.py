"""A real process, killed at a moment of its work: the next run ends with the bytes of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from click.testing import CliRunner
from filelock import FileLock

from fewrec.cli import main
from tests.runner.conftest import TINY
from tests.runner.test_execute import score_bytes

SLOW = '''
"""A learner slow enough to be killed, which notes every meta-fit that it begins and ends."""
import os
import time

import torch

from fewrec.learners.base import Learner, Predictor


class Mean(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return torch.full((len(items),), self.value)


class Slow(Learner):
    """Sleeps, then predicts the support's mean."""

    name = "slow"
    batch_episodes = 1

    def meta_fit(self, source, ctx):
        with open(os.environ["SLOW_LOG"], "a") as log:
            log.write("begin\\n")
            log.flush()
            time.sleep(1.5)  # longer than a busy machine takes to see it begin
            log.write("end\\n")
        self.mean = torch.tensor(source.table.rating.mean())

    def adapt(self, support, ctx):
        time.sleep(0.03)
        return Mean(float((support.rating.sum() + self.mean) / (len(support.rating) + 1)))

    def state(self):
        return {"mean": self.mean}, {}

    def load_state(self, tensors, values, ctx):
        self.mean = tensors["mean"]
'''


@pytest.fixture
def command(tmp_path, tiny_data):
    """Return a function that starts the run in a process of its own."""
    table = tiny_data.table
    pd.DataFrame({"user": table.user, "item": table.item, "rating": table.rating}).to_csv(
        tmp_path / "tiny.csv", index=False
    )
    (tmp_path / "slow.py").write_text(SLOW)
    suite = TINY.replace('["global-mean", "user-mean", "bias"]', '["bias", "slow"]').replace(
        "shots = [2, 3]", "shots = [3]"
    )
    (tmp_path / "tiny.toml").write_text(suite.replace("episodes = 6", "episodes = 12"))

    def start(out: str, log: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "fewrec", "run", str(tmp_path / "tiny.toml"), "--data", str(tmp_path / "tiny.csv"),
             "--plugin", str(tmp_path / "slow.py"), "--out", str(tmp_path / out), "--threads", "1", "--device", "cpu"],
            env={**os.environ, "SLOW_LOG": str(tmp_path / log)}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return start


def wait_for(condition, process, seconds=60):
    begun = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - begun < seconds, "the run did not get that far"
        time.sleep(0.005)


def test_kill_9_loses_at_most_the_block_or_the_meta_fit_in_hand(command, tmp_path):
    whole = command("whole", "whole.log")
    log, out = tmp_path / "killed.log", tmp_path / "killed"

    first = command("killed", "killed.log")
    wait_for(log.exists, first)  # in the middle of the first meta-fit
    first.send_signal(signal.SIGKILL)
    first.wait()
    complete = score_bytes(out)

    second = command("killed", "killed.log")
    wait_for(lambda: len(score_bytes(out)) >= len(complete) + 3, second)  # among the blocks of slow
    second.send_signal(signal.SIGKILL)
    second.wait()
    kept = {name: (out / name).stat().st_mtime_ns for name in score_bytes(out)}

    third = command("killed", "killed.log")
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0, output
    assert whole.communicate(timeout=120)[0] and whole.returncode == 0

    assert score_bytes(out) == score_bytes(tmp_path / "whole") != {}
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept, "a complete block was written again"
    assert log.read_text().split() == ["begin", "begin", "end", "begin", "end"], "a finished meta-fit was run again"


@pytest.mark.parametrize(
    "number, word, code", [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_ctrl_c_and_sigterm_end_with_a_line_and_their_exit_code(command, tmp_path, number, word, code):
    process = command("out", "out.log")
    wait_for((tmp_path / "out.log").exists, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"{word}; what is complete is in" in output and "Traceback" not in output
    assert "run the same command again to go on" in output


def test_ctrl_c_before_the_run_has_begun_is_the_same_line_and_exit_code(monkeypatch):
    def plan(*args, **options):
        raise KeyboardInterrupt  # as while data are fetched

    monkeypatch.setattr("fewrec.runner.api.plan", plan)
    before = signal.getsignal(signal.SIGTERM)
    done = CliRunner().invoke(main, ["run", "smoke"])
    assert done.exit_code == 130 and done.stderr == "interrupted; run the same command again to go on\n"
    assert signal.getsignal(signal.SIGTERM) is before, "the handler of the run outlives it"


def test_ctrl_c_in_any_other_command_is_one_line_too(monkeypatch):
    def load(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fewrec.report.results.load_results", load)
    done = CliRunner().invoke(main, ["report", "results/reference/check"])
    assert done.exit_code == 130 and done.stderr == "interrupted; run the same command again\n"


def test_a_second_run_in_a_folder_in_use_is_refused(command, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):  # what a run holds as long as it lives
        process = command("out", "out.log")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "another run is writing there" in output
    assert not (tmp_path / "out.log").exists()
