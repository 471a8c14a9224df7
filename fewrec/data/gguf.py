"""GGUF to safetensors, once: transformers unpacks the file, and all that comes later sees an ordinary folder.

Unpacking takes many times as long as loading what was unpacked.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewrec.data.fetch import locked
from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.errors import DataError, reason_of
from fewrec.seeding import digest

_LAYOUT = 1  # of a converted folder; another number makes all of them anew
WEIGHTS_A_BYTE = 8  # one bit each, which is less than any quantisation keeps
BYTES_A_LAYER = 1000  # names, shapes and padding of its tensors alone
TENSORS_A_LAYER = 4  # attention in, attention out, and two of its feed-forward network: no architecture has fewer
_STAMP = ".converted.json"


def converted(file: Path, sha256: str, home: Path, notify: Callable[[str], None]) -> Path:
    """Return a folder below ``home`` with config.json, tokenizer files and model.safetensors (float32) of a GGUF file.

    It is made at first use and kept under the file's ``sha256`` and the versions of transformers and gguf, so that
    another version's numbers are never taken for this one's. ``notify`` gets one line before the work begins.

    Raises:
        DataError: without the package gguf; for a file that is damaged, cut off, or of a model that transformers
            doesn't read from GGUF.
    """
    if importlib.util.find_spec("gguf") is None:
        raise DataError(f"{file}: GGUF needs the package gguf, which is not installed: pip install 'fewrec[lm]'")
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "gguf")}
    folder = home / f"{sha256[:16]}-{digest([sha256, versions, _LAYOUT], 8)}"
    if _is_whole(folder):
        return folder
    with open(file, "rb") as stream:
        if stream.read(4) != b"GGUF":
            raise DataError(f"{file}: not a GGUF file, whatever its name says")
    with locked(folder):
        if not _is_whole(folder):  # another process may have converted it meanwhile
            notify(f"{file.name}: converting GGUF to safetensors, once ({file.stat().st_size / 1e6:,.0f} MB)")
            _convert(file, folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write the converted files into a temporary folder and move it to its place in one step."""
    for stale in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed: the lock is ours
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _unpack(file, temporary)
        temporary.chmod(0o755)
        for path in temporary.iterdir():
            path.chmod(0o644)
        (temporary / _STAMP).write_text(json.dumps(_sizes_and_times(temporary)))
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        said = f"the cache can't be written ({reason_of(error)}); let FEWREC_CACHE name another folder"
        raise DataError(f"{folder}: {said}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(file: Path, out: Path) -> None:
    import torch

    hide_broken_torchvision()
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(file.parent, **source)
            _check_size(config, file)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, config=config, **source)
            loader: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model, report = loader.from_pretrained(
                file.parent, config=config, dtype=torch.float32, output_loading_info=True, **source
            )
    except Exception as error:  # the readers check little: a damaged file may end in any kind of error
        # A ValueError is meant for people (an architecture that it lacks); others tell of the bytes that were met.
        reason = f" ({' '.join(str(error).split())[:200]})" if type(error) is ValueError else ""
        raise DataError(
            f"{file}: transformers can't read this GGUF file; it is damaged, cut off, or of an unknown model{reason}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise DataError(f"{file}: the GGUF file lacks {', '.join(missing[:3])}")
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise DataError(f"{file}: the GGUF file is damaged: {name} holds numbers that are not finite")
    # Transformers refuses to save a model that came from GGUF, so its tensors move to another one.
    with torch.device("meta"):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    if hasattr(plain.config, "quantization_config"):  # what is saved is not quantised
        del plain.config.quantization_config
    with quiet_transformers():
        plain.save_pretrained(out, max_shard_size="1TB")  # one file
        tokenizer.save_pretrained(out)


def _check_size(config: Any, file: Path) -> None:
    """Raise ``ValueError`` where the header describes a model far beyond the file: it would be made in full first.

    A header without a number of layers describes as many as the architecture has by default, which a small file lacks.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:  # "GGUF", version (uint32), number of tensors (uint64)
        tensors = int.from_bytes(stream.read(16)[8:], "little")
    width, layers, inner, heads, head, vocabulary, positions = (
        int(getattr(config, name, None) or 0)
        for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "head_dim",
                     "vocab_size", "max_position_embeddings")
    )  # fmt: skip
    weights = width * (vocabulary + positions) + layers * width * max(width, inner, heads * head)
    if weights > WEIGHTS_A_BYTE * size:
        raise ValueError(f"its header describes more than {weights:,} weights, the file has {size:,} bytes")
    if layers * BYTES_A_LAYER > size:
        raise ValueError(f"its header describes {layers:,} layers, the file has {size:,} bytes")
    if layers * TENSORS_A_LAYER > tensors:
        raise ValueError(f"its header describes {layers:,} layers, but {tensors:,} tensors in all")


def _is_whole(folder: Path) -> bool:
    """Return whether the files are those that were written, by size and time of change."""
    try:
        return json.loads((folder / _STAMP).read_text()) == _sizes_and_times(folder)
    except (OSError, ValueError):
        return False


def _sizes_and_times(folder: Path) -> dict[str, list[int]]:
    files = sorted(path for path in folder.iterdir() if path.name != _STAMP)
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
