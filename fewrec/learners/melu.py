"""MeLU: a network over the content of user and item, whose decision layers adapt to each user."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewrec.data.table import Catalog, Scale
from fewrec.learners.content_embedding import AdaptedNetwork, ContentConfig, ContentLearner, ContentModule, Decision
from fewrec.learners.embedded_items import EmbeddedItems
from fewrec.learners.engine.inner import Params, TaskView
from fewrec.learners.engine.tasks import Tasks


class MeLUConfig(ContentConfig):
    """Options of ``melu``: those of ``ContentConfig``. Defaults were chosen on meta-validation of MovieLens-100K,
    user-cold, seeds 0 to 2."""


class DecisionOverBase(AdaptedNetwork):
    """``mu + b_i`` plus the decision layers' score of the embedded content of user and item."""

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.decision = Decision(inputs, hidden)

    def forward(self, view: TaskView) -> Tensor:
        return view.inputs[:, -1] + self.decision(view.inputs[:, :-1])


class MeLU(ContentLearner):
    """MeLU (Lee, Im, Jang, Cho & Chung, MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation,
    KDD 2019).

    The content of user and item is embedded and concatenated, and goes through decision layers with ReLU to an output
    (the paper's user preference estimator, section 3). The local update (algorithm 1) changes decision layers
    and output alone, by gradient descent on the squared errors of a user's support; the embeddings are the same for
    all users. The global update changes both, by the squared errors of the query after the local update, second
    derivatives included. Embeddings are computed once for all inner steps.

    Deviations from the paper:

    1. The network predicts what is left of a rating after ``mu + b_i``; its output layer starts at zero weights. A
       network that has to learn the scale of ratings too, from random numbers, has not reached it after ten epochs of
       the published recipe.
    2. An item has an ID embedding besides its content, because genres and year can't tell two of a kind apart; it
       starts as a factorization of meta-train, and both are drawn to that start. An item without a rating in
       meta-train has its content alone. The attributes' map of an item is linear (a sum of one-hot embeddings, as in
       the paper); user attributes are embedded together where the data set has them, and left out where it has none.
    3. The support's loss is over K + ``inner_prior`` ratings, so that a short support moves a user less; the local
       rate is larger than the published one by orders of magnitude, since here a user's offset has to be learnt in
       ``inner_steps``.
    4. The global update takes one step of Adam a meta-batch for embeddings and layers alike, at one rate; the best of
       meta-validation is kept. Without a support the prediction is that of the start.
    """

    name = "melu"
    paper = "Lee et al., KDD 2019"
    Config = MeLUConfig

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        config, n_user = self.config, sizes["n_user_attributes"]
        network = DecisionOverBase(config.rank + (config.user_dim if n_user else 0), config.hidden)
        items = EmbeddedItems(sizes["n_items"], config.rank, catalog)
        return ContentModule(items, n_user, config.user_dim, network)

    def inputs(self, tasks: Tasks, items: Tensor) -> Tensor:
        embedded, user = self.module.items, self.users(tasks)
        each = user.unsqueeze(1).expand(-1, items.shape[1], -1)
        return torch.cat([embedded(items), each, embedded.base[items].unsqueeze(2)], 2)

    def adapt_tasks(self, tasks: Tasks) -> Params:
        return self.inner_loop().adapt(tasks, self.config.inner_lr, self.inputs(tasks, tasks.support.item))
