"""In-context learning: a language model reads a user's rated items and says what comes next. Nothing is trained.

All of a user's queries stand in one row behind the user's ratings, each blind to the others, so that these are read
once; a decoder alone can do that. Texts are tokenised once an item, rows are sorted by length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable, SuiteError
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.text.backbone import Backbone, load_backbone
from fewrec.learners.text.packing import pack
from fewrec.learners.text.precision import compute_dtype
from fewrec.learners.text.words import WORDS, RatingWords, template_problem

_ROW_TOKENS = 512  # longer rows have more attention between texts that don't see each other than they save
_WASTE = 0.15  # of the places of a forward pass that may hold nothing
_CONTENT_FREE = "N/A"
_MARKS = ("FIRSTQUERY", "FIRSTANSWER", "SECONDQUERY")  # letters alone, which no chat template changes


class InContextConfig(LearnerConfig):
    """What the language model reads.

    A prompt is ``instruction``, then each rated item as ``template`` + its rating's word + ``separator``, in the order
    of the support, then the query's ``template``; {text} stands for an item's text, {low} and {high} for the first and
    the last of ``words``, which are spread evenly over the data set's scale. The parts are tokenised one by one: keep
    white space at the end of a part to one line break. ``chat``: each item is a message of the user, each rating the
    model's answer, in the model's own chat format, which takes the separator's place.
    ``calibrate``: the words' probabilities are divided by those after the item "N/A" (contextual calibration: Zhao et
    al., ICML 2021), for users without ratings ("zero-shot"), for all, or never.

    ``max_length``: tokens of an item's query, its text being cut. Of the ratings the last ``max_shots`` are read, fewer
    where they are more than ``max_context`` tokens, or than the model can read. ``batch_tokens``: tokens of one forward
    pass, where a row has no more. ``precision``: "float32", "bfloat16", or "auto": bfloat16 on a GPU that has it.
    """

    backbone: str = "SmolLM2-135M-Instruct"
    instruction: str = "Ratings by one person, from {low} (worst) to {high} (best).\n"
    template: str = "{text}\nRating:"
    separator: str = "\n"
    words: tuple[str, ...] = WORDS
    chat: bool = False
    calibrate: Literal["zero-shot", "always", "never"] = "zero-shot"
    max_length: int = Field(64, ge=2, le=4096)
    max_shots: int = Field(64, ge=1)
    max_context: int = Field(1024, ge=1)
    batch_tokens: int = Field(4096, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @field_validator("template")
    @classmethod
    def _query_has_a_text(cls, template: str) -> str:
        if problem := template_problem(template):
            raise ValueError(problem)
        return template

    @field_validator("instruction")
    @classmethod
    def _instruction_has_none(cls, instruction: str) -> str:
        if problem := template_problem(instruction + "{text}"):
            raise ValueError(problem.replace("template", "instruction", 1))
        if "{text}" in instruction:
            raise ValueError("the instruction comes before all items and has no {text}")
        return instruction


class InContextLM(BatchedLearner):
    """The expected rating by a frozen language model that has read the user's ratings; zero-shot where there are none.

    Brown et al., NeurIPS 2020; of ratings: Kang et al., arXiv 2305.06474, 2023. The prediction is the expectation over
    the probabilities of the rating words, not the most likely one. A decoder reads a user's ratings once for all of the
    user's queries, an encoder-decoder's encoder once a query.
    """

    name = "icl-lm"
    Config = InContextConfig
    task = "user"
    needs = frozenset({"item_text"})
    batch_episodes = 100
    paper = "Brown et al., NeurIPS 2020; Kang et al., arXiv 2305.06474, 2023"
    config: InContextConfig

    def prepare(self, ctx: Context) -> None:
        if ctx.catalog.text is None:
            raise NotApplicable(f"{self.name} needs item text")
        config, backbone = self.config, load_backbone(self.config.backbone)
        if backbone.whole is None:
            raise NotApplicable(
                f"{self.name} needs a decoder or an encoder-decoder, and {config.backbone} is an encoder"
            )
        instruction, template, separator = config.instruction, config.template, config.separator
        if config.chat:
            instruction, template, separator = _chat(config, backbone)
        self.words = words = RatingWords(backbone, ctx.scale, config.words, template=template)
        before = [] if config.chat else words.before  # chat formats have them
        self.after = [] if config.chat or backbone.causal else words.after
        instruction = instruction.format(low=words.words[0], high=words.words[-1])
        beginning, self.separator = words.plain([instruction, separator])
        self.beginning = before + beginning
        self.queries = words.tokenise([*ctx.catalog.texts(), _CONTENT_FREE], config.max_length)
        self.lengths = torch.tensor([len(query) for query in self.queries])
        self.room = self._room(backbone)
        self.backbone, self.device = backbone.to(ctx.device), ctx.device

    def loaded(self) -> dict[str, str]:
        return {self.config.backbone: self.backbone.sha256}

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        shots: list[list[int]] = [[] for _ in range(supports.total_users)]
        for row, user in enumerate(supports.flat_user().tolist()):
            shots[user].append(row)
        word = self.words.ids[self.words.nearest(supports.rating)].tolist()
        item = supports.item.tolist()
        numbers: dict[tuple[int, ...], int] = {}  # users without ratings share one context
        which = []
        for rows in shots:
            read = [[*self.queries[item[r]], word[r], *self.separator] for r in rows[-self.config.max_shots :]]
            size = sum(map(len, read))
            while size > self.room:
                size -= len(read.pop(0))
            which.append(numbers.setdefault(tuple(sum(read, list(self.beginning))), len(numbers)))
        return _Prompted(self, supports, [list(context) for context in numbers], torch.tensor(which))

    @torch.no_grad()
    def logits(self, contexts: Sequence[Sequence[int]], context: Tensor, item: Tensor) -> Tensor:
        """Return the words' logits (n, W) on the CPU for queries of items (n,) after the numbered contexts (n,)."""
        groups = list(self._groups(contexts, context, item))
        totals = torch.tensor([group.total for group in groups])
        found, rows = [], []
        for batch in _batches(totals, self.config.batch_tokens):
            some = [groups[g] for g in batch]
            logits = self._forward(some)
            for g, group in enumerate(some):
                found.append(logits[g, : len(group.rows)])
                rows.append(group.rows)
        out = torch.empty(len(item), len(self.words.words), dtype=torch.float32)
        out[torch.cat(rows)] = torch.cat(found).float().cpu()
        return out

    def _groups(self, contexts: Sequence[Sequence[int]], context: Tensor, item: Tensor) -> Iterator[_Group]:
        """Yield what one row each is made of: a context and some of its queries, as many as are worth a row."""
        if not self.backbone.causal:
            for row, (c, i) in enumerate(zip(context.tolist(), item.tolist(), strict=True)):
                yield _Group([], [[*contexts[c], *self.queries[i], *self.after]], torch.tensor([row]))
            return
        for c in torch.unique(context).tolist():
            rows = (context == c).nonzero().squeeze(1)
            behind = self.lengths[item[rows]].cumsum(0)
            room = max(_ROW_TOKENS, 3 * len(contexts[c])) - len(contexts[c])
            pieces = -(-int(behind[-1]) // room)
            piece = (behind - 1) * pieces // behind[-1]
            for part in range(pieces):
                chosen = rows[piece == part]
                if len(chosen):
                    yield _Group(contexts[c], [self.queries[i] for i in item[chosen].tolist()], chosen)

    def _forward(self, groups: Sequence[_Group]) -> Tensor:
        """Return logits (G, U, W) of some groups, each one row."""
        n_texts = max(len(group.texts) for group in groups)
        texts = [[*group.texts, *[[]] * (n_texts - len(group.texts))] for group in groups]
        lengths = torch.tensor([[len(text) for text in row] for row in texts])
        shared = torch.tensor([len(group.context) for group in groups])
        capacity = int(lengths.sum(1).max() + shared.max())
        layout = pack(lengths, capacity=capacity, shared=shared)
        ids = layout.fill([text for row in texts for text in row])
        for row, group in zip(ids, groups, strict=True):
            row[: len(group.context)] = torch.tensor(group.context, dtype=ids.dtype)
        layout, ids = layout.to(self.device), ids.to(self.device, non_blocking=True)
        dtype = compute_dtype(self.config.precision, self.device)
        half = torch.autocast(self.device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
        with half:
            return self.words.logits(self.backbone.encode(layout, ids), layout)

    def _room(self, backbone: Backbone) -> int:
        """Return how many tokens of ratings may be read."""
        limit, config = self.config.max_context, backbone.trunk.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None:
            limit = min(limit, positions - int(self.lengths.max()) - len(self.after))
        if limit < len(self.beginning):
            raise SuiteError(
                f"{self.name}: the instruction is {len(self.beginning)} tokens, and there is room for {limit} before a "
                "query; shorten it, or change max_context or max_length"
            )
        return limit - len(self.beginning)


@dataclass(frozen=True, eq=False)
class _Group:
    """One row: a context that all ``texts`` see, and the texts' numbers among all that are asked (n,)."""

    context: Sequence[int]
    texts: list[list[int]]
    rows: Tensor

    @property
    def total(self) -> int:
        return len(self.context) + sum(map(len, self.texts))


class _Prompted(BatchPredictor):
    """``context`` (users of the batch,) numbers the ``contexts``, which are token ids."""

    def __init__(
        self, learner: InContextLM, supports: SupportBatch, contexts: list[list[int]], context: Tensor
    ) -> None:
        self.learner, self.supports, self.contexts, self.context = learner, supports, contexts, context

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        if not len(item):
            return torch.empty(0, dtype=torch.float64)
        learner, n_texts = self.learner, len(self.learner.queries)
        context = self.context[self.supports.flat_user(episode.cpu(), user.cpu())]
        asked, place = torch.unique(context * n_texts + item.cpu(), return_inverse=True)
        free = torch.tensor([c for c in torch.unique(context).tolist() if self._calibrated(c)], dtype=torch.int64)
        which = torch.cat([asked, free * n_texts + n_texts - 1])  # the content-free item is the last
        logits = learner.logits(self.contexts, which // n_texts, which % n_texts).double()
        logits, bias = logits.split([len(asked), len(free)])
        if len(free):
            of_context = torch.zeros(len(self.contexts), logits.shape[1], dtype=logits.dtype)
            of_context[free] = bias.log_softmax(1)
            logits = logits - of_context[asked // n_texts]
        return learner.words.expectation(logits)[place]

    def _calibrated(self, context: int) -> bool:
        how = self.learner.config.calibrate
        return how == "always" or (how == "zero-shot" and self.contexts[context] == self.learner.beginning)


def _batches(totals: Tensor, tokens: int) -> Iterator[list[int]]:
    """Yield the numbers of rows of ``totals`` (n,) tokens that go through the model at once, the longest first."""
    batch: list[int] = []
    width = held = 0
    for number in totals.argsort(descending=True, stable=True).tolist():
        size = int(totals[number])
        places = (len(batch) + 1) * width
        if batch and (places > tokens or held + size < (1 - _WASTE) * places):
            yield batch
            batch, held = [], 0
        if not batch:
            width = size
        batch.append(number)
        held += size
    if batch:
        yield batch


def _chat(config: InContextConfig, backbone: Backbone) -> tuple[str, str, str]:
    """Return instruction, template and separator with the backbone's chat format around them."""
    if not getattr(backbone.tokenizer, "chat_template", None):
        raise NotApplicable(f"{backbone.name} has no chat template; give chat=false")
    roles = ("user", "assistant", "user")
    messages: list[dict[str, Any]] = [{"role": r, "content": mark} for r, mark in zip(roles, _MARKS, strict=True)]
    text = backbone.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    parts = []
    for mark in _MARKS:
        part, _, text = text.partition(mark)
        parts.append(part)
    beginning, answer, message = parts
    if not answer or answer != text:
        raise NotApplicable(
            f"{backbone.name}'s chat template has no place to answer that is always the same; give chat=false"
        )
    beginning, answer = (part.replace("{", "{{").replace("}", "}}") for part in (beginning, answer))
    return beginning + config.instruction, config.template + answer, message
