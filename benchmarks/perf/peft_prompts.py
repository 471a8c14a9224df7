"""The usual way to train a soft prompt: peft's prompt tuning of a causal language model, a new prompt an episode."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch
from lm import BATCH, DECODER, EPOCHS, MAX_LENGTH, PROMPT_TOKENS
from torch import Tensor

from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.data.weights import find_weights
from fewrec.episodes.support import Episodes
from fewrec.learners.base import Context
from fewrec.learners.text.backbone import load_backbone
from fewrec.learners.text.words import RatingWords


class Prompted:
    """``PromptTuningConfig`` on a decoder: the loss of the causal language model on the rating word after the text.

    As in peft's own guide: a batch is padded to its longest text, every other label is -100, the model computes the
    whole vocabulary's logits at every position, AdamW with a linear schedule. ``words`` gives the texts and the rating
    words; the prediction is the expectation over their probabilities, as ours.
    """

    def __init__(self, folder: Path, words: RatingWords, texts: Sequence[Sequence[int]], device: torch.device) -> None:
        hide_broken_torchvision()
        from transformers import AutoModelForCausalLM

        self.words, self.device = words, device
        self.texts = [[*words.before, *text, *words.after] for text in texts]
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
        self.model = model.to(device)

    @classmethod
    def beside(cls, ctx: Context) -> Prompted:
        """Return it on the decoder of the rows, which reads the same texts as ours."""
        backbone = load_backbone(DECODER)
        words = RatingWords(backbone, ctx.scale)
        texts = words.tokenise(ctx.catalog.texts(), MAX_LENGTH)
        return cls(find_weights(DECODER).folder, words, texts, ctx.device)

    def predict(
        self, episodes: Episodes, e: int, learning_rate: float, *, epochs: int = EPOCHS, half: bool = False
    ) -> Tensor:
        """Return the query's predicted ratings, (m,), after training on the support of episode ``e``."""
        from peft import PromptTuningConfig, get_peft_model
        from transformers import get_linear_schedule_with_warmup

        support, rows = episodes.support[e], episodes.query.episode == e
        torch.manual_seed(e)
        model = get_peft_model(
            self.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT_TOKENS)
        ).to(self.device)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=learning_rate)
        steps = EPOCHS * -(-len(support.item) // BATCH)
        schedule = get_linear_schedule_with_warmup(optimiser, 0, steps)
        answer = self.words.ids[self.words.nearest(support.rating)]
        model.train()
        for _ in range(epochs):
            for batch in torch.randperm(len(support.item)).split(BATCH):
                with self._half(half):
                    loss = model(**self._encode(support.item[batch], answer[batch])).loss
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        return self._read(model, episodes.query.item[rows], half)

    @torch.no_grad()
    def _read(self, model, items: Tensor, half: bool) -> Tensor:
        model.eval()
        found = []
        for batch in items.split(BATCH):
            given = self._encode(batch)
            with self._half(half):
                logits = model(**given).logits
            last = PROMPT_TOKENS + given["attention_mask"].sum(1) - 1
            of_words = logits[torch.arange(len(batch), device=self.device), last][:, self.words.ids.to(self.device)]
            found.append(self.words.expectation(of_words.float()).cpu())
        return torch.cat(found)

    def _encode(self, items: Tensor, answer: Tensor | None = None) -> dict[str, Tensor]:
        rows = [self.texts[item] for item in items.tolist()]
        if answer is not None:
            rows = [[*row, word] for row, word in zip(rows, answer.tolist(), strict=True)]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        there = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        given = {"input_ids": ids, "attention_mask": there}
        if answer is not None:
            last = torch.arange(longest) == there.sum(1, keepdim=True) - 1
            given["labels"] = torch.where(last, ids, -100)
        return {name: value.to(self.device) for name, value in given.items()}

    def _half(self, half: bool) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext()
