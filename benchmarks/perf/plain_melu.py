"""One meta-training step of MeLU as one would write it from the paper: one task after the other, in plain PyTorch.

What `melu` is compared with, in time (benchmarks) and in numbers (tests/learners/test_melu.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear


def decide(fast: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return scores (n,) of embedded content (n, g) by the decision layers and the output in ``fast``."""
    n_layers = sum(name.startswith("decision.layers") for name in fast) // 2
    for layer in range(n_layers):
        x = torch.relu(linear(x, fast[f"decision.layers.{layer}.weight"], fast[f"decision.layers.{layer}.bias"]))
    return linear(x, fast["decision.output.weight"], fast["decision.output.bias"]).squeeze(1)


def meta_step(learner, tasks) -> tuple[float, dict[str, Tensor]]:
    """Return the mean squared error of a query rating after adapting, and its gradient by name of parameter.

    ``learner``: a ``MeLU`` with its module; ``tasks``: a ``Tasks`` with queries.
    """
    module, config = learner.module, learner.config
    parameters = dict(module.named_parameters())
    initial = dict(module.adapted.named_parameters())
    total, n_query = torch.zeros((), dtype=tasks.support.rating.dtype), 0
    for t in range(len(tasks)):
        in_support, in_query = tasks.support.mask[t] > 0, tasks.query.mask[t] > 0
        support, rating = tasks.support.item[t][in_support], tasks.support.rating[t][in_support]
        query, answer = tasks.query.item[t][in_query], tasks.query.rating[t][in_query]
        user = tasks.user[t] if module.user is None else module.user(tasks.user[t])
        x = torch.cat([module.items(support), user.expand(len(support), -1)], 1)

        fast = initial
        for _ in range(config.inner_steps):
            predicted = module.items.base[support] + decide(fast, x)
            loss = (predicted - rating).square().sum() / max(len(support) + config.inner_prior, 1e-6)
            gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=not config.first_order)
            fast = {n: v - config.inner_lr * g for (n, v), g in zip(fast.items(), gradients, strict=True)}

        x = torch.cat([module.items(query), user.expand(len(query), -1)], 1)
        total = total + (module.items.base[query] + decide(fast, x) - answer).square().sum()
        n_query += len(query)
    objective = total / n_query
    found = torch.autograd.grad(objective, list(parameters.values()))
    return float(objective.detach()), dict(zip(parameters, found, strict=True))
