"""Weights that come as GGUF: converted once, to the numbers that transformers reads, and refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from fewrec.data import gguf, weights
from fewrec.data.cards import WeightsCard
from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.data.weights import find_weights
from fewrec.errors import DataError

TEXT = "the cat, Émile (1995). Drama, Comedy. 4 stars"


@pytest.fixture
def find(tmp_path):
    """Return weights with a cache of the test's own; ``find.said`` has the lines that the user is shown."""

    def call(name):
        return find_weights(name, cache=tmp_path / "cache", offline=True, notify=call.said.append)

    call.said = []
    return call


def loaded(folder, **options):
    hide_broken_torchvision()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32, **options)
    return tokenizer, model.eval()


def test_the_converted_folder_gives_the_numbers_of_the_gguf_file(gguf_of, find, sha):
    file = gguf_of()
    found = find(file.parent)
    assert (found.name, found.sha256) == ("tiny", sha(file.read_bytes()))
    tokenizer, model = loaded(found.folder, use_safetensors=True)
    tokenizer_there, model_there = loaded(file.parent, gguf_file=file.name)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert ids.tolist() == tokenizer_there(TEXT, return_tensors="pt")["input_ids"].tolist()
    assert tokenizer.decode(ids[0]) == TEXT
    with torch.inference_mode():
        ours, theirs = model(ids).logits, model_there(ids).logits
    assert ours.std() > 0.01 and torch.equal(ours, theirs)
    assert "quantization_config" not in json.loads((found.folder / "config.json").read_text())


def test_it_is_converted_once_and_anew_where_the_copy_was_damaged(gguf_of, find):
    file = gguf_of()
    first = find(file.parent).folder
    assert find(file).folder == first and len(find.said) == 1 and "model.gguf: converting GGUF" in find.said[0]
    good = (first / "model.safetensors").read_bytes()
    (first / "model.safetensors").write_bytes(good[:-100])
    assert find(file).folder == first and len(find.said) == 2
    assert (first / "model.safetensors").read_bytes() == good


def test_another_file_and_another_version_of_a_reader_are_converted_apart(gguf_of, find, monkeypatch):
    one, other = find(gguf_of()), find(gguf_of("other/model.gguf", seed=1))
    assert one.folder != other.folder and one.sha256 != other.sha256
    monkeypatch.setattr(gguf.importlib.metadata, "version", lambda name: "0.0")
    assert find(gguf_of()).folder not in (one.folder, other.folder)


def test_safetensors_beside_a_gguf_file_win(gguf_of, find, sha):
    folder = gguf_of().parent
    (folder / "config.json").write_text("{}")
    content = (2).to_bytes(8, "little") + b"{}"
    (folder / "model.safetensors").write_bytes(content)
    assert (find(folder).folder, find(folder).sha256) == (folder, sha(content))


def test_two_gguf_files_are_refused_and_one_of_them_is_found_by_its_path(gguf_of, find):
    folder = gguf_of("both/a.gguf").parent
    gguf_of("both/b.gguf", seed=1)
    with pytest.raises(DataError, match=r"both: 2 GGUF files \(a.gguf, b.gguf\); give the path of the one to use"):
        find(folder)
    assert find(folder / "b.gguf").sha256 != find(folder / "a.gguf").sha256


@pytest.mark.parametrize(
    ("options", "keep", "message"),
    [
        ({}, slice(None, 3000), "model.gguf: transformers can't read this GGUF file; it is damaged, cut off"),
        ({}, slice(None, -3000), "model.gguf: transformers can't read this GGUF file; it is damaged, cut off"),
        ({}, slice(1, None), "model.gguf: not a GGUF file"),
        ({"architecture": "mpt"}, slice(None), "of an unknown model .*architecture mpt is not supported"),
        ({"without": "blk.1.ffn_up"}, slice(None), "model.gguf: the GGUF file lacks model.layers.1.mlp.up_proj.weight"),
        ({"spoilt": "blk.0.attn_k"}, slice(None), "damaged: model.layers.0.self_attn.k_proj.weight holds numbers that"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(options, keep, message, gguf_of, find, tmp_path):
    file = gguf_of(**options)
    file.write_bytes(file.read_bytes()[keep])
    for _ in range(2):  # a failure is not kept
        with pytest.raises(DataError, match=message) as caught:
            find(file.parent)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_without_the_package_gguf_the_command_that_installs_it_is_named(gguf_of, find, monkeypatch):
    file = gguf_of()
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs the package gguf, which is not installed: pip install 'fewrec\[lm\]'"):
        find(file)


def test_a_built_in_name_may_be_a_gguf_file_in_a_package(gguf_of, wheel_of, sha, tmp_path, monkeypatch):
    content = gguf_of().read_bytes()
    requirement = wheel_of({"tiny_data/tiny.gguf": content})
    source = {"type": "package", "requirement": requirement, "root": "tiny_data", "files": {"tiny.gguf": sha(content)}}
    card = WeightsCard(name="tiny-lm", title="", licence="", citation="", homepage="", sources=[source])
    monkeypatch.setattr(weights, "list_weights", lambda: [card])
    found = find_weights("tiny-lm", cache=tmp_path / "cache", notify=lambda line: None)
    assert (found.name, found.sha256, found.source) == ("tiny-lm", sha(content), f"package {requirement}")
    assert set(load_file(found.folder / "model.safetensors")) >= {"model.embed_tokens.weight", "model.norm.weight"}
    (fetched,) = (tmp_path / "cache" / "weights" / "tiny-lm").glob("*/tiny.gguf")
    fetched.write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match=r"tiny.gguf is damaged .*offline mode forbids to fetch it again"):
        find_weights("tiny-lm", cache=tmp_path / "cache", offline=True)


@pytest.mark.slow
def test_smollm2_holds_the_numbers_of_its_gguf_file_and_knows_the_capital_of_france():
    reader = pytest.importorskip("gguf", reason="the package gguf is not installed")
    try:
        found = find_weights("SmolLM2-135M-Instruct")
    except DataError as error:
        pytest.skip(f"SmolLM2-135M-Instruct can't be had here: {error}")
    assert found.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    tokenizer, model = loaded(found.folder, use_safetensors=True)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    from fewrec.data.cards import list_weights
    from fewrec.data.fetch import fetch

    (card,) = (card for card in list_weights() if card.name == "SmolLM2-135M-Instruct")
    (file,) = fetch(card, offline=True).folder.glob("*.gguf")
    tensors = {tensor.name: tensor for tensor in reader.GGUFReader(file).tensors}
    for there, here in (("token_embd", "embed_tokens"), ("blk.29.ffn_down", "layers.29.mlp.down_proj")):
        tensor = tensors[f"{there}.weight"]
        values = torch.from_numpy(reader.dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(model.get_parameter(f"model.{here}.weight"), values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("llama.embedding_length", 2**16, r"more than [\d,]+ weights"), ("llama.block_count", 500, "500 layers")],
)
def test_a_header_that_describes_a_model_beyond_the_file_is_refused_before_the_model_is_made(
    gguf_of, find, key, value, message
):
    file = gguf_of()
    content = file.read_bytes()
    at = content.index(key.encode()) + len(key) + 4  # behind the key comes the type, four bytes, then the value
    file.write_bytes(content[:at] + value.to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(DataError, match=rf"its header describes {message}, the file has [\d,]+ bytes"):
        find(file)


def test_a_header_without_a_number_of_layers_is_refused_before_the_default_number_is_made(gguf_of, find):
    file = gguf_of()
    file.write_bytes(file.read_bytes().replace(b"llama.block_count", b"llama.block_cOunt"))
    with pytest.raises(DataError, match="its header describes 32 layers, but 20 tensors in all"):
        find(file)
