"""Which precision a device computes the layers of a language model in."""

from __future__ import annotations

import torch


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return float32 or bfloat16 for "float32", "bfloat16" or "auto".

    "auto" is bfloat16 on a GPU with hardware for it, and float32 elsewhere: of two processors one may have it and the
    other not, and both should give the same scores.
    """
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies matrices in bfloat16 faster than in float32, by what it reports."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        reports = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
        return any(report is not None and report() for report in reports)
    return False
