"""Backbones that are refused: what would run code, what is damaged or not whole, and what can't be taken apart."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from fewrec.errors import DataError
from fewrec.learners.text.backbone import load_backbone

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}


def copied(source: str, folder: Path) -> Path:
    for file in Path(source).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def edited(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_weights_are_refused_and_never_opened(tiny_bert, tmp_path):
    trap = tmp_path / "trap"
    with_pickle = tmp_path / "model"
    with_pickle.mkdir()
    copied(tiny_bert, with_pickle)
    (with_pickle / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(trap)))
    assert load_backbone(str(with_pickle)).kind == "encoder"
    (with_pickle / "model.safetensors").unlink()
    with pytest.raises(DataError, match="pytorch_model.bin would run code"):
        load_backbone(str(with_pickle))
    assert not trap.exists()


def test_a_folder_without_weights_is_refused(tiny_bert, tmp_path):
    copied(tiny_bert, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no \*.safetensors"):
        load_backbone(str(tmp_path))


def test_weights_that_lack_a_tensor_are_refused(tiny_bert, tmp_path):
    file = copied(tiny_bert, tmp_path) / "model.safetensors"
    tensors = load_file(file)
    del tensors["encoder.layer.2.output.dense.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(DataError, match=r"lack encoder.layer.2.output.dense.weight \(1 in all\)"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_one_clear_error(file, tiny_gpt2, tmp_path):
    path = copied(tiny_gpt2, tmp_path) / file
    path.write_bytes(path.read_bytes()[:-40])
    said = f"{tmp_path}: (transformers can't load it|config.json can't be read)"
    with pytest.raises(DataError, match=said) as caught:
        load_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("known", [True, False], ids=["a-known-model", "an-unknown-model"])
def test_code_that_a_model_brings_is_never_run(known, tiny_bert, tmp_path):
    trap = tmp_path / "trap"
    model = tmp_path / "model"
    model.mkdir()
    copied(tiny_bert, model)
    (model / "evil.py").write_text(f"import pathlib\npathlib.Path({str(trap)!r}).touch()\nclass Evil: ...\n")
    auto = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    edited(model / "config.json", auto_map=auto, **({} if known else {"model_type": "evil"}))
    edited(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    if known:
        assert load_backbone(str(model)).kind == "encoder"
    else:
        with pytest.raises(DataError, match="transformers can't load it"):
            load_backbone(str(model))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("model", "config", "options", "kind"),
    [
        ("BloomForCausalLM", "BloomConfig", {"n_layer": 3, "hidden_size": 32, "n_head": 4}, "bloom"),
        ("GPTNeoForCausalLM", "GPTNeoConfig", {"hidden_size": 32, "num_layers": 2, "num_heads": 4,
                                               "attention_types": [[["global", "local"], 1]]}, "gpt_neo"),
        ("AlbertModel", "AlbertConfig", SIZES, "albert"),  # one layer, again and again
        ("DebertaV2Model", "DebertaV2Config", SIZES, "deberta-v2"),
        ("GptOssForCausalLM", "GptOssConfig", SIZES | GROUPED | {"num_local_experts": 2}, "gpt_oss"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_taken_apart_is_refused_by_its_kind(model, config, options, kind, save_tiny, tmp_path):
    import transformers

    folder = save_tiny(tmp_path, getattr(transformers, model), getattr(transformers, config), **options)
    with pytest.raises(DataError, match=f"backbone {tmp_path}: .* '{kind}' model") as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_parts_that_do_not_give_the_whole_are_refused(tiny_gpt2, monkeypatch):
    from transformers import GPT2Model

    whole = GPT2Model.forward

    def scaled(self, *args, **kwargs):
        out = whole(self, *args, **kwargs)
        return SimpleNamespace(last_hidden_state=2 * out.last_hidden_state)

    monkeypatch.setattr(GPT2Model, "forward", scaled)
    with pytest.raises(DataError, match="'gpt2' model .*something else than the model"):
        load_backbone(tiny_gpt2)
