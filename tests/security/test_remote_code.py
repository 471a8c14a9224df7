"""Weights that bring code, or lead to weights that nobody has looked at: refused or left alone.

That ``auto_map`` runs nothing and that pickled weights are never opened is in test_backbone_refused.py of
tests/learners/text; that other files than safetensors, JSON and text aren't fetched, in tests/data/test_weights.py.
"""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest

from fewrec.data import weights
from fewrec.data.weights import check_name, find_weights
from fewrec.errors import DataError
from fewrec.learners.icl import InContextConfig, _chat
from fewrec.learners.text.backbone import load_backbone

ROOT = Path(__file__).resolve().parents[2]


class Trap:
    """What touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def model(tiny_bert, tmp_path) -> Path:
    shutil.copytree(tiny_bert, tmp_path / "model")
    return tmp_path / "model"


def edit(file: Path, **fields) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | fields))


def test_an_adapter_is_refused_since_transformers_would_load_the_model_that_it_names(model, tiny_bert, tmp_path):
    edit(model / "adapter_config.json", base_model_name_or_path=str(tiny_bert), peft_type="LORA")
    for call in (find_weights, load_backbone):
        with pytest.raises(DataError, match="adapter_config.json makes these weights an adapter of another model"):
            call(str(model))


def test_an_adapter_with_pickled_weights_is_never_opened(model, tmp_path):
    edit(model / "adapter_config.json", base_model_name_or_path=str(model), peft_type="LORA")
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises(DataError):
        load_backbone(str(model))
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", ["vocab.pkl", "tokenizer.pkl", "training_args.bin", "optimizer.pt", "vocab.bin"])
def test_pickles_beside_sound_weights_are_never_opened(name, model, tmp_path):
    (model / name).write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    edit(model / "tokenizer_config.json", tokenizer_file=name, vocab_file=name)
    try:
        load_backbone(str(model))
    except DataError:
        pass
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_a_chat_template_runs_nothing(where, model, tmp_path):
    trap = tmp_path / "trap"
    template = (
        "{{ cycler.__init__.__globals__.os.system('touch " + str(trap) + "') }}"
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}"
    )
    if where.endswith(".jinja"):
        (model / where).write_text(template)
    else:
        edit(model / where, chat_template=template)
    backbone = load_backbone(str(model))
    backbone.tokenise(["a text"], 16)
    if getattr(backbone.tokenizer, "chat_template", None):  # icl-lm renders it, in the sandbox of transformers
        with pytest.raises(Exception, match="unsafe|undefined|has no attribute"):
            _chat(InContextConfig(), backbone)
    assert not trap.exists()


def test_no_source_renders_a_chat_template_elsewhere_or_trusts_remote_code():
    for file in [*(ROOT / "fewrec").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr != "apply_chat_template" or file.name == "icl.py", f"{file}:{node.lineno}"
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
            elif isinstance(node, ast.Call):
                pairs = [(ast.Constant(k.arg), k.value) for k in node.keywords]
            else:
                continue
            for key, value in pairs:
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                    assert isinstance(value, ast.Constant) and value.value is False, f"{file}:{node.lineno}"


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", ["evil/attention", {"": "evil/attention@main:fn"}])
def test_a_configuration_that_asks_for_a_kernel_of_a_repository_is_refused(name, value, model):
    edit(model / "config.json", **{name: value})
    with pytest.raises(DataError, match=f"config.json asks for code of a repository .{name}: "):
        find_weights(model)
    edit(model / "config.json", **{name: "eager"}, text_config={name: value})
    with pytest.raises(DataError, match="asks for code of a repository"):
        find_weights(model)
    edit(model / "config.json", text_config={})
    assert find_weights(model).folder == model


@pytest.mark.parametrize(
    "name",
    ["owner/..", "owner/.", "../owner", "owner/a/b", "owner/a\x00", "owner/a\x1b[2J", "owner/a b", "owner\\..\\a",
     "/etc", "owner/-a", "~/a", "owner/a\n", "", ".", ".."],
)  # fmt: skip
def test_a_name_of_weights_is_owner_and_name_and_nothing_else(name, tmp_path, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(weights, "hub_snapshot", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    with pytest.raises(DataError):
        find_weights(name, cache=tmp_path / "cache", offline=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"] and not list((tmp_path / "cache").iterdir())
    assert check_name("owner/a-b_c.d") == "owner/a-b_c.d"
