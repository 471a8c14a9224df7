"""Whole runs, killed and resumed: the bytes of an undisturbed one, in a folder that belongs to one run alone."""

import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from filelock import FileLock

from fewrec.cli import main
from fewrec.errors import FolderError
from fewrec.finetune.api import finetune
from fewrec.finetune.options import FinetuneOptions
from fewrec.finetune.train import Trainer

SAME = ("results.json", "predictions.csv", "model/model.safetensors", "model/config.json", "model/tokenizer.json")


@pytest.fixture
def run(here, tiny_bert):
    """Return a function that runs the files of ``here`` into a folder."""

    def go(out, **changed):
        options = FinetuneOptions(backbone=tiny_bert, epochs=3, batch_size=16, learning_rate=1e-3, **changed)
        return finetune("train.csv", "test.csv", here / out, options=options, items="titles.csv", device="cpu")

    return go


def kept(folder):
    return {name: (folder / name).read_bytes() for name in SAME}


def test_a_run_writes_what_the_docs_say_and_nothing_else(run, here):
    found = run("out")
    names = {path.name for path in (here / "out").iterdir() if not path.name.startswith(".")}
    assert names == {"manifest.json", "results.json", "results.md", "timings.json", "predictions.csv", "model"}
    results = json.loads((here / "out" / "results.json").read_bytes())
    assert results == found.results and len(results["train_mse"]) == 3
    assert [row["label"] for row in results["rows"] if not row["trivial"]] == [
        f"fine-tuned {results['options']['backbone']}"
    ]
    assert {row["label"] for row in results["rows"] if row["trivial"]} == {
        "global-mean",
        "user-mean",
        "item-mean",
        "bias",
    }
    assert (found.frame[["fit_s", "predict_s"]] >= 0).all(axis=None)
    assert str(here) not in "".join(path.read_text() for path in (here / "out").glob("*.*"))
    predictions = (here / "out" / "predictions.csv").read_text().splitlines()
    assert predictions[0] == "item,user,prediction"
    rows = [line.rsplit(",", 1) for line in (here / "test.csv").read_text().splitlines()]
    assert [line.rsplit(",", 1)[0] for line in predictions[1:]] == [row[0] for row in rows]
    assert all(1 <= float(line.rsplit(",", 1)[1]) <= 5 for line in predictions[1:])
    error = sum((float(p.rsplit(",", 1)[1]) - float(r[1])) ** 2 for p, r in zip(predictions[1:], rows, strict=True))
    model = next(row for row in results["rows"] if not row["trivial"])
    assert error / len(rows) == pytest.approx(model["mse"], abs=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_interrupted_run_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(run, here, monkeypatch, dropout):
    run("whole", dropout=dropout)
    run("again", dropout=dropout)
    assert kept(here / "again") == kept(here / "whole")
    real, begun = Trainer._steps, []

    def interrupted(self, batches, errors):
        for tokens in real(self, batches, errors):
            yield tokens
            begun.append(tokens)
            if len(begun) == 13:  # of 8 steps an epoch: in the middle of the second
                raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("out", dropout=dropout)
    assert len(json.loads((here / "out" / "checkpoint.json").read_bytes())["epochs"]) == 1
    assert not (here / "out" / "results.json").exists()
    begun.append(0)
    found = run("out", dropout=dropout)
    assert len(begun) == 14 + 16, "only what was lost is trained again"
    assert kept(here / "out") == kept(here / "whole")
    assert len(found.timings["epoch_s"]) == 3 and not list((here / "out").glob("state-*"))


def test_a_kill_between_the_state_and_its_record_goes_on_from_the_epoch_before(run, here, monkeypatch):
    run("whole")
    import fewrec.finetune.folder as module

    real, written = module.write_whole, []

    def killed(path, content):
        written.append(path.name)
        if written.count("checkpoint.json") == 2:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(module, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        run("out")
    assert sorted(path.name for path in (here / "out").glob("state-*")) == [
        "state-00001.safetensors",
        "state-00002.safetensors",
    ]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run("out")
    assert kept(here / "out") == kept(here / "whole")


def test_a_finished_run_is_read_and_not_trained_again(run, here, monkeypatch):
    first = run("out")
    monkeypatch.setattr(Trainer, "epoch", lambda *args, **kwargs: pytest.fail("trained again"))
    again = run("out")
    assert again.results == first.results and again.timings == first.timings


def test_a_folder_of_other_options_files_or_kinds_is_refused(run, here, monkeypatch):
    run("out")
    with pytest.raises(FolderError, match="it belongs to another run .seed: 0 -> 5.; choose another --out"):
        run("out", seed=5)
    (here / "titles.csv").write_text((here / "titles.csv").read_text().replace("quiet", "winter"))
    with pytest.raises(FolderError, match="texts_sha256: "):
        run("out")
    (here / "theirs").mkdir()
    (here / "theirs" / "novel.txt").write_text("")
    with pytest.raises(FolderError, match="the folder is not empty, and not of this command"):
        run("theirs")
    (here / "theirs" / "manifest.json").write_text('{"suite": "quick"}')
    with pytest.raises(FolderError, match="something else than results of fewrec finetune"):
        run("theirs")
    (here / "held").mkdir()
    with FileLock(here / "held" / ".lock"), pytest.raises(FolderError, match="another run is writing there"):
        run("held")


def test_another_environment_is_refused(run, here):
    import torch

    run("out")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(FolderError, match=f"threads: {threads} -> {threads + 1}"):
            run("out")
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def arguments(here, tiny_bert):
    """Return a function that gives the command's arguments: epochs long enough to be killed in."""
    common = ["finetune", "train.csv", "test.csv", "--items", "titles.csv", "--backbone", tiny_bert, "--epochs", "6"]
    common += ["--batch-size", "1", "--learning-rate", "1e-3", "--device", "cpu", "--threads", "1", "--out"]
    return lambda out: [*common, out]


def start(arguments):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fewrec", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(condition, process, seconds=240):
    begun = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - begun < seconds, "the run did not get that far"
        time.sleep(0.005)


@pytest.mark.slow
def test_kill_9_and_ctrl_c_lose_at_most_the_epoch_in_hand(arguments, here):
    out = here / "out"

    def epochs():
        try:
            return len(json.loads((out / "checkpoint.json").read_bytes())["epochs"])
        except FileNotFoundError:
            return 0

    first = start(arguments("out"))
    wait_for(lambda: epochs() >= 1, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = epochs()
    second = start(arguments("out"))
    wait_for(lambda: epochs() > done, second)
    second.send_signal(signal.SIGINT)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 130, output
    assert "run the same command again to go on" in output and "Traceback" not in output
    done = epochs()
    assert 2 <= done < 6, "too few epochs to be interrupted in"
    third = CliRunner().invoke(main, arguments("out"))
    assert third.exit_code == 0, third.output
    assert f"out: goes on after epoch {done} of 6" in third.stderr
    assert CliRunner().invoke(main, arguments("whole")).exit_code == 0
    assert kept(out) == kept(here / "whole")
