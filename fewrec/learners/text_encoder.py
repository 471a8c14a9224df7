"""Item texts through a pretrained encoder: what is frozen is computed once an item, what is trained is run on top.

Apart from the learners because all that read text share it: loading a backbone, tokenising, the cache of the frozen
lower layers' activations, and running the upper layers on them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewrec.errors import DataError
from fewrec.seeding import digest

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Model types whose encoder is a list of layers called as ``layer(hidden, mask)``."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained encoder in evaluation mode, float32, without pooler; ``sha256`` is that of its weights."""

    model: Any
    tokenizer: Any
    sha256: str

    @property
    def n_layers(self) -> int:
        return len(self.model.encoder.layer)


def load_backbone(name: str) -> Backbone:
    """Load a BERT-like encoder by the name of its weights, a hub repository or a local folder; safetensors only.

    Raises ``DataError`` where there are no such weights or the model is of another family.
    """
    from fewrec.data.weights import find_weights

    weights = find_weights(name)
    hide_broken_torchvision()
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    config = AutoConfig.from_pretrained(weights.folder, local_files_only=True)
    if config.model_type not in FAMILIES:
        raise DataError(f"backbone {name} is a '{config.model_type}' model; give an encoder of {', '.join(FAMILIES)}")
    with _quiet(logging):
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, local_files_only=True)
        model = AutoModel.from_pretrained(
            weights.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
            add_pooling_layer=False,
        )
    return Backbone(model.eval().requires_grad_(False), tokenizer, weights.sha256)


def hide_broken_torchvision() -> None:
    """Make a torchvision that can't be imported look absent: transformers imports one that it finds, for texts too."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its image part, which no text needs
            importlib.import_module("torchvision")
    except Exception:  # built for another torch: anything from ImportError to RuntimeError
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # find_spec then reports that there is none


@contextlib.contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True, eq=False)
class ItemActivations:
    """The input of one layer for every item: item *i*'s tokens are rows ``offsets[i]:offsets[i + 1]`` of ``tokens``.

    ``tokens`` (sum of lengths, d), on the CPU (possibly mapped from a file), ``offsets`` (n_items + 1,) int64.
    """

    tokens: Tensor
    offsets: Tensor

    @cached_property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def padded(self, items: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the tokens of (b,) items, padded with zeros to (b, longest, d), and where they are, (b, longest)."""
        items = items.cpu()
        length = self.lengths[items]
        step = torch.arange(int(length.max()))
        mask = step < length.unsqueeze(1)
        rows = torch.where(mask, self.offsets[items].unsqueeze(1) + step, 0)
        hidden = self.tokens[rows] * mask.unsqueeze(2)
        return hidden.to(device), mask.to(device)

    def batches(self, items: Tensor, size: int) -> list[Tensor]:
        """Return positions into ``items``, ``size`` at a time, sorted by length so that little is padded."""
        return list(self.lengths[items.cpu()].argsort(stable=True).split(size))


def item_activations(
    backbone: Backbone, texts: Sequence[str], layer: int, max_length: int, cache: Path, device: torch.device
) -> ItemActivations:
    """Return the input of encoder layer ``layer`` (0: the embeddings) for each text, from the cache or computed.

    The cached file's name is a hash of the weights, the layer, the token limit and the texts; it is written under a
    temporary name and moved, so that concurrent runs at worst compute it twice.
    """
    text_hash = hashlib.sha256("\x1e".join(texts).encode()).hexdigest()
    dtype = str(next(backbone.model.parameters()).dtype)
    path = cache / f"text-{digest([backbone.sha256, layer, max_length, text_hash, dtype])}.safetensors"
    if not path.exists():
        found = _encode(backbone, texts, layer, max_length, device)
        _write(path, {"tokens": found.tokens, "offsets": found.offsets})
        return found
    stored = load_file(path)
    return ItemActivations(stored["tokens"], stored["offsets"])


def _encode(
    backbone: Backbone, texts: Sequence[str], layer: int, max_length: int, device: torch.device
) -> ItemActivations:
    tokenizer = backbone.tokenizer
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    lengths = torch.tensor([len(i) for i in ids], dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    model = backbone.model.to(device)
    layers = model.encoder.layer
    width, dtype = model.config.hidden_size, next(model.parameters()).dtype
    tokens = torch.empty(int(offsets[-1]), width, dtype=dtype)
    model.encoder.layer = layers[:layer]  # the upper ones' work would be thrown away
    try:
        with torch.inference_mode():
            for batch in lengths.argsort(stable=True).split(64):
                padded = tokenizer.pad({"input_ids": [ids[i] for i in batch.tolist()]}, return_tensors="pt")
                hidden = model(**padded.to(device)).last_hidden_state.cpu()
                for row, i in enumerate(batch.tolist()):
                    tokens[offsets[i] : offsets[i + 1]] = hidden[row, : lengths[i]]
    finally:
        model.encoder.layer = layers
    return ItemActivations(tokens, offsets)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


class UpperLayers(nn.Module):
    """The last layers of a backbone, from ``first`` on."""

    def __init__(self, backbone: Backbone, first: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(backbone.model.encoder.layer[first:])

    def forward(self, hidden: Tensor, mask: Tensor, prompt: Tensor | None = None) -> list[Tensor]:
        """Return the input (b, T, d) and each layer's output, (b, T, d) too, for a (b, T) bool mask.

        ``prompt`` (P, d): virtual tokens put before each text at this module's input (Lester et al., EMNLP 2021);
        their outputs are dropped again.
        """
        states = [hidden]
        n_prompt = 0 if prompt is None else len(prompt)
        if prompt is not None:
            hidden = torch.cat([prompt.expand(len(hidden), -1, -1), hidden], 1)
            mask = torch.cat([mask.new_ones(len(mask), n_prompt), mask], 1)
        attention = None if bool(mask.all()) else mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        for layer in self.layers:
            hidden = layer(hidden, attention)
            states.append(hidden[:, n_prompt:])
        return states


def mean_pool(states: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the means over each text's tokens, (b, d) for each of the states (b, T, d), side by side."""
    weight = mask.unsqueeze(2).to(states[0].dtype)
    return torch.cat([(hidden * weight).sum(1) for hidden in states], 1) / weight.sum(1)
