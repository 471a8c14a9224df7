"""The attention that backbones run with: packed texts, a prefix of keys and values, relative positions.

Registered with transformers, whose models of today all call the attention that their configuration names. Apart from
the backbone because it is the one place that knows how a prefix enters (Li & Liang, ACL 2021, section 4.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NAME = "fewrec"
PREFIX = ("prefix_key", "prefix_value")
_UNKNOWN = ("s_aux", "sinks", "indices", "block_indices")  # what some models' attention is given, and not ours


def register() -> None:
    """Make ``attn_implementation="fewrec"`` known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    position_ids: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attention's output, (B, T, heads, d), and no weights.

    ``query`` (B, heads, T, d), ``key`` and ``value`` (B, key heads, S, d). Without a mask, decoders are causal. A
    module with the parameters ``prefix_key`` and ``prefix_value``, (P, key heads * d) or one for each group of rows,
    (G, P, key heads * d), offers them to every token of the group's rows, before its keys and values. With a
    ``sliding_window`` a token sees those that are less than this many positions away, of what the mask lets it see.
    """
    if found := [name for name in _UNKNOWN if others.get(name) is not None]:
        raise ValueError(f"its attention takes {found[0]}, which fewrec's doesn't know")
    if _recorded is not None:
        _recorded.append((module, key, value))
    mask = attention_mask
    if mask is not None and mask.shape[-1] != key.shape[2]:
        mask = mask[..., : key.shape[2]]
    if sliding_window is not None and mask is not None and query.shape[2] == key.shape[2] > sliding_window:
        mask = mask & _near(query, position_ids, sliding_window)
    is_causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    causal = mask is None and query.shape[2] > 1 and bool(is_causal)
    prefix_key = getattr(module, PREFIX[0], None)
    if position_bias is not None:
        if mask is None:
            mask = position_bias
        elif mask.dtype == torch.bool:
            mask = position_bias.masked_fill(~mask, torch.finfo(position_bias.dtype).min)
        else:
            mask = position_bias + mask
    if prefix_key is not None and prefix_key.shape[-2]:
        if causal:
            raise ValueError("a prefix needs an explicit mask")
        key, value = (
            torch.cat([_spread(getattr(module, name), states), states], 2)
            for name, states in zip(PREFIX, (key, value), strict=True)
        )
        if mask is not None:
            shape = (*mask.shape[:3], prefix_key.shape[-2])
            visible = mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)
            mask = torch.cat([visible, mask], 3)
    if softcap is not None or _slow_backward(query, key):
        return _plain(query, key, value, mask, causal, dropout, scaling, softcap).transpose(1, 2), None
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return output.transpose(1, 2), None


def _near(query: Tensor, positions: Tensor | None, window: int) -> Tensor:
    """Return (B or 1, 1, T, T) bool: which tokens are less than ``window`` positions apart."""
    if positions is None:  # of encoders, whose texts have no beginning elsewhere: places serve as well
        positions = torch.arange(query.shape[2], device=query.device).unsqueeze(0)
    return ((positions.unsqueeze(2) - positions.unsqueeze(1)).abs() < window).unsqueeze(1)


def _slow_backward(query: Tensor, key: Tensor) -> bool:
    """Return whether torch's own attention would take longer, as its gradients in half precision on a CPU do."""
    half = query.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled("cpu")
    needed = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    return query.device.type == "cpu" and half and needed


def _plain(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, dropout: float, scaling: float | None,
    softcap: float | None,
) -> Tensor:  # fmt: skip
    """Return attention (B, heads, T, d) by its definition; scores between -softcap and softcap (Gemma 2), if given."""
    key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], 1) for states in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        low = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, low) if mask.dtype == torch.bool else scores + mask
    return torch.dropout(scores.float().softmax(-1).to(value.dtype), dropout, train=dropout > 0) @ value


_recorded: list[tuple[nn.Module, Tensor, Tensor]] | None = None


@contextlib.contextmanager
def recording() -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    """Collect (attention module, keys, values) of every attention that is computed meanwhile."""
    global _recorded
    found: list[tuple[nn.Module, Tensor, Tensor]] = []
    _recorded = found
    try:
        yield found
    finally:
        _recorded = None


def _spread(prefix: Tensor, states: Tensor) -> Tensor:
    """Return a prefix as (B, heads, P, d) for states (B, heads, T, d): every group's to each of its rows."""
    batch, heads, _, width = states.shape
    groups = prefix.unsqueeze(0) if prefix.dim() == 2 else prefix
    shaped = groups.reshape(len(groups), -1, heads, width).transpose(1, 2)
    return shaped.repeat_interleave(batch // len(groups), 0).to(states.dtype)
