"""MAML on top of a language model: a user's head on frozen text features, or a user's soft prompt, by inner steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Episodes
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.engine.inner import InnerLoop, Params, mean_squared_error
from fewrec.learners.engine.meta import MetaConfig, MetaLearner
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.config import BackboneConfig, PriorConfig
from fewrec.learners.text.features import TextFeatures
from fewrec.learners.text.maml_model import TextModel, principal_directions, rated
from fewrec.learners.text.meta import item_targets, ridge_head
from fewrec.learners.text.regression import TextLearner
from fewrec.learners.text.stack import PROMPT

_OF_PROMPT = {
    "meta_lr": 0.0003, "meta_batch": 32, "meta_steps": 30, "evaluate_every": 15, "validation_users": 100,
    "inner_steps": 2, "inner_lr": 0.6, "head_lr": 0.7,
}  # fmt: skip


class MAMLLMConfig(BackboneConfig, PriorConfig, MetaConfig):
    """Options of ``maml-lm``: those of the backbone, of the start on meta-train and of the outer loop.

    ``adapts``: what a user has of its own besides an offset and a head: nothing ("head"), or a soft "prompt" of
    ``tokens`` vectors before each text where the last ``layers`` layers begin. ``rank``: directions of the features
    that a user's head sees; ``inner_steps`` of gradient descent at rates ``inner_lr`` (offset), ``head_lr`` and
    ``prompt_lr``; with ``learn_rates`` each number that adapts has a learnt factor of its rate. The support's loss is
    its sum of squares over K + ``inner_prior``, so that a short support moves a user less. ``first_order``: no second
    derivatives, as always with prompts.

    ``proximal`` (in units of ratings) draws item effects, text weights and directions to where they started.
    ``validation_users``: about how many are looked at for each K of meta-validation. Every step with prompts runs the
    language model: unless they are given, there are fewer steps and users with "prompt".
    """

    adapts: Literal["head", "prompt"] = "head"
    tokens: int = Field(2, ge=1, le=128)
    rank: int = Field(64, ge=1)
    inner_steps: int = Field(6, ge=1, le=1000)
    inner_lr: float = Field(0.22, gt=0)
    head_lr: float = Field(0.25, ge=0)
    prompt_lr: float = Field(1.0, ge=0)
    learn_rates: bool = True
    inner_prior: float = Field(18.0, ge=0)
    first_order: bool = False
    proximal: float = Field(100.0, ge=0)
    meta_lr: float = Field(0.001, gt=0)
    validation_users: int = Field(500, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _prompts_are_dear(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("adapts") == "prompt":
            return _OF_PROMPT | values
        return values


class MAMLLM(TextLearner, MetaLearner):
    """MAML over what a language model makes of item texts; a task is a user.

    ``adapts = "head"``: the features are frozen, and a user's offset and head adapt in the inner loop (the head-only
    inner loop of ANIL); the outer loop learns their start and rates (Meta-SGD), and what all users share: item effects,
    text weights, and the directions of the features that a head sees. Second derivatives included.
    ``adapts = "prompt"``: a soft prompt adapts too (as in MetaPrompting), so that each user's language model reads an
    item in its own way; first order (Finn et al., section 5.2).

    Deviations: the start is not random. Effects are those of meta-train by ridge, their regression on text in closed
    form, and the directions are the features' principal components; a prompt is what random tokens of the
    catalog are. All that is shared is drawn to that start, the support's loss counts ``inner_prior`` further ratings
    that fit already, and the best of meta-validation is kept. An item without a rating in meta-train has what its text
    says.
    """

    name = "maml-lm"
    paper = "Finn, Abbeel & Levine, ICML 2017; Raghu et al., ICLR 2020; Hou et al., COLING 2022"
    Config = MAMLLMConfig
    task = "user"
    needs = frozenset({"item_text"})
    adapt_options = frozenset({"memory_mb"})
    module: TextModel

    def make_features(self, backbone: Backbone, ctx: Context) -> TextFeatures:
        stack, activations = self.stack_of(backbone, ctx, "head")
        tokens = self.config.tokens if self.prompted else 0
        return TextFeatures(stack, activations, self.config, ctx, prompt_tokens=tokens)

    @property
    def prompted(self) -> bool:
        return self.config.adapts == "prompt"

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        if source.catalog.text_sha256 != ctx.catalog.text_sha256:
            raise NotApplicable(f"{self.name} is meta-trained on the data set's own item texts")
        super().meta_fit(_BriefValidation(source, self.config.validation_users), ctx)

    # the start

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        config, features = self.config, self.features
        module = TextModel(sizes["n_items"], features.size, config.rank)
        if self.prompted:
            module.prompt = nn.Parameter(torch.zeros(config.tokens, features.activations.tokens.shape[1]))
        else:
            module.features = features.frozen({}, torch.arange(sizes["n_items"]))
        if config.learn_rates:
            module.rate.update({name: torch.ones_like(value) for name, value in module.starts().items()})
        return module

    @torch.no_grad()
    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        config, module, targets = self.config, self.module, item_targets(source, self.config)
        x = module.features
        if module.prompt is not None:
            tokens = self.features.activations.tokens
            module.prompt.copy_(tokens[torch.randint(len(tokens), (config.tokens,), generator=generator)])
            x = self.features.frozen(self.prompts(module.prompt), torch.arange(source.table.n_items))
        assert x is not None
        x = x.cpu().double()
        weight = targets.count / (targets.count + config.weight_ridge)
        centre = float((weight * targets.residual).sum() / weight.sum())
        text = ridge_head(x[targets.items], targets.residual - centre, weight, config.text_ridge)
        missing = targets.residual - centre - x[targets.items] @ text
        # Often rated items are better than their texts say: one without ratings gets the rating-weighted mean of that.
        shift = float((missing * targets.count).sum() / targets.count.sum())
        module.user.offset.fill_(targets.mu + centre + shift)
        module.text.copy_(text)
        if config.item_effects:
            effect = torch.zeros(len(x), dtype=x.dtype)
            effect[targets.items] = (missing - shift) * targets.count / (targets.count + config.effect_ridge)
            module.item_effect.copy_(effect)
        else:
            module.item_effect.requires_grad_(False)
        module.map.copy_(principal_directions(x, module.map.shape[1]))
        self.started_at = {name: getattr(module, name).detach().clone() for name in ("item_effect", "text", "map")}

    def penalty(self, source: MetaTrainSet) -> Tensor | None:
        moved = [(getattr(self.module, name) - start).square().sum() for name, start in self.started_at.items()]
        return self.config.proximal / len(source.table) * torch.stack(moved).sum()

    # adapting and predicting

    def rates(self) -> dict[str, Tensor | float]:
        config, factor = self.config, self.module.rate
        first = {"offset": config.inner_lr, "head": config.head_lr, PROMPT: config.prompt_lr}
        return {name: rate * factor[name] if name in factor else rate for name, rate in first.items()}

    def adapt_tasks(self, tasks: Tasks) -> Params:
        if not self.prompted:
            return self.inner_loop().adapt(tasks, self.rates(), self.frozen_inputs(tasks.support.item))
        # Tasks of one pass are padded to the longest: those of as many tokens go together.
        lengths = self.features.activations.lengths[tasks.support.item.cpu()]
        order = (lengths * tasks.support.mask.cpu()).sum(1).argsort(stable=True)
        size = min(self.at_once(tasks.row.shape[1]), max(8, -(-len(tasks) // 4)))
        parts = [self.adapt_prompts(tasks[rows]) for rows in order.to(tasks.items.device).split(size)]
        back = order.argsort().to(tasks.items.device)
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

    def predict_items(self, tasks: Tasks, adapted: Params, items: Tensor) -> Tensor:
        if not self.prompted:
            return self.inner_loop().predict(tasks, adapted, items, self.frozen_inputs(items))
        size = self.at_once(items.shape[1])
        found = []
        for start in range(0, len(items), size):
            own = {name: value[start : start + size] for name, value in adapted.items()}
            asked = items[start : start + size]
            prompts, features = self.prompts(own[PROMPT]), self.features
            learning = torch.is_grad_enabled()
            x = features.run(prompts, features.plan(asked)) if learning else features.grouped(prompts, asked)
            found.append(rated(own["offset"], own["head"], self.module.inputs(x.to(self.dtype), asked)))
        return torch.cat(found)

    def inner_loop(self) -> InnerLoop:
        config = self.config
        return InnerLoop(
            self.module.user,
            adapts=("offset", "head"),
            steps=config.inner_steps,
            loss=mean_squared_error(config.inner_prior),
            first_order=config.first_order,
        )

    def frozen_inputs(self, items: Tensor) -> Tensor:
        """Return the inputs of catalog items (T, n), (T, n, r + 1); an item that occurs often is computed once."""
        each, where = torch.unique(items, return_inverse=True)
        assert self.module.features is not None
        return nn.functional.embedding(where, self.module.inputs(self.module.features[each], each))

    def adapt_prompts(self, tasks: Tasks) -> Params:
        """Return each task's own parameters, (T, ...) by name, after the inner loop through the language model.

        Not by ``InnerLoop``: texts of all tasks are packed into rows before anything is run, and the layers already
        take a group axis for weights of a task's own, so that ``vmap`` over one task would undo the packing.
        """
        module, support, rates = self.module, tasks.support, self.rates()
        adapted = {name: value.expand(len(tasks), *value.shape) for name, value in module.starts().items()}
        if not support.mask.any():
            return adapted
        plan = self.features.plan(torch.where(support.mask > 0, support.item, -1))
        size = support.mask.sum(1) + self.config.inner_prior
        for _ in range(self.config.inner_steps):
            with torch.enable_grad():
                at = {name: value.detach().requires_grad_() for name, value in adapted.items()}
                x = self.features.run(self.prompts(at[PROMPT]), plan).to(self.dtype)
                error = rated(at["offset"], at["head"], module.inputs(x, support.item)) - support.rating
                # Tasks don't mix: of this sum each task's own parameters enter one term.
                loss = ((error * support.mask).square().sum(1) / size.clamp(min=1e-6)).sum()
                found = torch.autograd.grad(loss, list(at.values()))
            gradients = dict(zip(at, found, strict=True))
            adapted = {name: value - rates[name] * gradients[name] for name, value in adapted.items()}
        return adapted

    def prompts(self, prompt: Tensor) -> Params:
        return {PROMPT: prompt.to(self.features.activations.tokens.dtype)}

    def at_once(self, n: int) -> int:
        """Return how many tasks of n texts are run in one pass, by ``memory_mb`` and an estimate."""
        features = self.features
        tokens = n * (float(features.activations.lengths.double().mean()) + self.config.tokens)
        states = tokens * 4 * features.stack.backbone.width * 8 * max(len(features.stack.layers), 1)
        return max(1, int(self.config.memory_mb * 2**20 / (4 * max(states, 1))))

    def trainable_parameters(self) -> int:
        return super().trainable_parameters() + sum(value.numel() for value in self.module.starts().values())


class _BriefValidation(MetaTrainSet):
    """A meta-train set of which few validation episodes are looked at."""

    def __init__(self, source: MetaTrainSet, users: int) -> None:
        vars(self).update(vars(source))
        self._users = users

    def validation_episodes(self, first: int, count: int, *, n_users: int, k_shot: int, n_query: int) -> Episodes:
        count = min(count, -(-self._users // n_users))
        return super().validation_episodes(first, count, n_users=n_users, k_shot=k_shot, n_query=n_query)
