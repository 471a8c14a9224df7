"""Layers whose parameters may have a leading task axis: many tasks' own weights in one forward and backward pass.

``convert`` replaces the linear and normalising layers of a pretrained module in place. Called as before they compute
as before. Under ``torch.func.functional_call`` with a parameter of one dimension more, (G, ...), the rows of the input
are taken for G groups of equal size, in order, and each group has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

LORA = ("lora_a", "lora_b")


class EpisodeLinear(nn.Module):
    """``x W' + b + scaling x A' B'``: a linear layer, with a low-rank addition where there is one.

    ``weight`` (out, in), ``bias`` (out,) or None; ``lora_a`` (r, in) and ``lora_b`` (out, r) once ``add_lora`` was
    called (Hu et al., ICLR 2022, section 4.1); each may have a leading axis of groups.
    """

    bias: Tensor | None
    lora_a: Tensor | None
    lora_b: Tensor | None

    def __init__(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = weight
        self.register_parameter("bias", bias)
        for name in LORA:
            self.register_parameter(name, None)
        self.scaling = 1.0
        self.out_features, self.in_features = weight.shape
        self._half: Tensor | None = None

    def add_lora(self, rank: int, alpha: float) -> None:
        """Give the layer a low-rank addition that is nothing yet; scaled by ``alpha / rank``."""
        self.scaling = alpha / rank
        self.lora_a = nn.Parameter(self.weight.new_zeros(rank, self.in_features), requires_grad=False)
        self.lora_b = nn.Parameter(self.weight.new_zeros(self.out_features, rank), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = _alone(self._weight(x), 2), None if self.bias is None else _alone(self.bias, 1)
        if weight.dim() == 2 and (bias is None or bias.dim() == 1):
            out = linear(x, weight, bias)
        else:
            out = _product(x, weight)
            if bias is not None:
                out = out + bias if bias.dim() == 1 else _by_group(out, bias, torch.add)
        if self.lora_a is not None and self.lora_b is not None:
            out = out + _product(_product(x, self.lora_a), self.lora_b) * self.scaling
        return out

    def _weight(self, x: Tensor) -> Tensor:
        """Return the weight; under autocast a frozen one in its precision, which autocast would convert at each call.

        What ``functional_call`` puts in its place is no ``Parameter``, and is left to autocast.
        """
        weight, kind = self.weight, x.device.type
        if not torch.is_autocast_enabled(kind) or not isinstance(weight, nn.Parameter) or weight.requires_grad:
            return weight
        dtype = torch.get_autocast_dtype(kind)
        if self._half is None or self._half.dtype != dtype or self._half.device != weight.device:
            self._half = weight.detach().to(dtype)
        return self._half


class EpisodeLayerNorm(nn.Module):
    """Layer normalisation; ``weight`` and ``bias`` (d,), or with a leading axis of groups."""

    bias: Tensor | None

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        self.register_parameter("bias", norm.bias)
        self.shape, self.eps = tuple(norm.normalized_shape), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1 and (self.bias is None or self.bias.dim() == 1):
            return layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        out = layer_norm(x, self.shape, None, None, self.eps)
        out = out * self.weight if self.weight.dim() == 1 else _by_group(out, self.weight, torch.mul)
        if self.bias is None:
            return out
        return out + self.bias if self.bias.dim() == 1 else _by_group(out, self.bias, torch.add)


class _EpisodeScale:
    """In front of a norm's own class: with a ``weight`` (G, 1, d), each group of rows is multiplied by its own.

    For the RMS norms, of which each model has a class, on inputs (B, ..., d) such as the queries of each head.
    """

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        own = super().forward  # type: ignore[misc]
        if self.weight.dim() == 1:
            return own(x)
        return own(x.reshape(len(self.weight), -1, x.shape[-1])).reshape(x.shape)


def _alone(value: Tensor, dims: int) -> Tensor:
    """Return a parameter without its axis of groups where there is but one: products are faster without."""
    return value[0] if value.dim() > dims and len(value) == 1 else value


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x W'`` for (B, T, in) and (out, in), or (G, out, in) where B is a multiple of G."""
    weight = _alone(weight, 2)
    if weight.dim() == 2:
        return linear(x, weight)
    grouped = x.reshape(len(weight), -1, x.shape[-1])
    return torch.bmm(grouped, weight.mT).reshape(*x.shape[:-1], -1)


def _by_group(x: Tensor, value: Tensor, function) -> Tensor:
    """Return ``function(x, value)`` for (B, T, d) and a (G, d) with a row for each group of rows of x."""
    return function(x.reshape(len(value), -1, x.shape[-1]), value.unsqueeze(1)).reshape(x.shape)


def convert(module: nn.Module) -> None:
    """Replace linear layers (GPT-2's transposed ones too) and norms below ``module``, sharing their parameters."""
    from transformers.pytorch_utils import Conv1D

    for parent in list(module.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if isinstance(child, nn.Linear):
                setattr(parent, name, EpisodeLinear(child.weight, child.bias))
            elif isinstance(child, Conv1D):
                setattr(parent, name, EpisodeLinear(nn.Parameter(child.weight.T.contiguous(), False), child.bias))
            elif isinstance(child, nn.LayerNorm) and child.weight is not None:
                setattr(parent, name, EpisodeLayerNorm(child))
            elif _only_scales(child):
                child.__class__ = type(f"Episode{type(child).__name__}", (_EpisodeScale, type(child)), {})


def _only_scales(module: nn.Module) -> bool:
    found = {name: parameter.dim() for name, parameter in module.named_parameters()}
    return found == {"weight": 1} and not isinstance(module, _EpisodeScale | EpisodeLayerNorm)


def linear_layers(module: nn.Module) -> Iterator[tuple[str, EpisodeLinear]]:
    """Yield the converted linear layers below ``module`` with their names, in order."""
    for name, child in module.named_modules():
        if isinstance(child, EpisodeLinear):
            yield name, child


def fit_to_rows(module: nn.Module, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``params``, each of its own shape or (G, ...), as ``functional_call`` takes them for rows of G groups.

    Norms whose own code multiplies by the weight get one that broadcasts over a group's rows, (G, 1, d).
    """
    fitted = {}
    for name, value in params.items():
        owner = module.get_submodule(name.rpartition(".")[0])
        fitted[name] = value.unsqueeze(1) if isinstance(owner, _EpisodeScale) and value.dim() == 2 else value
    return fitted
