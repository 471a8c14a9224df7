"""Saved learners: loaded, they predict the same bytes; a broken, foreign or too new folder is refused in one line."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.errors import DataError, FewrecError, FolderError
from fewrec.learners import registry
from fewrec.learners.base import Context
from fewrec.learners.registry import BUILTIN, add_plugin_file, learner_class
from fewrec.learners.saved import differences, load_learner, read_record, save_learner
from fewrec.learners.saved_record import TrainedOn
from tests.learners.test_conformance import ELSEWHERE, SMALL

DATASET = make_synthetic(n_users=60, n_items=50, density=0.6, seed=5)


@pytest.fixture(scope="module")
def split():
    return split_dataset(DATASET, Protocol(state="both-cold", k_max=6, item_shots=2), 0)


@pytest.fixture(scope="module")
def ctx(split, tmp_path_factory):
    return Context(torch.device("cpu"), split.catalog, DATASET.scale, tmp_path_factory.mktemp("cache"))


def fitted(cls, config, split, ctx):
    learner = cls(cls.Config(**config))
    learner.prepare(ctx)
    if cls.has_meta_fit():
        learner.meta_fit(MetaTrainSet(split, ctx.scale), ctx)
    return learner


def save(learner, folder, split, **options):
    options = {"code_hash": "abc", "seconds": 1.5, **options}
    return save_learner(learner, folder, TrainedOn.of(DATASET, split), **options)


def predictions(learner, split, ctx):
    """Return what is predicted of all items for the users of three test episodes, as bytes."""
    sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=6, item_shots=2)
    support = sampler.sample(0, 3, n_users=3, k_shot=4, n_query=5).support
    n = len(split.catalog)
    episode, user = torch.arange(3).repeat_interleave(3 * n), torch.arange(3).repeat_interleave(n).repeat(3)
    found = learner.adapt_batch(support, ctx).predict(episode, user, torch.arange(n).repeat(9))
    return found.detach().numpy().tobytes()


@pytest.fixture(scope="module")
def gp(split, ctx):
    return fitted(learner_class("gp"), SMALL["gp"], split, ctx)


@pytest.fixture
def saved(gp, split, tmp_path):
    save(gp, tmp_path / "gp", split)
    return tmp_path / "gp"


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - set(ELSEWHERE)))
def test_a_loaded_learner_predicts_the_same_bytes(name, split, ctx, tmp_path):
    learner = fitted(learner_class(name), SMALL.get(name, {}), split, ctx)
    before = predictions(learner, split, ctx)
    save(learner, tmp_path, split)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learner.json", "state.safetensors"]
    loaded = load_learner(tmp_path, ctx)
    assert type(loaded) is type(learner) and loaded.config == learner.config
    assert predictions(loaded, split, ctx) == before


@pytest.mark.parametrize("name", ["bert-meta", "prompt-lm-meta"])
def test_a_loaded_text_learner_predicts_the_same_bytes(name, tiny_bert, split, ctx, tmp_path):
    config = {"backbone": tiny_bert, "meta_epochs": 1, "epochs": 2}
    cls = learner_class(name)
    learner = fitted(cls, {key: value for key, value in config.items() if key in cls.Config.model_fields}, split, ctx)
    record = save(learner, tmp_path, split)
    assert record.loaded, "the weights that it was made with are named by their hash"
    assert predictions(load_learner(tmp_path, ctx), split, ctx) == predictions(learner, split, ctx)


PLUGIN = '''
import torch
from fewrec.learners.base import Learner, Predictor


class Constant(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return self.value[items]


class PluginMean(Learner):
    """Predict the item's sum of meta-train ratings over one more than their number."""

    name = "plugin-mean"

    def meta_fit(self, source, ctx):
        item, rating = torch.tensor(source.table.item), torch.tensor(source.table.rating)
        n = len(source.catalog)
        self.mean = torch.zeros(n).double().index_add(0, item, rating) / (torch.bincount(item, minlength=n) + 1)

    def adapt(self, support, ctx):
        return Constant(self.mean)

    def state(self):
        return {"mean": self.mean}, {"note": "of a plugin"}

    def load_state(self, tensors, values, ctx):
        assert values["note"] == "of a plugin"
        self.mean = tensors["mean"]
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_files", {})
    path = tmp_path / "my_plugin.py"
    path.write_text(PLUGIN)
    add_plugin_file(path)
    return path


def test_a_plugin_is_saved_and_loaded_once_it_is_given(plugin, split, ctx, tmp_path, monkeypatch):
    learner = fitted(learner_class("plugin-mean"), {}, split, ctx)
    save(learner, tmp_path / "saved", split)
    assert predictions(load_learner(tmp_path / "saved", ctx), split, ctx) == predictions(learner, split, ctx)
    monkeypatch.setattr(registry, "_files", {})
    with pytest.raises(DataError, match="holds learner 'plugin-mean'.*isn't known here; give --plugin FILE"):
        load_learner(tmp_path / "saved", ctx)
    given = f"{type(learner).__module__}:PluginMean"
    assert predictions(load_learner(tmp_path / "saved", ctx, learner=given), split, ctx)


def test_what_a_record_names_is_never_imported(saved, ctx, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    record = json.loads((saved / "learner.json").read_text())
    for name in ("trap:Learner", "trap"):
        (saved / "learner.json").write_text(json.dumps({**record, "learner": name, "target": "trap:Learner"}))
        with pytest.raises(DataError, match="isn't known here"):
            load_learner(saved, ctx)
    (saved / "learner.json").write_text(json.dumps({**record, "target": "trap:Learner"}))
    load_learner(saved, ctx)
    assert "trap" not in sys.modules


def test_the_record_says_what_the_learner_was_trained_on(gp, saved, split):
    record = read_record(saved)
    on = record.trained_on
    assert (record.learner, record.target) == ("gp", "fewrec.learners.gp:GP")
    assert record.config == gp.config.model_dump(mode="json") and record.config["rank"] == 3
    assert record.tensors["mean"].dtype == "float64" and record.tensors["mean"].shape == (50,)
    assert (on.dataset, on.table_sha256, on.scale) == (DATASET.name, DATASET.table.sha256, (1.0, 5.0, 1.0))
    assert (on.users, on.ratings, on.split_sha256) == (split.meta_train.n_users, len(split.meta_train), split.sha256)
    assert np.array_equal(on.seen(), split.catalog.seen) and not on.seen().all()


def test_saving_twice_gives_the_same_bytes(gp, saved, split, tmp_path):
    save(gp, tmp_path / "again", split)
    for name in ("learner.json", "state.safetensors"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_save_that_fails_half_way_leaves_nothing_that_loads(gp, split, ctx, tmp_path, monkeypatch):
    folder = tmp_path / "half"
    (folder / "learner.json").mkdir(parents=True)  # the state can be written, the record can't
    with pytest.raises(FolderError, match="learner.json: can't be written"):
        save(gp, folder, split)
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]
    (folder / "learner.json").rmdir()
    with pytest.raises(DataError, match="no saved learner there"):
        load_learner(folder, ctx)


def test_a_state_of_another_save_is_refused(gp, saved, split, ctx, tmp_path):
    other = fitted(learner_class("gp"), SMALL["gp"] | {"rank": 2}, split, ctx)
    save(other, tmp_path / "other", split)
    shutil.copy(tmp_path / "other" / "state.safetensors", saved)
    with pytest.raises(DataError, match="state.safetensors: not the file that learner.json was written for"):
        load_learner(saved, ctx)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda record: "{", "not readable as JSON"),
        (lambda record: "[" * 100_000, "not readable as JSON"),
        (lambda record: "[1]", "not the record of a saved learner"),
        (lambda record: '{"rows": []}', "not the record of a saved learner"),
        (lambda record: json.dumps({**record, "schema_version": 99}), "in format 99, this version reads format 1"),
        (lambda record: json.dumps({**record, "seconds": "long"}), "broken at 'seconds'"),
        (lambda record: json.dumps({**record, "extra": 1}), "broken at 'extra'"),
        (lambda record: json.dumps({k: v for k, v in record.items() if k != "config"}), "broken at 'config'"),
        (
            lambda record: json.dumps({**record, "config": {"rank": 3, "gone": 1}}),
            "'gp' has no option 'gone'.*train anew",
        ),
        (lambda record: json.dumps({**record, "values": {}}), "'gp' can't be restored from it"),
        (lambda record: json.dumps({**record, "tensors": {}}), "its tensors are not those"),
        (lambda record: json.dumps({**record, "loaded": {"weights": "0"}}), "other weights"),
        (
            lambda record: json.dumps({**record, "trained_on": {**record["trained_on"], "unseen_items": [99]}}),
            "broken at 'trained_on.unseen_items'",
        ),
    ],
)
def test_a_broken_record_is_one_clear_error(saved, ctx, broken, message):
    path = saved / "learner.json"
    path.write_text(broken(json.loads(path.read_text())))
    with pytest.raises(DataError, match=message) as error:
        load_learner(saved, ctx)
    assert str(saved) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_broken_state_is_one_clear_error(saved, ctx, content):
    path = saved / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    with pytest.raises(DataError, match="state.safetensors: not the file that learner.json was written for"):
        load_learner(saved, ctx)
    path.unlink()
    with pytest.raises(DataError, match="state.safetensors: can't be read"):
        load_learner(saved, ctx)


def test_a_folder_without_a_learner_is_named(ctx, tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: no saved learner there"):
        load_learner(tmp_path, ctx)


def test_other_items_and_another_scale_are_refused(saved, ctx):
    ids = ctx.catalog.item_ids.copy()
    ids[[3, 4]] = ids[[4, 3]]
    with pytest.raises(DataError, match="trained on the 50 items"):
        load_learner(saved, replace(ctx, catalog=replace(ctx.catalog, item_ids=ids)))
    with pytest.raises(DataError, match=r"rating scale 1..5 .*and this is 0..10"):
        load_learner(saved, replace(ctx, scale=Scale(0, 10, 1)))


def test_another_learner_than_the_saved_one_is_refused(saved, ctx):
    with pytest.raises(DataError, match="holds learner 'gp', not 'bias'"):
        load_learner(saved, ctx, learner="bias")


def test_only_options_of_adapting_can_be_changed(saved, split, ctx, tmp_path):
    with pytest.raises(DataError, match="it was trained with rank=3; options that can be changed .*: none"):
        load_learner(saved, ctx, config={"rank": 5})
    with pytest.raises(DataError, match="'gp' has no option 'rnk'; did you mean 'rank'.$"):
        load_learner(saved, ctx, config={"rnk": 5})
    load_learner(saved, ctx, config={"rank": 3})
    mean = fitted(learner_class("user-mean"), {}, split, ctx)
    save(mean, tmp_path / "mean", split)
    changed = load_learner(tmp_path / "mean", ctx, config={"shrinkage": 1.0})
    assert changed.config.shrinkage == 1.0
    assert predictions(changed, split, ctx) != predictions(mean, split, ctx)


def test_what_has_changed_since_is_a_warning(saved, split):
    record = read_record(saved)
    assert differences(record, DATASET, "abc") == []
    other = replace(DATASET, table=DATASET.table.select(DATASET.table.user > 3))
    told = differences(record, other, "def")
    assert len(told) == 2 and "with other code" in told[0] and "ratings" in told[1]


def test_a_state_that_is_not_json_is_refused_when_it_is_saved(gp, split, tmp_path, monkeypatch):
    monkeypatch.setattr(gp, "state", lambda: ({}, {"selection": float("nan")}))
    with pytest.raises(FewrecError, match="its state isn't JSON"):
        save(gp, tmp_path / "nan", split)
    assert not (tmp_path / "nan").exists()
