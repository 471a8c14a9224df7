"""One meta-training step of MAMO as one would write it from the paper: one task after the other, in plain PyTorch.

What `mamo` is compared with, in time (benchmarks) and in numbers (tests/learners/test_mamo.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear


def recommend(fast: dict[str, Tensor], profile: Tensor, x: Tensor) -> Tensor:
    """Return scores (n,) of items' embedded content (n, d) for a user's profile (p,)."""
    of_user = torch.relu(linear(profile, fast["user.weight"], fast["user.bias"])).expand(len(x), -1)
    of_item = torch.relu(linear(x, fast["item.weight"], fast["item.bias"]))
    x = linear(torch.cat([of_user, of_item], 1), fast["preference"])
    n_layers = sum(name.startswith("decision.layers") for name in fast) // 2
    for layer in range(n_layers):
        x = torch.relu(linear(x, fast[f"decision.layers.{layer}.weight"], fast[f"decision.layers.{layer}.bias"]))
    return linear(x, fast["decision.output.weight"], fast["decision.output.bias"]).squeeze(1)


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def meta_step(learner, tasks) -> tuple[float, dict[str, Tensor]]:
    """Return the mean squared error of a query rating after adapting, and its gradient by name of parameter.

    ``learner``: a ``MAMO`` with its module, whose memories are written to; ``tasks``: a ``Tasks`` with queries.
    """
    module, config, memories = learner.module, learner.config, learner.module.memories
    parameters = dict(module.named_parameters())
    initial = dict(module.adapted.named_parameters())
    total, n_query = torch.zeros((), dtype=tasks.support.rating.dtype), 0
    rates = {
        "profile": config.write_profile,
        "weight": config.write_user,
        "bias": config.write_user,
        "preference": config.write_preference,
    }
    moves = {name: torch.zeros_like(getattr(memories, name)) for name in rates}
    for t in range(len(tasks)):
        in_support, in_query = tasks.support.mask[t] > 0, tasks.query.mask[t] > 0
        support, rating = tasks.support.item[t][in_support], tasks.support.rating[t][in_support]
        query, answer = tasks.query.item[t][in_query], tasks.query.rating[t][in_query]
        x, base = module.items(support), module.items.base[support]

        residual = rating - base
        residual = residual - residual.sum() / (len(support) + config.user_ridge)
        attributes = tasks.user[t] if module.user is None else module.user(tasks.user[t])
        profile = torch.cat([residual @ x / max(len(support) + config.profile_prior, 1e-6), attributes])
        attention = torch.softmax(config.sharpness * (unit(memories.profile) @ unit(profile)), 0)

        start = dict(initial)
        for name in ("weight", "bias"):
            bias_term = torch.tensordot(attention, getattr(memories, name), 1)
            start[f"user.{name}"] = initial[f"user.{name}"] - config.tau * bias_term
        start["preference"] = initial["preference"] + torch.tensordot(attention, memories.preference, 1)

        fast = start
        for _ in range(config.inner_steps):
            loss = (base + recommend(fast, profile, x) - rating).square().sum()
            loss = loss / max(len(support) + config.inner_prior, 1e-6)
            gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=not config.first_order)
            fast = {n: v - config.inner_lr * g for (n, v), g in zip(fast.items(), gradients, strict=True)}

        predicted = module.items.base[query] + recommend(fast, profile, module.items(query))
        total = total + (predicted - answer).square().sum()
        n_query += len(query)

        with torch.no_grad():
            written = {
                "profile": profile,
                "weight": (start["user.weight"] - fast["user.weight"]) / config.inner_lr,
                "bias": (start["user.bias"] - fast["user.bias"]) / config.inner_lr,
                "preference": fast["preference"] - initial["preference"],
            }
            for name, value in written.items():
                share = attention.reshape(-1, *(1,) * value.dim())
                moves[name] += share * (value - getattr(memories, name))
    objective = total / n_query
    found = torch.autograd.grad(objective, list(parameters.values()))
    with torch.no_grad():
        for name, rate in rates.items():
            getattr(memories, name).add_(rate / len(tasks) * moves[name])
    return float(objective.detach()), dict(zip(parameters, found, strict=True))
