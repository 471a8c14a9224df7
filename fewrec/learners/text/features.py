"""Features of items' texts as a function of what is trained, for many groups (episodes, or users) at once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from fewrec.learners.base import Context
from fewrec.learners.text.activations import ItemActivations, stored_features
from fewrec.learners.text.backbone import Call
from fewrec.learners.text.config import BackboneConfig
from fewrec.learners.text.packing import Layout, pack
from fewrec.learners.text.precision import compute_dtype
from fewrec.learners.text.stack import PROMPT, WORDS, Params, Stack, WholeModel
from fewrec.learners.text.words import RatingWords

_TEXTS_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Plan:
    """Texts of G groups laid out and ready to run, for as many passes as are needed.

    ``items`` (G, U), -1 where a group has fewer; ``on_host``: the layout on the CPU, to draw from without waiting for
    the device; ``hidden`` (B, T, d): the cached states there; ``word`` (B, T): each place's row among the words of the
    catalog, -1 where there is no token.
    """

    items: Tensor
    on_host: Layout
    layout: Layout
    hidden: Tensor
    calls: list[Call]
    mask: Tensor
    pooling: tuple[Tensor, Tensor]
    last: bool
    prompt: Tensor | None
    word: Tensor | None


class TextFeatures:
    """Features of items' texts: pooled states of the stack, or the expected rating by the words.

    They are centred, and of mean square norm 1 (each layer with its share) over the catalog as the pretrained model
    sees it, so that a variance means the same everywhere. ``size``: how many there are.
    """

    def __init__(
        self,
        stack: Stack,
        activations: ItemActivations,
        config: BackboneConfig,
        ctx: Context,
        *,
        prompt_tokens: int = 0,
        whole: bool = False,
        words: RatingWords | None = None,
    ) -> None:
        device = ctx.device
        self.stack, self.config, self.device, self.words = stack.to(device), config, device, words
        self.activations = activations.on(device)
        self.vocabulary = torch.unique(activations.ids)
        self.causal = stack.backbone.causal
        self.prompt_tokens = 0  # the pretrained model has none
        self.whole: WholeModel | None = None
        self.dtype = compute_dtype(config.precision, device)
        self.centre, self.spread = torch.zeros((), device=device), torch.ones((), device=device)
        self.pretrained: Tensor | None = None
        every = torch.arange(len(activations))
        read = None if words is None else [*words.words, words.scale.low, words.scale.high]
        kind = ["features", activations.key, config.states, config.pooling, str(self.dtype), read]
        plain = stored_features(ctx.cache, kind, lambda: self.frozen({}, every).cpu().contiguous()).to(device)
        self.centre = plain.mean(0)
        n_states = 1 if words is not None or config.states == "last" else len(stack.layers) + 1
        per_state = (plain - self.centre).square().mean(0).reshape(n_states, -1).sum(1)
        self.spread = (per_state * n_states).sqrt().clamp_min(1e-6).repeat_interleave(plain.shape[1] // n_states)
        self.pretrained = (plain - self.centre) / self.spread
        self.prompt_tokens = prompt_tokens
        self.whole = WholeModel(stack) if whole else None

    @property
    def size(self) -> int:
        return len(self.centre)

    def plan(self, items: Tensor) -> Plan:
        """Return the plan for items (G, U) of the catalog, -1 for none."""
        activations, device = self.activations, self.device
        items = items.cpu()
        lengths = torch.where(items >= 0, activations.lengths[items.clamp_min(0)], 0)
        own, shared = (0, self.prompt_tokens) if self.causal else (self.prompt_tokens, 0)
        on_host = pack(lengths, capacity=self.config.pack_tokens, own=own, shared=shared)
        where = on_host.index(activations.offsets[items.clamp_min(0)])
        filled = where >= 0
        layout = on_host.to(device)
        hidden = self._cached(where)
        mask = layout.mask(self.causal)
        with torch.no_grad():
            _, calls = self.stack.backbone.calls(layout.positions, mask)
        last = self.config.pooling == "last" or (self.config.pooling == "auto" and self.causal)
        prompt = None
        if self.prompt_tokens:
            steps = torch.arange(self.prompt_tokens, device=device)
            prompt = (layout.prompt.unsqueeze(2) == steps).to(hidden.dtype)
        word = None
        if self.whole is not None:
            ids = torch.where(filled, activations.ids[where.clamp_min(0)], self.vocabulary[0])
            word = torch.where(filled, torch.searchsorted(self.vocabulary, ids), -1)
            word = word.to(device, non_blocking=device.type == "cuda")
        return Plan(
            items, on_host, layout, hidden, calls, mask,
            layout.lasts() if last else layout.means(), last, prompt, word,
        )  # fmt: skip

    def _cached(self, where: Tensor) -> Tensor:
        """Return the cached states (B, T, d) on the device, zeros where there is no token."""
        tokens = self.activations.tokens
        rows = where.clamp_min(0)
        if tokens.device.type == self.device.type:  # not the device: "cuda" is not equal to "cuda:0"
            hidden = tokens[rows.to(self.device, non_blocking=True)]
        else:
            picked = torch.empty(
                *rows.shape, tokens.shape[1], dtype=tokens.dtype, pin_memory=self.device.type == "cuda"
            )
            hidden = torch.index_select(tokens, 0, rows.reshape(-1), out=picked.view(-1, tokens.shape[1]))
            hidden = hidden.view_as(picked).to(self.device, non_blocking=True)
        return hidden * (where >= 0).to(self.device, non_blocking=True).unsqueeze(2)

    def words_of_catalog(self) -> Tensor:
        """Return the vectors of the words that occur in the catalog, (V, d): of all others the gradient is zero."""
        words = self.stack.backbone.trunk.get_input_embeddings()  # called, since some scale what they look up
        return words(self.vocabulary.to(words.weight.device)).detach().clone()

    def run(self, params: Mapping[str, Tensor], plan: Plan, kept: Tensor | None = None) -> Tensor:
        """Return the features (G, U, size) of the plan's texts; differentiable in ``params``.

        Each of ``params`` is of its own shape, shared by the groups, or (G, ...). ``kept`` (B, T) bool: tokens that are
        not hidden.
        """
        layout, mask, pooling, calls = plan.layout, plan.mask, plan.pooling, plan.calls
        if kept is not None:
            own = torch.eye(layout.width, dtype=torch.bool, device=mask.device)
            mask = mask & (kept[:, None, None, :] | own)
            with torch.no_grad():
                _, calls = self.stack.backbone.calls(layout.positions, mask)
            if not plan.last:  # what is hidden is not averaged either
                pooling = layout.means(kept)
        with self._half():
            if self.whole is not None and WORDS in params:
                states = self._whole(params, plan, mask)
            else:
                hidden = plan.hidden
                if plan.prompt is not None and PROMPT in params:
                    prompt = params[PROMPT]
                    groups = prompt.unsqueeze(0) if prompt.dim() == 2 else prompt
                    hidden = hidden + plan.prompt @ groups.repeat_interleave(layout.rows // len(groups), 0)
                states = self.stack.run(params, hidden, calls)
            if self.words is not None:
                features = self.words.expectation(self.words.logits(states[-1], layout).float()).unsqueeze(2)
            else:
                chosen = states if self.config.states == "all" else states[-1:]
                weights, place = pooling
                pooled = torch.cat([weights.to(s.dtype) @ s for s in chosen], 2)
                features = pooled.flatten(0, 1)[place]
        return (features.to(self.centre.dtype) - self.centre) / self.spread

    def _whole(self, params: Mapping[str, Tensor], plan: Plan, mask: Tensor) -> list[Tensor]:
        assert self.whole is not None and plan.word is not None
        # One group: layers that are not in the stack know no group axis.
        alone = {n: p.squeeze(0) if p.dim() > self._dims[n] else p for n, p in params.items() if n != WORDS}
        table = params[WORDS] if params[WORDS].dim() == 2 else params[WORDS].squeeze(0)
        vectors = torch.nn.functional.embedding(plan.word.clamp_min(0), table) * (plan.word >= 0).unsqueeze(2)
        return functional_call(self.whole, alone, (vectors, plan.layout.positions, mask))

    @property
    def _dims(self) -> dict[str, int]:
        assert self.whole is not None
        return {name: p.dim() for name, p in self.whole.named_parameters()}

    def _half(self) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @torch.no_grad()
    def frozen(self, params: Params, items: Tensor) -> Tensor:
        """Return the features of any number of items (n,), (n, size), by parameters that all share; no gradients."""
        items = items.cpu()
        if not params and self.pretrained is not None and not self.prompt_tokens:
            return self.pretrained[items.to(self.device)]
        out: Tensor | None = None
        for rows in self.activations.lengths[items].argsort(stable=True).split(_TEXTS_AT_ONCE):
            found = self.run(params, self.plan(items[rows].unsqueeze(0)))[0]
            if out is None:
                out = torch.empty(len(items), found.shape[1], dtype=found.dtype, device=self.device)
            out[rows.to(self.device)] = found
        return torch.zeros(0, self.size, device=self.device) if out is None else out

    @torch.no_grad()
    def grouped(self, params: Params, items: Tensor) -> Tensor:
        """Return the features (G, U, size) of items (G, U), -1 for none, by each group's parameters; no gradients."""
        wanted = max(1, _TEXTS_AT_ONCE * 4 // max(items.shape[0], 1))
        parts = [self.run(params, self.plan(part)) for part in items.split(wanted, 1)]
        return torch.cat(parts, 1)
