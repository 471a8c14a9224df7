"""What frozen layers make of every item's text, computed once and kept on disk for all learners and runs.

Each file has the SHA-256 of its tensors in its header. One without it, or of other tensors, is computed again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewrec.data.fetch import to_stderr
from fewrec.learners.base import Context
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.packing import pack
from fewrec.seeding import digest

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ItemActivations:
    """The input of one layer for every item: item *i*'s tokens are rows ``offsets[i]:offsets[i + 1]`` of ``tokens``.

    ``tokens`` (sum of lengths, d), ``ids`` (sum of lengths,) int64 and ``offsets`` (n_items + 1,) int64, the latter two
    on the CPU. ``key`` names what they are of.
    """

    tokens: Tensor
    ids: Tensor
    offsets: Tensor
    key: str = ""

    @cached_property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def on(self, device: torch.device) -> ItemActivations:
        """Return them with ``tokens`` on the device, or in page-locked memory beside it where they are over 2 GB."""
        if device.type == "cpu":
            return self
        small = self.tokens.numel() * self.tokens.element_size() <= 2 * 2**30
        tokens = self.tokens.to(device) if small else self.tokens.pin_memory()
        return ItemActivations(tokens, self.ids, self.offsets, self.key)


def item_activations(
    backbone: Backbone, texts: Sequence[str], template: str, layer: int, max_length: int, ctx: Context
) -> ItemActivations:
    """Return the input of ``layer`` (0: the embeddings) for each text, from the cache or computed.

    The cached file's name is a hash of the weights, the layer, the token limit, the template and the texts; it is
    written under a temporary name and moved, so that concurrent runs at worst compute it twice.
    """
    text_hash = hashlib.sha256("\x1e".join(texts).encode()).hexdigest()
    dtype = str(next(backbone.trunk.parameters()).dtype)
    parts = ["packed", backbone.sha256, layer, max_length, template, text_hash, dtype]
    key = digest(parts)

    def compute() -> dict[str, Tensor]:
        found = _encode(backbone, texts, layer, max_length, ctx)
        return {"tokens": found.tokens, "ids": found.ids, "offsets": found.offsets}

    stored = _stored(ctx.cache / f"text-{key}.safetensors", compute)
    return ItemActivations(stored["tokens"], stored["ids"], stored["offsets"], key)


def stored_features(folder: Path, kind: Sequence[object], compute: Callable[[], Tensor]) -> Tensor:
    """Return what ``compute`` gives, kept on disk under a name that ``kind`` (JSON values) decides."""
    path = folder / f"text-{digest(list(kind))}.safetensors"
    return _stored(path, lambda: {"features": compute()})["features"]


def _stored(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors in ``path``, or compute and keep them; a cache that can't be written only costs time."""
    if path.exists():
        try:
            return _read(path)
        except (OSError, SafetensorError, ValueError) as error:
            to_stderr(f"warning: {path}: {' '.join(str(error).split())}: computed again")
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    try:
        _write(path, tensors)
    except (OSError, SafetensorError) as error:
        to_stderr(f"warning: {path}: can't be written ({' '.join(str(error).split())}): computed again next time")
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        recorded = (file.metadata() or {}).get("sha256")
    if recorded is None:
        raise ValueError("kept by an earlier version, without a checksum")
    if recorded != _sha256(tensors):
        raise ValueError("damaged (its tensors are not those that were written)")
    return tensors


def _sha256(tensors: dict[str, Tensor]) -> str:
    h = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        h.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        h.update(tensor.flatten().view(torch.uint8).numpy().data)
    return h.hexdigest()


@torch.no_grad()
def _encode(backbone: Backbone, texts: Sequence[str], layer: int, max_length: int, ctx: Context) -> ItemActivations:
    ids = backbone.tokenise(texts, max_length)
    lengths = torch.tensor([len(row) for row in ids], dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    flat = torch.tensor([i for row in ids for i in row], dtype=torch.int64)
    backbone.to(ctx.device)
    tokens = torch.empty(int(offsets[-1]), backbone.width, dtype=next(backbone.trunk.parameters()).dtype)
    batches = lengths.argsort(stable=True).split(_TEXTS_AT_ONCE)
    for batch in ctx.progress(batches, f"{backbone.name}: texts"):
        layout = pack(lengths[batch].unsqueeze(0))
        where = layout.index(offsets[batch].unsqueeze(0))
        rows = torch.where(where >= 0, flat[where.clamp_min(0)], 0).to(ctx.device)
        hidden = backbone.encode(layout.to(ctx.device), rows, layer).cpu()
        tokens[where[where >= 0]] = hidden[where >= 0]
    return ItemActivations(tokens, flat, offsets)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*"):  # of a process that was killed; a living one loses its copy only
        stale.unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, {"sha256": _sha256(tensors)})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
