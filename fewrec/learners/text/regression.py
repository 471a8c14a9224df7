"""Regression of ratings on item text within an episode: what fine-tuning and prompting have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fewrec.data.table import Scale
from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context
from fewrec.learners.text.activations import ItemActivations, item_activations
from fewrec.learners.text.backbone import Backbone, load_backbone
from fewrec.learners.text.config import TextConfig
from fewrec.learners.text.features import TextFeatures
from fewrec.learners.text.heads import Heads, Rows, solve_heads
from fewrec.learners.text.stack import Params, Stack, first_layer
from fewrec.learners.text.training import Slots, fine_tune, slots
from fewrec.learners.text.words import RatingWords


class TextLearner(BatchedLearner):
    """A learner that reads item texts through a backbone: loading it, encoding the texts, the features on top."""

    needs = frozenset({"item_text"})
    features: TextFeatures

    @abstractmethod
    def make_features(self, backbone: Backbone, ctx: Context) -> TextFeatures:
        """Return the features of what is trained, on top of the frozen layers."""

    def prepare(self, ctx: Context) -> None:
        if ctx.catalog.text is None:
            raise NotApplicable(f"{self.name} needs item text")
        backbone = load_backbone(self.config.backbone)
        self.weights_sha256 = backbone.sha256
        backbone.to(ctx.device)
        self.features = self.make_features(backbone, ctx)

    def stack_of(
        self, backbone: Backbone, ctx: Context, method: str, words: RatingWords | None = None
    ) -> tuple[Stack, ItemActivations]:
        """Return the layers that are run for each episode, and the cached input of their first one.

        With rating ``words`` the model reads each item's query instead of its text.
        """
        first = first_layer(backbone, self.config, method)
        texts, template = ctx.catalog.texts(), ctx.catalog.template
        if words is not None:
            texts, template = words.prompts(texts, self.config.max_length), f"{template}\x1f{words.template}"
        activations = item_activations(backbone, texts, template, first, self.config.max_length, ctx)
        return Stack(backbone, first), activations

    def loaded(self) -> dict[str, str]:
        return {self.config.backbone: self.weights_sha256}


class TextRegressor(TextLearner):
    """A learner whose episode model is ``Heads`` on ``TextFeatures``, from the pretrained model on."""

    task: ClassVar[Literal["user", "episode"]] = "episode"
    needs = frozenset({"item_text", "k>0"})
    batch_episodes = 50
    config: TextConfig

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Params:
        """Return new tensors for what is trained, of one episode (or of one user, where each has its own)."""

    @property
    def per_user(self) -> bool:
        return getattr(self.config, "per", "episode") == "user"

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for e in self._by_size(supports):
            alike[len(supports[e].item), int(supports.n_users[e])].append(e)
        adapted: list[Adapted] = []
        for members in alike.values():
            size = self.in_flight(len(supports[members[0]].item))
            for start in range(0, len(members), size):
                adapted.append(self.adapt_alike(supports, members[start : start + size], ctx))
        return TextPredictor(adapted, len(supports))

    def _by_size(self, supports: SupportBatch) -> list[int]:
        """Return the episodes sorted by the tokens of their supports, so that those in one pass are alike."""
        tokens = self.features.activations.lengths[supports.item.cpu()]
        total = torch.zeros(len(supports), dtype=torch.int64).index_add(0, supports.episode.cpu(), tokens)
        return total.argsort(stable=True).tolist()

    def in_flight(self, n_rows: int) -> int:
        """Return how many episodes of so many ratings are adapted in one pass, by ``memory_mb`` and an estimate."""
        if self.config.optimizer == "adafactor" or self.features.whole is not None:
            return 1  # Adafactor's steps depend on whole tensors, and a whole model has no axis of episodes
        features = self.features
        weights = sum(p.numel() for p in self.initial(torch.Generator()).values())
        tokens = n_rows * float(features.activations.lengths.double().mean())
        wide = 4 * features.stack.backbone.width
        states = tokens * wide * 8 * max(len(features.stack.layers), 1)
        return max(1, int(self.config.memory_mb * 2**20 / (4 * (4 * weights + states))))

    def adapt_alike(self, supports: SupportBatch, members: list[int], ctx: Context) -> Adapted:
        """Adapt to the given episodes of a batch, which have as many ratings and users."""
        features, device, config = self.features, self.features.device, self.config
        parts = [supports[e] for e in members]
        generators = [ctx.generator(part.seed) for part in parts]
        target, spread, base, prior_head = self.targets([part.rating.double() for part in parts], ctx.scale)
        rows = Rows(
            torch.stack([part.user for part in parts]).to(device),
            torch.stack([part.item for part in parts]).to(device),
            target.to(device, features.centre.dtype),
        )
        n_users = parts[0].n_users
        per_user = n_users if self.per_user else 0
        copies = n_users if per_user else 1
        drawn = [self.initial(g) for g in generators for _ in range(copies)]
        params = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
        texts = slots(rows.user, rows.item, per_user)
        x = self.starting_features(params, rows, texts)
        heads = solve_heads(x, rows, n_users, config, prior_head.to(x))
        params, heads = fine_tune(features, params, heads, rows, config, generators, prior_head.to(x), per_user)
        return Adapted(members, features, params, heads, spread, base, per_user)

    def starting_features(self, params: Params, rows: Rows, texts: Slots) -> Tensor:
        """Return the features (E, n, d) of the rows before training, by ``initial`` parameters (G, ...)."""
        return texts.of(self.features.grouped(params, texts.items))

    def targets(self, ratings: list[Tensor], scale: Scale) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return targets (E, n), spreads (E,), means (E, 1) and the prior head (d,) for the ratings of E supports."""
        if self.features.words is not None:
            # The model's own rating is the prediction: the head undoes the features' standardisation and stays.
            centre, unit = self.features.centre.double().cpu(), self.features.spread.double().cpu()
            target = torch.stack([(r - centre) for r in ratings])
            return target, torch.ones(len(ratings)).double(), centre.expand(len(ratings), 1), unit
        middle, spread = (torch.tensor(v).double() for v in zip(*(standard(r, scale) for r in ratings), strict=True))
        target = torch.stack([(r - m) / s for r, m, s in zip(ratings, middle, spread, strict=True)])
        return target, spread, middle.unsqueeze(1), torch.zeros(self.features.size)

    def trainable_parameters(self) -> int:
        made = sum(p.numel() for p in self.initial(torch.Generator()).values()) if self.config.epochs else 0
        return made + 2 * self.features.size + 1  # the shared head; each user's own head and offset


def standard(rating: Tensor, scale: Scale) -> tuple[float, float]:
    """Return mean and standard deviation of a support, a quarter of the scale where all ratings are equal."""
    if not len(rating):
        return scale.middle, (scale.high - scale.low) / 4
    spread = float(rating.std(correction=0))
    return float(rating.mean()), spread if spread > 1e-6 else (scale.high - scale.low) / 4


@dataclass(frozen=True, eq=False)
class Adapted:
    """Episodes that were adapted in one pass: rating = ``base + spread * heads(u, x_i)``.

    ``members``: their numbers in the batch. ``base`` (E, 1) or, by item, (1, n_items), float64; ``spread`` (E,).
    """

    members: list[int]
    features: TextFeatures
    params: Params
    heads: Heads
    spread: Tensor
    base: Tensor
    per_user: int = 0
    table: Tensor | None = None  # (n_items, d) features where they are the same for all

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Return (n,) ratings for episodes numbered as in ``members``."""
        order = episode.argsort(stable=True)
        count = torch.bincount(episode, minlength=len(self.members))
        longest = int(count.max())
        place = torch.arange(len(episode)) - (count.cumsum(0) - count)[episode[order]]
        users, items = torch.zeros(len(count), longest, dtype=torch.int64), torch.zeros(len(count), longest).long()
        users[episode[order], place], items[episode[order], place] = user[order], item[order]
        filled = torch.arange(longest) < count.unsqueeze(1)
        items = torch.where(filled, items, item[order[:1]])  # a text that is there anyway, or nearly
        device = self.features.device
        if self.table is not None:
            x = self.table[items.to(device)]
        else:
            texts = slots(users.to(device), items.to(device), self.per_user)
            x = texts.of(self.features.grouped(self.params, texts.items))
        found = self.heads(users.to(device), x).detach().cpu().double()[episode[order], place]
        out = torch.empty(len(episode), dtype=torch.float64)
        wide = self.base.shape[1] > 1
        base = self.base[0, item[order]] if wide else self.base[episode[order], 0]
        out[order] = base + self.spread[episode[order]] * found
        return out


class TextPredictor(BatchPredictor):
    """The episodes of a batch, adapted some at a time."""

    def __init__(self, adapted: list[Adapted], n_episodes: int) -> None:
        self.adapted = adapted
        self.place = torch.zeros(n_episodes, 2, dtype=torch.int64)
        for number, part in enumerate(adapted):
            for at, e in enumerate(part.members):
                self.place[e] = torch.tensor([number, at])

    @torch.no_grad()
    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        episode, user, item = episode.cpu(), user.cpu(), item.cpu()
        out = torch.empty(len(item), dtype=torch.float64)
        part = self.place[episode, 0]
        for number in torch.unique(part).tolist():
            rows = (part == number).nonzero().squeeze(1)
            out[rows] = self.adapted[number].predict(self.place[episode[rows], 1], user[rows], item[rows])
        return out
