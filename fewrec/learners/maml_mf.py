"""MAML over matrix factorization: an initialisation from which a few gradient steps on the support reach a new user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, vmap

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.adaptation import Params, Tasks, inner_sgd, local_table
from fewrec.learners.additive import FactorPredictor
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import precise_device, ridge_effects, with_unseen
from fewrec.learners.mf_foldin import AlternatingLeastSquares, MFFoldInConfig
from fewrec.learners.validation import Validation

USER, ITEM = ("user_bias", "user_vector"), ("item_bias", "item_factor")


class MAMLMFConfig(LearnerConfig):
    """Options of ``maml-mf``.

    Inner loop: ``adapts`` (the user's bias and vector, or the items' rows too), ``inner_steps`` of SGD at ``inner_lr``;
    the support's loss is its sum of squares over K + ``inner_prior``, so that a short support moves a user less
    (0: the mean, as in plain MAML); ``first_order`` drops the second derivatives.

    Start: ``pretrain_sweeps`` of alternating least squares over meta-train, item factors times ``factor_scale``; with
    no sweeps, ridge effects and random item factors of standard deviation ``factor_scale``.

    Outer loop: at most ``meta_steps`` of Adam at ``meta_lr``, ``meta_batch`` users each, whose K is drawn from
    1..``max_shots`` (one meta-fit serves every K), ``n_query`` ratings to predict; ``proximal`` (in units of ratings)
    draws item rows to where they started. The best by meta-validation is kept; looked at every ``evaluate_every``
    steps, given up after ``patience`` looks without a better one.
    """

    rank: int = Field(8, ge=1, le=256)
    adapts: Literal["user", "all"] = "user"
    inner_steps: int = Field(5, ge=1, le=1000)
    inner_lr: float = Field(0.18, gt=0)
    inner_prior: float = Field(11.0, ge=0)
    first_order: bool = False
    pretrain_sweeps: int = Field(8, ge=0)
    factor_scale: float = Field(4.0, gt=0)
    meta_lr: float = Field(0.003, gt=0)
    meta_batch: int = Field(250, ge=1)
    meta_steps: int = Field(400, ge=0)
    max_shots: int = Field(10, ge=1)
    n_query: int = Field(10, ge=1)
    proximal: float = Field(50.0, ge=0)
    evaluate_every: int = Field(25, ge=1)
    patience: int = Field(6, ge=1)
    dtype: Literal["float32", "float64"] = "float32"


class MAMLMF(BatchedLearner):
    """Predict ``b_u + b_i + p_u . q_i`` after a few steps of SGD on the user's support from a meta-learnt start.

    MAML (Finn, Abbeel & Levine, ICML 2017, algorithm 1) with one user as a task. Meta-learnt are the initial user bias
    (which holds the global mean) and vector, and all item biases and factors; the meta-gradient is taken through the
    inner steps, second derivatives included. Deviations: the support's loss may count ``inner_prior`` further ratings
    that fit already; the start is a factorization of meta-train instead of random numbers (MAML from a random start
    stays behind the bias model on a few hundred users); item rows are drawn to that start, and the best of
    meta-validation is kept, the start included. An item without a rating in meta-train has the rating-weighted mean
    effect and a zero factor. A known user is adapted to by the support alone, as a new one is.
    """

    name = "maml-mf"
    Config = MAMLMFConfig

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        config = self.config
        generator = ctx.generator(source.seed)
        self.params = start = self.initial_params(source, ctx, generator)
        validation = Validation(source, (1, 5, 10), config.n_query)
        best, kept, waited = validation.rmse(self, ctx) if validation else 0.0, start, 0
        params = {name: value.clone().requires_grad_() for name, value in start.items()}
        optimiser = torch.optim.Adam(params.values(), lr=config.meta_lr)
        steps = range(config.meta_steps)
        for step in ctx.progress(steps, "maml-mf: meta-steps"):
            within = step % config.evaluate_every
            if within == 0:
                drawn = self._draw(source, step, min(config.evaluate_every, len(steps) - step), ctx, generator)
            tasks = drawn[within * config.meta_batch : (within + 1) * config.meta_batch]
            loss = self.meta_loss(params, tasks)
            distance = sum((params[name] - start[name]).square().sum() for name in ITEM)
            optimiser.zero_grad()
            (loss + config.proximal / len(source.table) * distance).backward()
            optimiser.step()
            if validation and (step + 1) % config.evaluate_every == 0:
                self.params = _copy(params)
                score = validation.rmse(self, ctx)
                ctx.log(step + 1, query_mse=float(loss.detach()), validation_rmse=score)
                best, kept, waited = (score, self.params, 0) if score < best else (best, kept, waited + 1)
                if waited >= config.patience:
                    break
        self.params = kept if validation else _copy(params)

    def initial_params(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> Params:
        """Return what meta-training starts from: user_bias (), user_vector (d,), item_bias (I,), item_factor (I, d)."""
        config, mu = self.config, float(source.table.rating.mean())
        settings = MFFoldInConfig(rank=config.rank)
        if config.pretrain_sweeps:
            als = AlternatingLeastSquares(source.table, settings, generator, precise_device(ctx))
            for _ in range(config.pretrain_sweeps):
                als.sweep()
            base, factor = als.normalised()
        else:
            effects = ridge_effects(source.table, settings.item_ridge, settings.meta_user_ridge)
            base = effects.mu + torch.from_numpy(with_unseen(effects.item, source.table))
            factor = torch.randn(len(base), config.rank, generator=generator, dtype=torch.float64)
            factor[np.bincount(source.table.item, minlength=len(base)) == 0] = 0.0
        params = {
            "user_bias": torch.tensor(mu, dtype=torch.float64),
            "user_vector": torch.zeros(config.rank, dtype=torch.float64),
            "item_bias": base - mu,
            "item_factor": factor * config.factor_scale,
        }
        return {name: value.to(ctx.device, self._dtype) for name, value in params.items()}

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.config.dtype)

    def _draw(self, source: MetaTrainSet, step: int, n_steps: int, ctx: Context, generator: torch.Generator) -> Tasks:
        """Return the tasks of the next ``n_steps`` meta-steps, each with a K of its own."""
        config, n_query = self.config, self.config.n_query
        k_shot = config.max_shots
        while k_shot > 1 and not source.largest_n_users("train", k_shot=k_shot, n_query=n_query):
            k_shot -= 1
        n_users = max(1, min(5, source.largest_n_users("train", k_shot=k_shot, n_query=n_query)))
        a_step = -(-config.meta_batch // n_users)
        sizes = {"n_users": n_users, "k_shot": k_shot, "n_query": n_query}
        episodes = source.train_episodes(step * a_step, n_steps * a_step, **sizes)
        tasks = Tasks.of_episodes(episodes, ctx.device, self._dtype)
        kept = torch.randint(1, k_shot + 1, (len(tasks), 1), generator=generator) > torch.arange(k_shot)
        return tasks.with_support_mask(kept.to(ctx.device, self._dtype))

    def adapt_tasks(self, params: Params, tasks: Tasks) -> Params:
        """Return each task's parameters after the inner loop, on its local table: (T,), (T, d), (T, L), (T, L, d)."""
        config = self.config
        user = {name: params[name].expand(len(tasks), *params[name].shape) for name in USER}
        item = {name: local_table(params[name], tasks.items) for name in ITEM}
        adapted, given = (user, item) if config.adapts == "user" else (user | item, {})
        settings = {"steps": config.inner_steps, "rate": config.inner_lr, "first_order": config.first_order}
        return given | inner_sgd(self.support_loss, adapted, given, tasks.support, **settings)

    def support_loss(self, adapted: Params, given: Params, row: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
        """Return one task's inner loss: the sum of squared errors over K + ``inner_prior``."""
        error = (predict_task(given | adapted, row) - rating) * mask
        return error.square().sum() / (mask.sum() + self.config.inner_prior).clamp(min=1e-6)

    def meta_loss(self, params: Params, tasks: Tasks) -> Tensor:
        """Return the mean squared error over the tasks' queries after adaptation: what the outer loop minimises."""
        query = tasks.query
        predicted = vmap(predict_task)(self.adapt_tasks(params, tasks), query.row)
        return ((predicted - query.rating) * query.mask).square().sum() / query.mask.sum()

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        device = self.params["user_bias"].device
        tasks = Tasks.of_supports(supports, device, self._dtype)
        with torch.no_grad():
            final = self.adapt_tasks(self.params, tasks)
        shared = self.params["item_bias"], self.params["item_factor"]
        predictor = FactorPredictor(*shared, final["user_bias"], final["user_vector"], supports)
        return predictor if self.config.adapts == "user" else _AdaptedItems(predictor, tasks, final)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return dict(self.params), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        self.params = {name: tensors[name].to(ctx.device, self._dtype) for name in USER + ITEM}

    def trainable_parameters(self) -> int:
        return sum(value.numel() for value in self.params.values()) + self.config.rank + 1


def predict_task(params: Params, row: Tensor) -> Tensor:
    """Return one task's predictions (n,) for rows (n,) of its local table."""
    return params["user_bias"] + params["item_bias"][row] + params["item_factor"][row] @ params["user_vector"]


def _copy(params: Params) -> Params:
    return {name: value.detach().clone() for name, value in params.items()}


class _AdaptedItems(BatchPredictor):
    """Predictions where the support's items have rows of their own for each user, and all others the shared ones."""

    def __init__(self, shared: FactorPredictor, tasks: Tasks, final: Params) -> None:
        self.shared, self.tasks, self.final = shared, tasks, final

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        flat = self.shared.supports.flat_user(episode, user).to(self.tasks.items.device)
        row, known = self.tasks.local_rows(flat, item.to(flat.device))
        own = self.final["item_bias"][flat, row] + self.shared.bias[flat]
        own = own + (self.final["item_factor"][flat, row] * self.shared.vector[flat]).sum(1)
        return torch.where(known, own, self.shared.predict(episode, user, item))
