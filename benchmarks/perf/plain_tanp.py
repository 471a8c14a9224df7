"""TaNP's meta-step as one would write it from the paper, one task after the other: the other side of a benchmark.

The parameters are those of a ``fewrec.learners.tanp.TaNP``; nothing else is shared with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def meta_step(learner, tasks, noise: Tensor) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of a meta-batch and its gradients by name, of ``tasks`` and noise (T, latent) for their z."""
    net, config = learner.module, learner.config
    losses, assignments, n_queries = [], [], []
    for t in range(len(tasks)):
        user = tasks.user[t]
        support, query = ratings_of(tasks.support, t), ratings_of(tasks.query, t)
        loss, assignment = task_loss(net, config, user, *support, *query, noise[t])
        losses.append(loss)
        assignments.append(assignment)
        n_queries.append(len(query[0]))
    weight = torch.tensor(n_queries, dtype=noise.dtype) / sum(n_queries)
    c = torch.stack(assignments)
    target = c.detach() ** 2 / c.detach().sum(0)
    target = target / target.sum(1, keepdim=True)
    clustering = F.kl_div(c.log(), target, reduction="none").sum(1)
    objective = (weight * (torch.stack(losses) + config.cluster_weight * clustering)).sum()
    names, values = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(objective, values, allow_unused=True)
    found = {n: torch.zeros_like(v) if g is None else g for n, v, g in zip(names, values, gradients, strict=True)}
    return float(objective.detach()), found


def ratings_of(padded, t: int) -> tuple[Tensor, Tensor]:
    n = int(padded.mask[t].sum())
    return padded.item[t, :n], padded.rating[t, :n]


def task_loss(net, config, user, items, ratings, query_items, query_ratings, noise) -> tuple[Tensor, Tensor]:
    """Return one task's squared error and KL divergence, and its assignment to the clusters."""
    base = net.items.base
    effect = (ratings - base[items]).sum() / (len(items) + config.user_ridge)
    x, query_x = embed(net, items, user), embed(net, query_items, user)
    y, query_y = ratings - base[items] - effect, query_ratings - base[query_items] - effect
    support_pairs = pairs(x, y, effect)
    all_pairs = torch.cat([support_pairs, pairs(query_x, query_y, effect)])

    prior = latent(net, config, support_pairs)
    posterior = latent(net, config, all_pairs)
    z = posterior.mean + posterior.stddev * noise
    divergence = torch.distributions.kl_divergence(posterior, prior).sum()

    t = net.identity(support_pairs).sum(0) / (len(items) + config.aggregate_prior)
    kernel = (1 + (t - net.centres).pow(2).sum(1) / config.alpha).pow(-(config.alpha + 1) / 2)
    assignment = kernel / kernel.sum()
    task = t + assignment @ net.centres

    g = torch.cat([query_x, z.expand(len(query_items), -1)], 1)
    for layer in net.decoder:
        g = F.relu(modulated(layer, layer.linear(g), task))
    predicted = net.output(g).squeeze(1)
    return F.mse_loss(predicted, query_y) + config.kl_weight * divergence, assignment


def embed(net: nn.Module, items: Tensor, user: Tensor) -> Tensor:
    x = net.items.id(items)
    if net.items.content is not None:
        x = x + net.items.content(net.items.attributes[items])
    return x if net.user is None else torch.cat([x, net.user(user).expand(len(items), -1)], 1)


def pairs(x: Tensor, y: Tensor, effect: Tensor) -> Tensor:
    return torch.cat([x, y.unsqueeze(1), effect.expand(len(y), 1)], 1)


def latent(net: nn.Module, config, given: Tensor) -> torch.distributions.Normal:
    r = net.encoder(given).sum(0) / (len(given) + config.aggregate_prior)
    s = F.relu(net.to_latent(r))
    return torch.distributions.Normal(net.mean(s), torch.exp(0.5 * net.log_variance(s)), validate_args=False)


def modulated(layer: nn.Module, g: Tensor, task: Tensor) -> Tensor:
    gamma, beta = torch.tanh(layer.gamma(task)), torch.tanh(layer.beta(task))
    if layer.gating:
        eta, delta = torch.tanh(layer.eta(task)), torch.sigmoid(layer.delta(task))
        gamma = gamma * delta + eta * (1 - delta)
        beta = beta * delta + eta * (1 - delta)
    return gamma * g + beta
