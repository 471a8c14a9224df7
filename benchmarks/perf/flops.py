"""Floating-point operations of a piece of work, and the rate at which this machine multiplies matrices at best.

Counted are matrix products and attention, as they are executed: padding and masked scores included, what is between
products (norms, activations, optimisers) left out. So a share of the peak below one is time for these and for products
that are too small. torch's counter doesn't know the attention of CPUs, nor keys that heads share; it is told.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
_ENOUGH_S, _REPEATS = 0.1, 5


def counted(work: Callable[[], object]) -> float:
    """Return the floating-point operations of ``work``, a product's n m k being two each; it is run once."""
    kinds = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    formulas = {}
    for kind in kinds:
        formulas[getattr(torch.ops.aten, f"_scaled_dot_product_{kind}")] = _attention
        formulas[getattr(torch.ops.aten, f"_scaled_dot_product_{kind}_backward")] = _attention_backward
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return float(counter.get_total_flops())


def _attention(query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_flop_count(query, *_repeated(query, key, value))


def _attention_backward(grad, query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(grad, query, *_repeated(query, key, value))


def _repeated(query, key, value) -> list[tuple[int, ...]]:
    """Return the shapes of keys and values that several heads share, as many times as they are read."""
    return [(shape[0], query[1], *shape[2:]) for shape in (key, value)]


@functools.cache
def peak(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Return operations a second of the fastest square matrix product: the best of a few sizes, with torch's threads.

    On a GPU, float32 is measured as torch multiplies it by default, without TF32.
    """
    return max(_rate(size, device, dtype) for size in _SIZES.get(device.type, _SIZES["cpu"]))


def _rate(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    best = 0.0
    for _ in range(_REPEATS):
        count, start = 0, time.perf_counter()
        while count < 2 or time.perf_counter() - start < _ENOUGH_S:
            torch.mm(a, b, out=out)
            count += 1
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        best = max(best, count / (time.perf_counter() - start))
    return best * 2 * size**3


def sentence(operations: float, seconds: float, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Return e.g. ``259 GFLOP at 95 GFLOP/s, 66 % of the matrix-product peak of 144``."""
    rate, best = operations / seconds, peak(device, dtype)
    return f"{operations / 1e9:.3g} GFLOP at {rate / 1e9:.3g} GFLOP/s, {rate / best:.0%} of {best / 1e9:.3g}"
