"""Model weights: GGUF files and folders of config.json and safetensors, whose sizes may be lies."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fewrec.data.weights import find_weights
from fewrec.finetune.model import check_backbone
from fewrec.finetune.options import FinetuneOptions
from tests.data.conftest import gguf_of  # noqa: F401  (fixture)
from tests.fuzz.harness import Target
from tests.fuzz.inputs import folders
from tests.fuzz.test_results import inside_state


def test_a_gguf_file(fuzz, gguf_of, tmp_path):  # noqa: F811
    """Nine of ten changes are in the header, behind which the file is what it was."""
    content = gguf_of().read_bytes()
    header = content.index(b"token_embd.weight") + 2_000

    def inside(r, name, content):
        for _ in range(r.randint(1, 3)):
            at = r.randint(0, max(0, min(header, len(content) - 1)))
            how = r.randint(0, 4)
            if how == 0:
                new = bytes([r.randint(0, 255)])
            elif how == 1:
                new = r.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1]).to_bytes(4, "little")
            elif how == 2:
                new = r.choice([0, 1, 2**20, 2**31, 2**40, 2**63 - 1, 2**64 - 1]).to_bytes(8, "little")
            elif how == 3:
                new = np.float32(r.choice([0, 1e30, float("nan"), -1])).tobytes()
            else:
                new = content[at : at + 4][::-1]
            content = content[:at] + new + content[at + len(new) :]
        return content

    def read(folder):
        (file,) = folder.iterdir()
        found = find_weights(file, cache=tmp_path / "cache", offline=True, notify=lambda line: None)
        assert (found.folder / "config.json").is_file() and (found.folder / "model.safetensors").is_file()

    target = Target("weights-gguf", "`fewrec.data.weights.find_weights`, GGUF", read)
    seeds = [{"model.gguf": content}]
    fuzz(target, seeds, folders(seeds, inside=inside, lose=False))


CONFIG = {
    "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 30, "max_position_embeddings": 64, "architectures": ["BertModel"], "pad_token_id": 0,
}  # fmt: skip


def test_a_folder_of_weights(fuzz):
    tensors = {"embeddings.word_embeddings.weight": torch.zeros(30, 8), "pooler.dense.bias": torch.zeros(8)}
    bert = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save(tensors)}
    roberta = {**bert, "config.json": json.dumps({**CONFIG, "model_type": "roberta"}).encode()}

    def read(folder):
        found = find_weights(folder, offline=True, notify=lambda line: None)
        assert len(found.sha256) == 64
        check_backbone(found, FinetuneOptions(backbone=str(folder), max_length=16))

    target = Target(
        "weights-folder",
        "`fewrec.data.weights.find_weights`, `finetune.model.check_backbone`",
        read,
        names=("--max-length",),
    )
    fuzz(target, [bert, roberta], folders([bert, roberta], inside=inside_state))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
