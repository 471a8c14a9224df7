"""Units on a GPU in other processes: local ones, and those of a Ray cluster whose nodes share the GPU."""

import numpy as np
import pytest
import torch

import fewrec
from tests.runner.conftest import TINY
from tests.runner.test_execute import score_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")]

PLUGIN = '''
"""Learners that predict where they run: 4 on the GPU, 2 beside it, moved a little by the support ratings."""
import torch

from fewrec.learners.base import Learner, Predictor
from fewrec.learners.resources import Resources


class Constant(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return self.value.expand(len(items))


class Half(Learner):
    """Two units have the GPU together; what it learns before travels from one to the others."""
    name = "half"
    resources = Resources(gpus=0.5)

    def meta_fit(self, source, ctx):
        self.weight = torch.full((1,), 0.25, device=ctx.device)

    def adapt(self, support, ctx):
        assert self.weight.device.type == ctx.device.type
        where = 4.0 if ctx.device.type == "cuda" else 2.0
        return Constant(where + self.weight * support.rating.to(ctx.device).sum() / 128)

    def state(self):
        return {"weight": self.weight}, {}

    def load_state(self, tensors, values, ctx):
        self.weight = tensors["weight"].to(ctx.device)


class Aside(Half):
    """It has no use for a GPU."""
    name = "aside"
    resources = Resources(gpus=0)
'''
LEARNERS = ["bias", "mf-scratch", "maml-mf", "half", "aside"]
FEW = {"maml-mf": {"meta_steps": 20}}


@pytest.fixture(scope="module")
def options(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "tiny.toml").write_text(TINY.replace("episodes = 6", "episodes = 12"))
    (folder / "where.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewrec.learners.registry._files", {})
        yield {
            "suite": str(folder / "tiny.toml"), "data": tiny_data, "plugins": [folder / "where.py"], "seeds": [0],
            "learners": LEARNERS, "settings": FEW, "threads": 1, "device": "cuda", "progress": False,
        }  # fmt: skip


@pytest.fixture(scope="module")
def serial(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial") / "out"
    results = fewrec.run(**options, out=out)
    assert set(results.cells["status"]) == {"ok"}, results.cells["reason"].tolist()
    return out, results


def check(out, results, serial):
    """Compare with the serial run: to the byte what sums nothing on the GPU, else within what orders of sums do."""
    whole, expected = serial
    assert set(results.cells["status"]) == {"ok"}, results.cells["reason"].tolist()
    rows = ["cell", "episode", "user"]
    one, other = (r.scores.sort_values(rows, ignore_index=True) for r in (results, expected))
    assert one[rows].equals(other[rows]) and len(one) > 0
    np.testing.assert_allclose(one["se"], other["se"], rtol=1e-3, atol=1e-4)
    exact = set(expected.cells.query("learner in ['half', 'aside']")["cell"])
    here, there = score_bytes(out), score_bytes(whole)
    same = {name for name in there if here[name] == there[name]}
    assert {name for name in there if name.split("/")[1] in exact} <= same
    print(f"\n{len(same)} of {len(there)} files of scores have the bytes of the serial run")


def devices(results):
    """Return by learner the devices that its fits and blocks were timed on, each with its number of workers."""
    found = {}
    for learner, nodes in zip(results.cells["learner"], results.cells["nodes"], strict=True):
        found.setdefault(learner, set()).update((node["device"].split(" ")[0], node["workers"]) for node in nodes)
    return found


def test_a_learner_without_a_gpu_runs_beside_it_on_one_machine_too(serial):
    _, results = serial
    means = results.scores.merge(results.cells[["cell", "learner"]]).groupby("learner")["pred_mean"].mean()
    assert 4 < means["half"] < 5 and 2 < means["aside"] < 3
    assert devices(results) == {name: {("cpu" if name == "aside" else "cuda", 1)} for name in LEARNERS}
    peaks = results.cells.groupby("learner")["device_peak_mb"].max()
    assert peaks["half"] > 0 and np.isnan(peaks["aside"])


def test_two_local_processes_share_the_gpu(options, serial, tmp_path):
    results = fewrec.run(**options, out=tmp_path / "two", jobs=2)
    check(tmp_path / "two", results, serial)
    assert devices(results) == {name: {("cpu" if name == "aside" else "cuda", 2)} for name in LEARNERS}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head that runs nothing and two nodes of two processors, each with the GPU for its own, as far as Ray knows."""
    pytest.importorskip("ray", reason="needs ray: pip install 'fewrec[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    cache = tmp_path_factory.mktemp("nodes")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False})
    for number in (1, 2):
        env = {"FEWREC_CACHE": str(cache / str(number)), "FEWREC_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        cluster.add_node(num_cpus=2, num_gpus=1, env_vars=env)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_ray_cluster_gives_the_scores_of_a_serial_run_and_shares_of_a_gpu_let_more_units_run(
    options, serial, cluster, tmp_path
):
    results = fewrec.run(**options, out=tmp_path / "ray", executor="ray", ray_address=cluster.address)
    check(tmp_path / "ray", results, serial)
    alone, shared, aside = {("cuda", 1)}, {("cuda", 2)}, {("cpu", 2)}
    assert devices(results) == {
        "bias": alone, "mf-scratch": alone, "maml-mf": alone, "half": shared, "aside": aside,
    }  # fmt: skip


def test_a_node_with_a_gpu_dies_in_mid_run_and_the_other_ends_it(options, serial, cluster, tmp_path):
    from tests.runner.test_ray import KillsANode

    reporter = KillsANode(cluster)
    results = fewrec.run(
        **options, out=tmp_path / "killed", executor="ray", ray_address=cluster.address, reporter=reporter
    )
    assert reporter.cluster is None, "no node was killed"
    check(tmp_path / "killed", results, serial)
