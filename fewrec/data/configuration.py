"""What a folder of weights may say of itself, checked before transformers believes it: no other model or size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewrec.errors import DataError, reason_of

_LARGEST_JSON = 1 << 24  # of config.json: tables of labels make them long, never that long
_LARGEST_HEADER = 100_000_000  # of a safetensors file, as its own library has it
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers", "encoder_layers",
           "decoder_layers")  # fmt: skip
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "intermediate_size", "d_ff", "ffn_dim")
_ROWS = ("vocab_size", "type_vocab_size")
_SHARE = 64  # a table may have so many numbers a byte of the weights: 4 bits each, shared by layers, with room


def check_configuration(folder: Path, files: Sequence[Path], source: str) -> None:
    """Refuse a folder whose config.json leads elsewhere, or to a model far larger than its safetensors ``files``.

    Transformers follows an adapter's record to another folder or repository, whose weights nobody has looked at, and
    runs kernels that a repository holds. And it builds the model that config.json describes before it compares that
    with the weights: a number is all it takes to fill a machine's memory.

    Raises:
        DataError: one line that begins with ``source``.
    """
    if (folder / "adapter_config.json").exists():
        raise DataError(
            f"{source}: adapter_config.json makes these weights an adapter of another model; merge it into that first"
        )
    config = _read(folder / "config.json", source)
    tensors = sum(_tensors(file, source) for file in files)
    size = sum(file.stat().st_size for file in files)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            # "owner/name" is code there, which transformers fetches and runs whatever trust_remote_code says.
            if name.endswith("implementation") and "/" in json.dumps(value):
                raise DataError(
                    f"{source}: config.json asks for code of a repository ({name}: {json.dumps(value)[:80]})"
                )
        for name in _LAYERS:
            if _number(part, name) > max(tensors, 1):
                raise DataError(
                    f"{source}: config.json says {name} = {_number(part, name)}, and the weights hold {tensors} tensors"
                )
        width = max(_number(part, name) for name in _WIDTHS)
        rows = max(width, *(_number(part, name) for name in _ROWS))
        if rows * width > max(_SHARE * size, 1 << 24):
            raise DataError(
                f"{source}: config.json describes a table of {rows:,} x {width:,} numbers, and the weights have "
                f"{size:,} bytes"
            )


def _read(path: Path, source: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"larger than {_LARGEST_JSON >> 20} MB")
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{source}: config.json can't be read ({reason_of(error)}); get the model again") from None
    if not isinstance(config, dict):
        raise DataError(f"{source}: config.json is not the configuration of a model; get the model again")
    return config


def _tensors(file: Path, source: str) -> int:
    """Return the number of tensors that a safetensors file lists; what it lists, its library checks."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER, file.stat().st_size - 8):
                raise ValueError(f"its header claims {length:,} bytes")
            header = json.loads(stream.read(length))
        return len(header.keys() - {"__metadata__"})
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{source}: {file.name} is not a safetensors file ({str(error)[:200]})") from None


def _number(part: dict[str, Any], name: str) -> int:
    value = part.get(name)
    return value if isinstance(value, int) else 0
