"""Units: pure work that any process may do, and what they say when a learner fails."""

import os

import pandas as pd
import pytest
import torch

from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.learners.resources import Resources
from fewrec.runner.cell import code_hash
from fewrec.runner.executors.worker import packed, unpacked
from fewrec.runner.nodes import Nodes
from fewrec.runner.resources import device_of, resources_of
from fewrec.runner.schedule import Unit
from fewrec.runner.splits import Splits
from fewrec.runner.suite import load_suite
from fewrec.runner.units import Task, UnitRunner
from fewrec.seeding import digest

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def runner_of(data, folder, states=lambda key: None):
    return UnitRunner(Splits({"tiny": data}), CPU, folder / "cache", states)


def task_of(spec, start=None, **options):
    cls = learner_class(spec.learner)
    key = digest([spec.meta_fields(cls), code_hash(cls)])
    unit = Unit("fit", spec.spec_hash, key) if start is None else Unit("block", spec.spec_hash, key, start)
    return Task(unit, spec, key, **options)


@pytest.fixture
def spec_of(tiny_suite):
    def spec(learner):
        tiny_suite.write_text(tiny_suite.read_text().replace('["global-mean", "user-mean", "bias"]', f'["{learner}"]'))
        return load_suite(str(tiny_suite))[1].cells()[0]

    return spec


def test_a_block_on_a_stored_fit_is_that_of_the_process_that_fitted_and_nothing_is_written(
    tiny_data, tmp_path, spec_of, monkeypatch
):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    spec = spec_of("mf-foldin")
    here = runner_of(tiny_data, folder)
    fit = here.run(task_of(spec)).done
    mine = here.run(task_of(spec, 2, latency=True, throughput=True)).done
    sent = unpacked(packed(runner_of(tiny_data, folder).run(task_of(spec)))).done
    assert all(torch.equal(sent.state[0][name], tensor) for name, tensor in fit.state[0].items())
    record = {"values": sent.state[1], "loaded": {}, "prepare_s": 1.0, "meta_fit_s": 2.0, "peak_mb": 3.0,
              "device_peak_mb": None, "curve": []}  # fmt: skip
    there = runner_of(tiny_data, folder, lambda key: (sent.state[0], record)).run(task_of(spec, 2)).done
    pd.testing.assert_frame_equal(mine.scores, there.scores, check_exact=True)
    pd.testing.assert_frame_equal(mine.predictions, there.predictions, check_exact=True)
    assert len(mine.latency["adapt_s"]) == 6 and mine.throughput["episodes"] == 6 and there.latency is None
    assert os.listdir(folder) == []


def test_a_learner_that_was_fitted_here_is_not_made_again(tiny_data, tmp_path, spec_of):
    spec = spec_of("bias")
    runner = runner_of(tiny_data, tmp_path)
    first, second = runner.run(task_of(spec)).done, runner.run(task_of(spec)).done
    assert first.fresh and first.state is not None
    assert not second.fresh and second.state is None and second.meta_fit_s == first.meta_fit_s


def test_failures_become_outcomes(tiny_data, tmp_path, spec_of, bad_learners):
    add_plugin_file(bad_learners)
    spec = spec_of("raises")
    outcome = runner_of(tiny_data, tmp_path).run(task_of(spec, 0))
    assert outcome.status == "failed" and outcome.reason == "RuntimeError: no | luck" and "adapt" in outcome.trace


def test_a_block_whose_meta_fit_is_gone_says_so(tiny_data, tmp_path, spec_of):
    outcome = runner_of(tiny_data, tmp_path).run(task_of(spec_of("mf-foldin"), 0))
    assert outcome.status == "failed" and "meta-fit is not there" in outcome.reason


def test_a_unit_ends_at_its_limit(tiny_data, tmp_path, spec_of, bad_learners):
    add_plugin_file(bad_learners)
    outcome = runner_of(tiny_data, tmp_path).run(task_of(spec_of("sleeps"), 0, limit=0.2))
    assert outcome.status == "timeout" and 0.1 < outcome.seconds < 10


def test_resources_are_what_a_learner_declares_or_a_worker_s_threads_and_a_gpu():
    plain = learner_class("bias")
    assert resources_of(plain, CPU, 3) == Resources(3, 0)
    assert resources_of(plain, CUDA, 3) == Resources(3, 1)
    shares = type("Shares", (plain,), {"resources": Resources(cpus=0.5, gpus=0.25)})
    assert resources_of(shares, CUDA, 3) == Resources(0.5, 0.25)
    assert resources_of(shares, CPU, 3) == Resources(0.5, 0)
    assert device_of(plain, CUDA) == device_of(shares, CUDA) == CUDA
    assert device_of(type("OfProcessors", (plain,), {"resources": Resources(gpus=0)}), CUDA) == CPU
    with pytest.raises(ValueError, match="gpus = 1.5"):
        Resources(gpus=1.5)
    with pytest.raises(Exception, match="its resources are a dict"):
        resources_of(type("Wrong", (plain,), {"resources": {"cpus": 1}}), CPU, 1)


def test_nodes_are_named_in_order_and_a_later_run_on_a_like_machine_keeps_the_name():
    kind = {"processor": "P", "device": "cpu", "threads": 1, "workers": 2}
    nodes = Nodes()
    assert [nodes.named(id, kind)["name"] for id in ("host-x", "host-y", "host-x")] == ["node-1", "node-2", "node-1"]
    again = Nodes(nodes.known)
    assert again.named("elsewhere", kind)["name"] == "node-1"
    assert again.named("other", {**kind, "workers": 1})["name"] == "node-3"
    assert "host" not in str(again.known)


def test_a_node_has_a_name_for_its_gpu_and_one_for_what_runs_beside_it():
    kind = {"processor": "P", "device": "cpu", "threads": 1, "workers": 4}
    nodes = Nodes()
    cpu, gpu = nodes.named("a", kind), nodes.named("a", {**kind, "device": "cuda (H)"})
    assert (cpu["name"], cpu["device"], gpu["name"], gpu["device"]) == ("node-1", "cpu", "node-2", "cuda (H)")
    assert nodes.named("a", kind) is cpu and nodes.named("b", kind)["name"] == "node-3"
    again = Nodes(nodes.known)
    assert again.named("x", {**kind, "device": "cuda (H)"})["name"] == "node-2" and len(again.known) == 3
