"""The folder of a fine-tuning run, damaged: it is refused in one line, and no other file is read in its place."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fewrec.data.weights import find_weights
from fewrec.errors import DataError, FolderError
from fewrec.finetune.folder import FinetuneFolder
from fewrec.finetune.model import check_backbone
from fewrec.finetune.options import FinetuneOptions

ENVIRONMENT = {"versions": {}}
MANIFEST = {"kind": "fewrec finetune", "schema": 1, "run": {}, "environment": ENVIRONMENT}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    save_file({"w": torch.ones(2)}, tmp_path / "state-00001.safetensors")
    (tmp_path / "checkpoint.json").write_text(json.dumps({"state": "state-00001.safetensors", "epochs": [{}]}))
    return tmp_path


@pytest.mark.parametrize("manifest", ["[]", "3", "[" * 100_000])
def test_a_manifest_that_is_no_object_is_of_something_else(folder, manifest):
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(FolderError, match="not of this command"):
        FinetuneFolder(folder).open({}, ENVIRONMENT)


@pytest.mark.parametrize("changed", [{"environment": 3, "run": 3}, {"environment": {"versions": 3}}])
def test_odd_entries_of_a_manifest_are_those_of_another_run(folder, changed):
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | changed))
    with pytest.raises(FolderError, match="belongs to another run"):
        FinetuneFolder(folder).open({"epochs": 3}, {"versions": {"torch": "2"}})


@pytest.mark.parametrize(
    "record",
    [{"state": "state-00001.safetensors", "epochs": 3}, {"state": "../x.safetensors", "epochs": [{}]},
    {"epochs": [{}]}, [1],
     {"state": ["x"], "epochs": [{}]}],
)  # fmt: skip
def test_a_checkpoint_that_can_not_be_right_is_refused(folder, record):
    with FinetuneFolder(folder).open({}, ENVIRONMENT) as held:
        assert held.kept()[1]["w"].tolist() == [1, 1]
        (folder / "checkpoint.json").write_text(json.dumps(record))
        with pytest.raises(FolderError, match="the kept state can't be read"):
            held.kept()


def test_results_that_can_not_be_shown_are_refused(folder):
    (folder / "results.json").write_text('{"rows": [{"label": "x"}]}')
    (folder / "timings.json").write_text('{"rows": 3}')
    with pytest.raises(FolderError, match=r"results\.json: it can't be shown \(KeyError: 'mse'\); remove the folder"):
        FinetuneFolder(folder).finished()


@pytest.mark.parametrize("config", ["[1]", "[" * 100_000, '{"model_type": "bert", "max_position_embeddings": "many"}'])
def test_a_configuration_of_weights_that_is_none_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="config.json"):
        check_backbone(find_weights(tmp_path, offline=True), FinetuneOptions(backbone=str(tmp_path)))


def test_a_folder_in_the_place_of_a_file_is_passed_over(tmp_path, folder):
    (folder / "state-00009.safetensors").mkdir()
    with FinetuneFolder(folder).open({}, ENVIRONMENT) as held:
        assert held.kept()[1]["w"].tolist() == [1, 1]
    weights = tmp_path / "weights"
    (weights / "model.safetensors").mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    with pytest.raises(DataError, match="no \\*.safetensors file"):
        find_weights(weights, offline=True)
