"""A real Ray cluster of several node processes: the bytes of a serial run, and what happens when a node dies."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fewrec
from fewrec.data.weights import Weights, find_weights
from fewrec.errors import DataError, SuiteError
from fewrec.runner.executors import shipped
from fewrec.runner.executors.shipped import ShippedWeights, install_plugin, install_weights, ship_weights
from fewrec.runner.progress import Reporter
from tests.runner.conftest import TINY
from tests.runner.test_execute import score_bytes
from tests.runner.test_executors import halved

ray = pytest.importorskip("ray", reason="needs ray: pip install 'fewrec[ray]'")

PLUGIN = '''
"""A joint learner from a plugin's file, slow enough that a node can die under it."""
import time

import torch

from fewrec.learners.base import Learner, Predictor


class Mean(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return torch.full((len(items),), self.value)


class Joint(Learner):
    """The mean of all support ratings of an episode, between 1 and what it learnt."""
    name = "joint"
    task = "episode"

    def meta_fit(self, source, ctx):
        self.mean = torch.tensor(source.table.rating.mean())

    def adapt(self, support, ctx):
        time.sleep(0.02)
        return Mean(float((support.rating.sum() + self.mean) / (len(support.rating) + 1)))

    def state(self):
        return {"mean": self.mean}, {}

    def load_state(self, tensors, values, ctx):
        self.mean = tensors["mean"]
'''
SMALL = {
    "learners": ["bias", "mf-foldin", "mf-scratch", "joint"], "seeds": [0], "threads": 1, "device": "cpu",
    "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def serial(tiny_data, tmp):
    """Options of a run and the folder of it in one process."""
    suite, plugin = tmp / "tiny.toml", tmp / "joint_mean.py"
    suite.write_text(TINY.replace("episodes = 6", "episodes = 12"))
    plugin.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewrec.learners.registry._files", {})
        options = {"suite": str(suite), "data": tiny_data, "plugins": [plugin], **SMALL}
        fewrec.run(**options, out=tmp / "serial")
        yield options, tmp / "serial"


@pytest.fixture(scope="module")
def cluster(tmp):
    """A head that runs nothing and two nodes with a processor each, whose cache is not the driver's."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for number in (1, 2):
        cluster.add_node(num_cpus=1, env_vars=node_environment(tmp, number))
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def node_environment(tmp, number):
    return {"FEWREC_CACHE": str(tmp / f"cache-{number}"), "FEWREC_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


class KillsANode(Reporter):
    """Has a node die as soon as some episodes are complete, and keeps what the run warns of."""

    def __init__(self, cluster):
        self.cluster, self.warnings, self.episodes = cluster, [], 0

    def episodes_done(self, count):
        self.episodes += count
        if self.episodes >= 8 and self.cluster is not None:
            cluster, self.cluster = self.cluster, None
            cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0], allow_graceful=False)

    def warn(self, text):
        self.warnings.append(text)


@pytest.mark.slow
def test_a_run_on_two_nodes_has_the_bytes_of_a_serial_one(serial, cluster, tmp):
    options, whole = serial
    handler = signal.getsignal(signal.SIGTERM)
    fewrec.run(**options, out=tmp / "two", executor="ray", ray_address=cluster.address)
    assert signal.getsignal(signal.SIGTERM) is handler, "Ray has taken SIGTERM, which ends a run with a line"
    assert score_bytes(tmp / "two") == score_bytes(whole) != {}
    nodes = json.loads((tmp / "two" / "manifest.json").read_text())["nodes"]
    assert {node["name"] for node in nodes} <= {"node-1", "node-2"} and {node["workers"] for node in nodes} == {1}
    assert not ray.is_initialized(), "the run has left the cluster"
    plugins = list(tmp.glob("cache-*/plugins/*/joint_mean.py"))
    assert plugins and all(p.parent.name == hashlib.sha256(p.read_bytes()).hexdigest() for p in plugins)


@pytest.mark.slow
def test_weights_that_a_node_lacks_are_shipped_to_its_cache(serial, cluster, tmp, monkeypatch):
    options, _ = serial
    here = tmp / "here"
    here.mkdir()
    make_bert(here / "tiny-bert")
    monkeypatch.chdir(here)  # the nodes are at work elsewhere: for them this relative path leads nowhere
    options = {**options, "learners": ["embed-ridge"], "shots": [2], "episodes": 4,
               "settings": {"embed-ridge": {"backbone": "./tiny-bert"}}}  # fmt: skip
    fewrec.run(**options, out=tmp / "lm-serial")
    results = fewrec.run(**options, out=tmp / "lm-ray", executor="ray", ray_address=cluster.address)
    assert set(results.cells["status"]) == {"ok"}, results.cells["reason"].tolist()
    assert score_bytes(tmp / "lm-ray") == score_bytes(tmp / "lm-serial") != {}
    came = list(tmp.glob("cache-*/weights/shipped/*/model.safetensors"))
    assert came and came[0].read_bytes() == (here / "tiny-bert" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_node_s_own_weights_of_the_same_name_are_no_substitute_and_a_fit_on_others_is_made_anew(
    serial, cluster, tmp, monkeypatch
):
    from fewrec.runner.executors import ray as of_ray

    options, _ = serial
    here = tmp / "changing"
    here.mkdir()
    for seed, name in enumerate("ab"):
        make_bert(here / name, seed)
    model = here / "model"
    model.symlink_to(here / "a")
    options = {**options, "learners": ["embed-ridge"], "shots": [2], "episodes": 4,
               "settings": {"embed-ridge": {"backbone": str(model)}}}  # fmt: skip
    on = {"executor": "ray", "ray_address": cluster.address}
    other = find_weights(str(here / "b"))
    with monkeypatch.context() as patch:  # the nodes find other weights at this path than the driver
        patch.setattr(of_ray, "find_weights", lambda name: other)
        fewrec.run(**options, out=here / "ray", **on)
    fewrec.run(**options, out=here / "of-a")
    model.unlink()
    model.symlink_to(here / "b")
    fewrec.run(**options, out=here / "of-b")
    assert score_bytes(here / "ray") == score_bytes(here / "of-b") != score_bytes(here / "of-a")

    shutil.rmtree(here / "of-a" / "cells")
    fewrec.run(**options, out=here / "of-a", **on)  # its meta-fit is that of the other weights
    assert score_bytes(here / "of-a") == score_bytes(here / "of-b")


def test_a_node_that_differs_is_refused_with_a_line_that_names_it(serial, cluster, tmp, monkeypatch):
    options, _ = serial
    from fewrec.runner.executors import ray as of_ray

    described = of_ray.describe
    monkeypatch.setattr(of_ray, "describe", lambda *a: {**described(*a), "python": "3.11.0"})
    with pytest.raises(SuiteError) as refused:
        fewrec.run(**options, out=tmp / "refused", executor="ray", ray_address=cluster.address)
    line = str(refused.value)
    assert f"node {os.uname().nodename} differs: python: 3.11.0 -> " in line and "\n" not in line
    assert not ray.is_initialized() and not score_bytes(tmp / "refused")


@pytest.mark.slow
def test_a_half_done_serial_run_is_resumed_on_a_cluster_whose_node_dies_in_mid_run(serial, cluster, tmp):
    options, whole = serial
    kept = halved(whole, tmp / "half")
    reporter = KillsANode(cluster)
    fewrec.run(**options, out=tmp / "half", executor="ray", ray_address=cluster.address, reporter=reporter)
    assert reporter.cluster is None, "no node was killed"
    assert score_bytes(tmp / "half") == score_bytes(whole)
    assert {name: (tmp / "half" / name).stat().st_mtime_ns for name in kept} == kept
    assert {p.parent.name for p in (tmp / "half").glob("cells/*/cell.json")} == {
        p.parent.name for p in whole.glob("cells/*/cell.json")
    }


@pytest.mark.slow
def test_a_local_ray_says_nothing_on_the_terminal_and_is_gone_with_the_run(tmp):
    (tmp / "local.toml").write_text(TINY.replace('"tiny"]', '"synthetic"]'))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fewrec", "run", str(tmp / "local.toml"), "--learner", "bias", "--seed", "0",
         "--shots", "2", "--executor", "ray", "--jobs", "1", "--threads", "1", "--offline", "--device", "cpu",
         "--out", str(tmp / "local")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "ETA" not in line] == []
    assert "bias" in done.stdout and "ray" not in done.stdout.lower().replace(str(tmp).lower(), "")


class LooksAround(Reporter):
    """Notes at which address the Ray of a run is."""

    def finished(self, spec, status):
        self.addresses = [node["NodeManagerAddress"] for node in ray.nodes()]


@pytest.mark.slow
def test_a_local_ray_is_on_the_loopback_interface_alone(serial, tmp):
    options, _ = serial
    reporter = LooksAround()
    options = {**options, "learners": ["bias"], "shots": [2], "reporter": reporter}
    fewrec.run(**options, out=tmp / "loopback", executor="ray", jobs=1)
    assert reporter.addresses == ["127.0.0.1"] and not ray.is_initialized()


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/../../x.json", "", "..\\x.json", "c:x", "a//b"])
def test_shipped_files_stay_in_their_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWREC_CACHE", str(tmp_path / "cache"))
    data = np.frombuffer(b"{}", np.uint8)
    sent = ShippedWeights("w", "0", "s", ((name, data, hashlib.sha256(b"{}").hexdigest()),))
    with pytest.raises(DataError, match="outside their folder"):
        install_weights("w", sent)
    assert not list(tmp_path.rglob("*.json"))


def test_shipped_files_are_verified_and_then_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fewrec.data.weights._installed", {})
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "code.py").write_text("raise SystemExit")
    sent = ship_weights(Weights("w", folder, "abc", "somewhere"), lambda data: data)
    assert [name for name, _, _ in sent.files] == ["config.json"], "neither code nor pickles travel"
    found = install_weights("some/name", sent)
    assert find_weights("some/name") is found and (found.folder / "config.json").read_text() == "{}"
    wrong = ShippedWeights("w", "abc", "s", tuple((name, data, "0" * 64) for name, data, _ in sent.files))
    with pytest.raises(DataError, match="not what was sent"):
        install_weights("w", wrong)


def test_a_plugin_s_text_is_verified_and_its_name_is_that_of_a_file(tmp_path):
    sha256 = hashlib.sha256(b"x = 1").hexdigest()
    assert install_plugin("p.py", b"x = 1", sha256, tmp_path).read_bytes() == b"x = 1"
    for name in ("../p.py", "/p.py", "p", ".p.py", "a/b.py"):
        with pytest.raises(DataError, match="not the name of a Python file"):
            install_plugin(name, b"x = 1", sha256, tmp_path)
    with pytest.raises(DataError, match="not what was sent"):
        install_plugin("p.py", b"x = 2", hashlib.sha256(b"x = 3").hexdigest(), tmp_path)


def test_a_learner_that_no_node_has_room_for_is_refused(serial, cluster, tmp, monkeypatch):
    from fewrec.learners.bias import Bias
    from fewrec.learners.resources import Resources

    options, _ = serial
    monkeypatch.setattr(Bias, "resources", Resources(cpus=64), raising=False)
    with pytest.raises(SuiteError, match="no node has 64 processors, which units of 'bias' want"):
        fewrec.run(**options, out=tmp / "large", executor="ray", ray_address=cluster.address)


def test_a_node_s_room_is_what_a_learner_reserves_and_one_that_fits_nowhere_any_more_ends_the_run(monkeypatch):
    from fewrec.errors import FewrecError
    from fewrec.learners.resources import Resources
    from fewrec.runner.executors import ray as of_ray

    large, small = ({"Alive": True, "NodeID": name, "Resources": has} for name, has in
                    (("large", {"CPU": 8.0, "GPU": 1.0}), ("small", {"CPU": 2.0})))  # fmt: skip
    executor = object.__new__(of_ray.RayExecutor)
    executor._wants = {"plain": Resources(1.0, 0.0), "half": Resources(0.5, 0.0), "gpu": Resources(1.0, 0.25),
                       "wide": Resources(4.0, 0.0), "free": Resources(0.0, 0.0)}  # fmt: skip
    executor.threads, executor.jobs = 1, None
    room = {name: (executor._room(large, name), executor._room(small, name)) for name in executor._wants}
    assert room == {"plain": (8, 2), "half": (16, 4), "gpu": (4, 0), "wide": (2, 0), "free": (8, 2)}

    alive = [large, small]
    executor._ray = SimpleNamespace(nodes=lambda: alive)
    executor._nodes, executor._looked, executor._alone_since = {}, float("-inf"), float("inf")
    executor._under_way = {"r": SimpleNamespace(spec=SimpleNamespace(learner="wide"))}
    executor._look()
    assert executor.slots == 20 + 2, "each node by the learner that it has most room for, and some wait in queues"
    alive.remove(large)
    monkeypatch.setattr(of_ray, "_LOOK_S", 0.0)
    executor._look()
    monkeypatch.setattr(of_ray, "_ALONE_S", 0.0)
    with pytest.raises(FewrecError, match="no node is left that units of 'wide' can run on.*again to go on"):
        executor._look()
    executor._under_way = {"r": SimpleNamespace(spec=SimpleNamespace(learner="plain"))}
    executor._look()
    assert executor._alone_since == float("inf")


def test_offline_mode_allows_only_a_cluster_of_this_machine():
    from fewrec.runner.executors.ray import check_ray

    for address in ("127.0.0.1:6379", "localhost:6379", "ray://127.0.0.1:10001", "[::1]:6379"):
        check_ray(address, offline=True)
    for address in ("10.0.0.1:6379", "auto", "ray://example.org:10001"):
        with pytest.raises(SuiteError, match="offline mode allows only"):
            check_ray(address, offline=True)
    assert shipped.PATTERNS  # what travels is what may be fetched


def make_bert(folder, seed=0):
    """Write a BERT of two narrow layers with a word-piece tokenizer of its own."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeiou")]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(folder)
