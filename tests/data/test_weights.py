"""Model weights by built-in name, hub repository or folder: no pickles, and quick to say what is missing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fewrec.data import weights
from fewrec.data.cards import WeightsCard
from fewrec.data.weights import find_weights
from fewrec.errors import DataError

SAFE, OTHER = (save({"weight": np.full(2, value, np.float32)}) for value in (1, 2))  # the least that is safetensors


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """A hub that refuses connections, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def folder_with(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_a_local_folder_is_used_as_it_is(tmp_path, sha):
    folder = folder_with(tmp_path / "mine", config__json=b"{}", model__safetensors=SAFE)
    found = find_weights(folder)
    assert (found.folder, found.sha256) == (folder, sha(SAFE))
    assert Path(found) == folder


def test_the_hash_of_sharded_weights_depends_on_every_shard(tmp_path):
    folder = folder_with(tmp_path / "mine", config__json=b"{}", a__safetensors=SAFE, b__safetensors=SAFE)
    first = find_weights(folder).sha256
    (folder / "b.safetensors").write_bytes(OTHER)
    assert find_weights(folder).sha256 != first


def test_pickled_weights_are_refused(tmp_path):
    folder = folder_with(tmp_path / "mine", config__json=b"{}", pytorch_model__bin=b"abc")
    with pytest.raises(DataError, match=r"no \*.safetensors file and no \*.gguf, .*pytorch_model.bin would run code"):
        find_weights(folder)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(DataError, match="no config.json"):
        find_weights(folder_with(tmp_path / "mine", model__safetensors=SAFE))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-MiniLM-L6", "unknown weights 'all-MiniLM-L6'; did you mean 'all-MiniLM-L6-v2'?"),
        ("./nowhere", "./nowhere: no such folder of weights"),
        ("some/where/else", "some/where/else: no such folder of weights"),
    ],
)
def test_unknown_weights_are_answered_with_what_would_work(name, expected):
    with pytest.raises(DataError) as caught:
        find_weights(name)
    assert str(caught.value).startswith(expected)


def test_a_file_is_not_a_folder_of_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(DataError, match="this is a file"):
        find_weights(tmp_path / "model.safetensors")


def test_an_unreachable_hub_is_given_up_within_seconds():
    start = time.perf_counter()
    with pytest.raises(DataError, match="model hub some/model: http://127.0.0.1:9 can't be reached"):
        find_weights("some/model")
    assert time.perf_counter() - start < 10


def test_offline_mode_asks_no_hub():
    with pytest.raises(DataError, match="some/model is not in the model hub's cache, and offline mode"):
        find_weights("some/model", offline=True)


def test_a_repository_in_the_hubs_cache_needs_no_network(tmp_path, sha):
    home, commit = tmp_path / "hub" / "models--some--model", "a" * 40
    folder_with(home / "snapshots" / commit, config__json=b"{}", model__safetensors=SAFE)
    folder_with(home / "refs", main=commit.encode())
    assert find_weights("some/model").sha256 == sha(SAFE)


def test_a_built_in_name_falls_through_from_the_hub_to_the_package(tmp_path, wheel_of, sha, monkeypatch):
    contents = {"config.json": b"{}", "model.safetensors": b"abc"}
    requirement = wheel_of({f"tiny_data/model/{name}": content for name, content in contents.items()})
    files = {name: sha(content) for name, content in contents.items()}
    card = WeightsCard(
        name="tiny-lm",
        aliases=["some/tiny-lm"],
        title="",
        licence="",
        citation="",
        homepage="",
        sources=[
            {"type": "hub", "repository": "some/tiny-lm", "files": files},
            {"type": "package", "requirement": requirement, "root": "tiny_data/model", "files": files},
        ],
    )
    monkeypatch.setattr(weights, "list_weights", lambda: [card])
    lines: list[str] = []
    found = find_weights("some/tiny-lm", cache=tmp_path / "cache", notify=lines.append)
    assert (found.name, found.sha256, found.source) == ("tiny-lm", sha(b"abc"), f"package {requirement}")
    assert len(lines) == 1 and "can't be reached" in lines[0]
    assert find_weights("tiny-lm", cache=tmp_path / "cache", offline=True).folder == found.folder


def test_a_weights_card_may_not_name_pickles():
    source = {"type": "hub", "repository": "a/b", "files": {"pytorch_model.bin": "0" * 64}}
    with pytest.raises(ValueError, match="weights are .safetensors"):
        WeightsCard(name="w", title="", licence="", citation="", homepage="", sources=[source])


@pytest.mark.parametrize("names", [("a.gguf", "b.gguf"), ("a.gguf", "model.safetensors"), ("config.json",)])
def test_a_weights_card_names_safetensors_or_one_gguf_file(names):
    source = {"type": "hub", "repository": "a/b", "files": dict.fromkeys(names, "0" * 64)}
    with pytest.raises(ValueError, match="weights are .safetensors or one .gguf"):
        WeightsCard(name="w", title="", licence="", citation="", homepage="", sources=[source])


def test_of_a_repository_without_safetensors_its_gguf_file_is_fetched(gguf_of, tmp_path, sha, monkeypatch):
    file, asked = gguf_of(), []

    def snapshot(repository, revision, patterns, offline=False):
        if offline:
            raise DataError("not here")
        asked.append(patterns)
        return file.parent

    monkeypatch.setattr(weights, "hub_snapshot", snapshot)
    monkeypatch.setattr(weights, "hub_files", lambda *_: ["README.md", "model.gguf", "config.json"])
    assert find_weights("some/model", cache=tmp_path / "cache").sha256 == sha(file.read_bytes())
    assert asked == [["model.gguf"]]


def test_a_repositorys_safetensors_win_and_many_gguf_files_are_refused(tmp_path, monkeypatch, sha):
    folder = folder_with(tmp_path / "repo", config__json=b"{}", model__safetensors=SAFE)

    def snapshot(repository, revision, patterns, offline=False):
        if offline:
            raise DataError("not here")
        return folder

    monkeypatch.setattr(weights, "hub_snapshot", snapshot)
    files = ["config.json", "model.safetensors", "model.Q4.gguf", "model.Q8.gguf"]
    monkeypatch.setattr(weights, "hub_files", lambda *_: files)
    assert find_weights("some/model").sha256 == sha(SAFE)
    files.remove("model.safetensors")
    with pytest.raises(DataError, match=r"some/model: it has 2 GGUF files .*; download one, and give its path"):
        find_weights("some/model")


def test_a_name_is_checked_without_fetching_anything():
    assert isinstance(weights.check_name("SmolLM2-135M-Instruct"), WeightsCard)
    assert weights.check_name("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    with pytest.raises(DataError, match="did you mean 'SmolLM2-135M-Instruct'?"):
        weights.check_name("SmolLM2-135M")
