"""The last layers of a backbone, and what is trained of them or put beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewrec.errors import NotApplicable
from fewrec.learners.text import attention
from fewrec.learners.text.backbone import Backbone, Call, run_layer
from fewrec.learners.text.config import BackboneConfig
from fewrec.learners.text.episode_modules import LORA, convert, fit_to_rows, linear_layers

Params = dict[str, Tensor]
"""What is trained, by name; of shape S, or (G, S) where G groups have their own."""

PROMPT, WORDS = "prompt", "words"


class Stack(nn.Module):
    """The layers of a backbone from ``first`` on, and its final norm.

    Called with parameters of one dimension more, (G, ...), it gives each of G groups of rows its own.
    """

    def __init__(self, backbone: Backbone, first: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(backbone.layers[first:])
        self.norm = backbone.norm
        self.first = first
        self._backbone = [backbone]  # in a list, so as not to become a submodule
        convert(self)

    @property
    def backbone(self) -> Backbone:
        return self._backbone[0]

    def forward(self, hidden: Tensor, calls: list[Call]) -> list[Tensor]:
        """Return the input (B, T, d) and each layer's output, (B, T, d) too; the last one after the final norm."""
        states = [hidden]
        for layer, call in zip(self.layers, calls[self.first :], strict=True):
            states.append(run_layer(layer, states[-1], call))
        if self.norm is not None:
            states[-1] = self.norm(states[-1])
        return states

    def run(self, params: Mapping[str, Tensor], hidden: Tensor, calls: list[Call]) -> list[Tensor]:
        """Return ``forward`` with ``params`` instead of the pretrained ones; those of no parameter are left out."""
        own = {name: value for name, value in params.items() if name not in (PROMPT, WORDS)}
        if not own:
            return self(hidden, calls)
        fitted = fit_to_rows(self, own)
        return functional_call(self, fitted, (hidden, calls))


class WholeModel(nn.Module):
    """A backbone from word vectors to its last state; its parameters are those of the trunk but the word vectors'."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.trunk = stack.backbone.trunk
        self._stack = [stack]

    def forward(self, vectors: Tensor, positions: Tensor, mask: Tensor) -> list[Tensor]:
        stack = self._stack[0]
        hidden, calls = stack.backbone.calls(positions, mask, vectors=vectors)
        return stack(hidden, calls)


def starting_weights(stack: Stack, method: str, generator: torch.Generator) -> Params:
    """Return new tensors for what ``TunedWeights`` says is trained of the stack: they start as the pretrained model."""
    if method == "head":
        return {}
    if method == "full":
        table = stack.backbone.trunk.get_input_embeddings()
        whole = WholeModel(stack)
        return {name: p.detach().clone() for name, p in whole.named_parameters() if p is not table.weight}
    if method == "last":
        return {name: p.detach().clone() for name, p in stack.named_parameters() if name.rpartition(".")[2] not in LORA}
    if method == "bias":
        found = {name: p.detach().clone() for name, p in stack.named_parameters() if name.endswith(".bias")}
        if not found:
            kind = stack.backbone.trunk.config.model_type
            raise NotApplicable(f"method 'bias': a '{kind}' model has no biases to train; use 'lora'")
        return found
    params = {}
    for name, layer in linear_layers(stack):
        if layer.lora_a is None or layer.lora_b is None:
            continue
        bound = layer.in_features**-0.5  # as of a linear layer, and of peft's A
        drawn = torch.rand(layer.lora_a.shape, generator=generator) * 2 * bound - bound
        params[f"{name}.lora_a"] = drawn.to(layer.weight)
        params[f"{name}.lora_b"] = torch.zeros_like(layer.lora_b)
    return params


def add_lora(stack: Stack, rank: int, alpha: float, targets: str) -> None:
    """Give the stack's linear layers, or those of its attention alone, low-rank additions that are nothing yet."""
    inside = attention_modules(stack)
    for name, layer in linear_layers(stack):
        if targets == "all" or any(name.startswith(f"{module}.") for module in inside):
            layer.add_lora(rank, alpha)


@torch.no_grad()
def attention_modules(stack: Stack) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the names of the stack's self-attentions, with keys and values (1, heads, 4, d) of four zero vectors."""
    device = stack.backbone.device
    zeros = torch.zeros(1, 4, stack.backbone.width, device=device, dtype=next(stack.backbone.trunk.parameters()).dtype)
    return recorded(stack, zeros)


@torch.no_grad()
def recorded(stack: Stack, hidden: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the keys and values (1, heads, T, d) of each attention, by its name, for one row of states (1, T, d)."""
    length = hidden.shape[1]
    positions = torch.arange(length, device=hidden.device).unsqueeze(0)
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=hidden.device)
    if stack.backbone.causal:
        mask = mask.tril()
    _, calls = stack.backbone.calls(positions, mask)
    names = {module: name for name, module in stack.named_modules()}
    with attention.recording() as found:
        stack(hidden, calls)
    return {names[module]: (key, value) for module, key, value in found}


def add_prefixes(stack: Stack) -> None:
    """Give every attention of the stack the parameters of a prefix, of no tokens yet."""
    for name, (key, _) in attention_modules(stack).items():
        module = stack.get_submodule(name)
        for part in attention.PREFIX:
            empty = key.new_zeros(0, key.shape[1] * key.shape[3])
            module.register_parameter(part, nn.Parameter(empty, requires_grad=False))


def starting_prefix(stack: Stack, hidden: Tensor) -> Params:
    """Return prefixes that are the keys and values of real states ``hidden`` (P, d) of the stack's first layer."""
    params = {}
    for name, pair in recorded(stack, hidden.unsqueeze(0)).items():
        for part, states in zip(attention.PREFIX, pair, strict=True):
            params[f"{name}.{part}"] = states[0].transpose(0, 1).flatten(1).clone()
    return params


def first_layer(backbone: Backbone, config: BackboneConfig, method: str) -> int:
    """Return the first layer that is run for each episode; raises ``NotApplicable`` where the model has too few."""
    if config.layers > backbone.n_layers:
        raise NotApplicable(f"layers = {config.layers}, but {config.backbone} has {backbone.n_layers}")
    return 0 if config.layers < 0 or method == "full" else backbone.n_layers - config.layers
