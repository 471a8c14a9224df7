"""Tracking: what trackers are told, that they change nothing, and what each backend's own local store then holds."""

import importlib.util
import json
import struct
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import fewrec
from fewrec.errors import SuiteError
from fewrec.runner.progress import Reporter
from fewrec.tracking import Tracker
from fewrec.tracking.base import open_trackers
from tests.runner.test_execute import cells_of, score_bytes

BACKENDS = ("tensorboard", "wandb", "mlflow")
SMALL = {"learners": ["bias", "mf-foldin"], "seeds": [0], "threads": 1, "progress": False}  # two K: four cells


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


class Recorder(Tracker):
    """Writes down what it is told."""

    def __init__(self):
        self.events = []

    def begin(self, manifest, cells, folder):
        self.events.append(("begin", manifest["name"], len(cells), folder))

    def cell(self, spec):
        self.events.append(("cell", spec.spec_hash))

    def scalars(self, spec, step, values):
        self.events.append(("scalars", spec.spec_hash, step, values))

    def result(self, spec, status, figures):
        self.events.append(("result", spec.spec_hash, status, figures))

    def end(self, status):
        self.events.append(("end", status))

    def of(self, kind):
        return [event[1:] for event in self.events if event[0] == kind]


class Interrupts(Reporter):
    """Stops a run, as Ctrl-C would, once so many episodes are complete."""

    def __init__(self, after):
        self.left = after

    def episodes_done(self, count):
        self.left -= count
        if self.left <= 0:
            raise KeyboardInterrupt


def curves_of(recorder):
    curves = {}
    for cell, step, values in recorder.of("scalars"):
        curves.setdefault(cell, []).append((step, values["validation_rmse"]))
    return curves


def test_a_tracker_of_ones_own_is_told_everything_in_order(tiny_suite, tiny_data, tmp_path):
    recorder = Recorder()
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[recorder], **SMALL)
    assert recorder.events[0] == ("begin", "tiny", 4, tmp_path / "out" / "tracking")
    assert recorder.events[-1] == ("end", "ok")
    assert [cell for (cell,) in recorder.of("cell")] == [cell for cell, _, _ in recorder.of("result")]
    told = {cell: figures for cell, status, figures in recorder.of("result") if status == "ok"}
    scores = results.scores.groupby("cell")
    expected = np.sqrt(scores["se"].sum() / scores["n"].sum())
    assert {cell: figures["rmse"] for cell, figures in told.items()} == pytest.approx(expected.to_dict())
    assert {cell: figures["auc"] for cell, figures in told.items()} == pytest.approx(scores["auc"].mean().to_dict())
    assert all(figures["adapt_ms"] > 0 and figures["peak_mb"] > 0 for figures in told.values())


def test_cells_that_share_a_meta_fit_are_each_told_its_curve(tiny_suite, tiny_data, tmp_path):
    recorder = Recorder()
    options = {**SMALL, "learners": ["mf-foldin"]}
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[recorder], **options)
    first, second = curves_of(recorder).values()
    assert first == second and [step for step, _ in first] == list(range(len(first))) and len(first) > 1
    again = Recorder()  # a lost cell is computed on the stored meta-fit, and its curve is told again
    lost = recorder.of("cell")[1][0]
    (tmp_path / "out" / "cells" / lost / "cell.json").unlink()
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[again], **options)
    assert curves_of(again) == {lost: second}


def test_a_finished_cell_is_told_as_a_result_alone(tiny_suite, tiny_data, tmp_path):
    first, second = Recorder(), Recorder()
    for recorder in (first, second):
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[recorder], **SMALL)
    assert second.of("result") == first.of("result") and len(first.of("result")) == 4
    assert second.of("cell") == second.of("scalars") == []


def test_failures_are_told_without_figures(tiny_suite, tiny_data, tmp_path, bad_learners):
    recorder = Recorder()
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", plugins=[bad_learners], shots=[2], seeds=[0],
               learners=["raises", "needs-features"], progress=False, track=[recorder])  # fmt: skip
    assert [(status, figures) for _, status, figures in recorder.of("result")] == [
        ("failed", {}),
        ("not applicable", {}),
    ]
    assert len(recorder.of("cell")) == 1, "what is not applicable is not begun"


def test_an_interrupted_run_says_so(tiny_suite, tiny_data, tmp_path):
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        fewrec.run(
            str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[recorder], reporter=Interrupts(8), **SMALL
        )
    assert recorder.events[-1] == ("end", "interrupted") and len(recorder.of("result")) == 1


@pytest.mark.parametrize("event", ["begin", "cell", "scalars", "result", "end"])
def test_a_tracker_that_raises_is_switched_off_with_one_warning_and_the_run_goes_on(
    event, tiny_suite, tiny_data, tmp_path
):
    def fail(self, *arguments):
        raise OSError("the server\nis away")

    broken, recorder = type("Broken", (Recorder,), {event: fail})(), Recorder()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[broken, recorder], **SMALL)
    said = [str(w.message) for w in caught if "tracking" in str(w.message)]
    assert said == [
        f"tracking by Broken stopped at '{event}' (OSError: the server is away); the run goes on without it"
    ]
    assert set(results.cells["status"]) == {"ok"} and len(recorder.of("result")) == 4


def test_time_spent_in_a_tracker_is_not_the_learners(tiny_suite, tiny_data, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Slow(Recorder):
        def scalars(self, spec, step, values):
            super().scalars(spec, step, values)
            now[0] += 5.0  # nothing else takes time on this clock

    slow = Slow()
    options = {**SMALL, "learners": ["mf-foldin"], "shots": [2]}
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=[slow], **options)
    assert now[0] == 5.0 * len(slow.of("scalars")) > 5.0
    assert results.cells["meta_fit_s"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["tensorbord"], "--track tensorbord: unknown tracker; did you mean 'tensorboard'"),
        ([object()], "lacks begin, cell, scalars, result, end"),
        ([Recorder], "is a class: give an object"),
    ],
)
def test_what_is_no_tracker_is_refused_before_any_work(wanted, message, tiny_suite, tiny_data, tmp_path):
    with pytest.raises(SuiteError, match=message):
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", track=wanted, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(SuiteError, match=rf"--track {backend} needs {backend}.*: pip install 'fewrec\[{backend}\]'"):
        open_trackers([backend])


def test_a_remote_mlflow_needs_no_local_store(monkeypatch):
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(SuiteError, match="--track mlflow needs sqlalchemy"):
        open_trackers(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert [name for name, _ in open_trackers(["mlflow"])] == ["mlflow"]


# the backends, each read back with what reads it

FIGURES = {
    "rmse",
    "mae",
    "ndcg5",
    "auc",
    "adapt_ms",
    "predict_ms",
    "episodes_per_s",
    "peak_mb",
    "meta_fit_s",
    "prepare_s",
}


def track(backend, tiny_suite, tiny_data, out, **options):
    """Run the four cells with a backend and a recorder beside it; return (results, recorder)."""
    recorder = Recorder()
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=out, track=[backend, recorder], **{**SMALL, **options})
    return results, recorder


def read_tensorboard(out):
    """Return {cell: {tag: [(step, value)]}} and the number of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found, files = {}, list((out / "tracking" / "tensorboard").glob("*/events.out.tfevents.*"))
    for file in files:
        events = EventAccumulator(str(file.parent)).Reload()
        tags = {tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        (cell,) = [c for c in cells_by_hash(out) if c.encode() in plugin]
        found[cell] = tags
    return found, len(files)


def cells_by_hash(out):
    return {record["spec_hash"]: record for record in cells_of(out).values()}


@needs("tensorboard")
def test_tensorboard_holds_every_cells_curve_and_figures(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    _, recorder = track("tensorboard", tiny_suite, tiny_data, out)
    found, files = read_tensorboard(out)
    assert files == 4 and set(found) == set(cells_by_hash(out))
    for cell, _, figures in recorder.of("result"):
        assert FIGURES <= set(found[cell])
        assert found[cell]["rmse"] == [(0, pytest.approx(figures["rmse"], rel=1e-6))]  # it stores float32
    for cell, curve in curves_of(recorder).items():
        assert [step for step, _ in curve] == [step for step, _ in found[cell]["meta-fit/validation_rmse"]]


@needs("tensorboard")
def test_a_run_that_is_resumed_neither_repeats_nor_loses_a_cell_in_tensorboard(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        track("tensorboard", tiny_suite, tiny_data, out, reporter=Interrupts(20))
    for _ in range(2):
        track("tensorboard", tiny_suite, tiny_data, out)
    found, files = read_tensorboard(out)
    assert files == 4
    assert all(len(points) == 1 for tags in found.values() for tag, points in tags.items() if "/" not in tag)
    assert {len(tags.get("meta-fit/validation_rmse", [])) > 1 for tags in found.values()} == {True, False}


def read_wandb(out):
    """Return [(config, history, summary, whether it was ended)] of the offline runs, from their .wandb files.

    The files are logs of protocol buffers in blocks of 32 KiB, as LevelDB writes them.
    """
    from wandb.proto import wandb_internal_pb2

    runs = []
    for file in sorted((out / "tracking" / "wandb").glob("offline-run-*/run-*.wandb")):
        raw, place, part = file.read_bytes(), 7, b""
        config, history, summary, ended = {}, [], {}, False
        while place + 7 <= len(raw):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            _, size, kind = struct.unpack("<IHB", raw[place : place + 7])
            part += raw[place + 7 : place + 7 + size]
            place += 7 + size
            if kind not in (1, 4):  # neither whole nor the last of several parts
                continue
            record, part = wandb_internal_pb2.Record.FromString(part), b""
            name = record.WhichOneof("record_type")
            key = {"run": lambda item: item.key}.get(name, lambda item: item.key or "/".join(item.nested_key))
            if name == "run":
                config.update({key(item): json.loads(item.value_json) for item in record.run.config.update})
            elif name == "history":
                history.append({key(item): json.loads(item.value_json) for item in record.history.item})
            elif name == "summary":
                summary.update({key(item): json.loads(item.value_json) for item in record.summary.update})
            ended |= name == "exit"
        runs.append((config, history, summary, ended))
    return runs


@needs("wandb")
def test_wandb_writes_offline_runs_with_every_cells_curve_and_figures(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    _, recorder = track("wandb", tiny_suite, tiny_data, out)
    runs = {config["cell"]: (config, history, summary) for config, history, summary, ended in read_wandb(out) if ended}
    assert set(runs) == set(cells_by_hash(out))
    curves = curves_of(recorder)
    for cell, status, figures in recorder.of("result"):
        config, history, summary = runs[cell]
        assert config["learner"] in ("bias", "mf-foldin") and config["config.user_ridge"] == 6.0
        assert {name: summary[name] for name in figures} == figures and summary["status"] == status
        points = [(row["meta-fit/step"], row["meta-fit/validation_rmse"]) for row in history]
        assert points == curves.get(cell, [])


@needs("wandb")
def test_a_run_that_is_resumed_leaves_the_unfinished_wandb_run_beside_the_new_one(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        track("wandb", tiny_suite, tiny_data, out, reporter=Interrupts(20))
    track("wandb", tiny_suite, tiny_data, out)
    track("wandb", tiny_suite, tiny_data, out)
    whole = [config["cell"] for config, _, summary, _ in read_wandb(out) if summary.get("status") == "ok"]
    assert sorted(whole) == sorted(cells_by_hash(out))
    assert len(read_wandb(out)) == 5


@needs("wandb")
def test_wandb_takes_its_settings_from_the_environment(tiny_suite, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    track("wandb", tiny_suite, tiny_data, tmp_path / "out", learners=["bias"])
    assert read_wandb(tmp_path / "out") == []
    assert json.loads((tmp_path / "out/tracking/wandb.json").read_text())["destination"].startswith("disabled")


def read_mlflow(uri, name="fewrec tiny"):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name).experiment_id
    runs = client.search_runs([experiment])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, parents, [run for run in runs if "mlflow.parentRunId" in run.data.tags]


@needs("mlflow")
@needs("sqlalchemy")
def test_mlflow_holds_every_cell_below_one_parent_run(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    _, recorder = track("mlflow", tiny_suite, tiny_data, out)
    client, parents, runs = read_mlflow(f"sqlite:///{out}/tracking/mlflow/mlflow.db")
    assert [run.info.status for run in parents] == ["FINISHED"] and len(runs) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parents[0].info.run_id}
    by_cell = {run.data.params["cell"]: run for run in runs}
    for cell, status, figures in recorder.of("result"):
        run = by_cell[cell]
        assert {name: run.data.metrics[name] for name in figures} == figures
        assert run.info.status == "FINISHED" and run.data.tags["fewrec.status"] == status
        assert run.data.params["config.user_ridge"] == "6.0"
    for cell, curve in curves_of(recorder).items():
        points = client.get_metric_history(by_cell[cell].info.run_id, "meta-fit/validation_rmse")
        assert sorted((point.step, point.value) for point in points) == curve
    assert not (tmp_path / "mlruns").exists() and not (tmp_path / "mlflow.db").exists()


@needs("mlflow")
@needs("sqlalchemy")
def test_a_run_that_is_resumed_marks_the_unfinished_mlflow_run_as_killed(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        track("mlflow", tiny_suite, tiny_data, out, reporter=Interrupts(20))
    _, parents, _ = read_mlflow(f"sqlite:///{out}/tracking/mlflow/mlflow.db")
    assert [run.info.status for run in parents] == ["KILLED"]
    for _ in range(2):
        track("mlflow", tiny_suite, tiny_data, out)
    _, parents, runs = read_mlflow(f"sqlite:///{out}/tracking/mlflow/mlflow.db")
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 4 + ["KILLED"]
    assert {run.data.tags["fewrec.cell"] for run in runs if run.info.status == "FINISHED"} == set(cells_by_hash(out))


@needs("mlflow")
@needs("sqlalchemy")
def test_mlflow_goes_where_its_environment_says(tiny_suite, tiny_data, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    track("mlflow", tiny_suite, tiny_data, tmp_path / "out", learners=["bias"])
    assert len(read_mlflow(uri, "mine")[2]) == 2
    assert not (tmp_path / "out/tracking/mlflow").exists()


def test_scores_have_the_same_bytes_with_and_without_tracking(tiny_suite, tiny_data, tmp_path):
    there = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "without", **SMALL)
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "with", track=[*there, Recorder()], **SMALL)
    assert score_bytes(tmp_path / "with") == score_bytes(tmp_path / "without") != {}
    columns = ["label", "k_shot", "rmse", "mae", "ndcg5", "auc"]
    tables = [pd.read_csv(tmp_path / name / "leaderboard.csv")[columns] for name in ("with", "without")]
    pd.testing.assert_frame_equal(*tables)


def test_tracking_switched_on_later_adds_the_results_of_finished_cells(tiny_suite, tiny_data, tmp_path):
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    out = tmp_path / "out"
    fewrec.run(str(tiny_suite), data=tiny_data, out=out, **SMALL)
    track("tensorboard", tiny_suite, tiny_data, out)
    found, files = read_tensorboard(out)
    assert files == 4 and all("rmse" in tags and "meta-fit/validation_rmse" not in tags for tags in found.values())
