"""The usual way to fine-tune a language model on ratings: ``transformers.Trainer`` on all weights, anew an episode."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from pathlib import Path

import torch
from lm import BATCH, EPOCHS, MAX_LENGTH
from torch import Tensor

from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.episodes.support import Episodes


class Trained:
    """A full fine-tune of an encoder with a regression head for each episode; targets standardised over the support."""

    def __init__(self, folder: Path, item_texts: list[str], device: torch.device) -> None:
        hide_broken_torchvision()
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.item_texts, self.device = item_texts, device
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        torch.manual_seed(0)  # of the new head
        with quiet_transformers():
            self.start = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=1, problem_type="regression"
            )

    def predict(self, episodes: Episodes, e: int, learning_rate: float, *, half: bool = False) -> Tensor:
        """Return the query's predicted ratings, (m,), of a model trained on the support of episode ``e``.

        ``half``: matrix products in bfloat16, as the Trainer does it.
        """
        from transformers import Trainer, TrainingArguments

        support, rows = episodes.support[e], episodes.query.episode == e
        mean, spread = support.rating.mean(), support.rating.std().clamp_min(0.5)
        targets = ((support.rating - mean) / spread).float()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            options = TrainingArguments(
                output_dir=folder,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=int(rows.sum()),
                learning_rate=learning_rate,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=self.device.type == "cpu",
                dataloader_pin_memory=self.device.type != "cpu",
                bf16=half,
                bf16_full_eval=False,
                seed=e,
            )
            train = self._encode(support.user, support.item, targets)
            model = copy.deepcopy(self.start)
            trainer = Trainer(model=model, args=options, train_dataset=train, processing_class=self.tokenizer)
            trainer.train()
            query = self._encode(episodes.query.user[rows], episodes.query.item[rows])
            predicted = torch.from_numpy(trainer.predict(query).predictions).reshape(-1)
        return predicted * spread + mean

    def _encode(self, users: Tensor, items: Tensor, targets: Tensor | None = None) -> list[dict]:
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        texts = [f"user {user}: {self.item_texts[item]}" for user, item in pairs]
        examples = [dict(self.tokenizer(text, truncation=True, max_length=MAX_LENGTH)) for text in texts]
        if targets is not None:
            for example, target in zip(examples, targets.tolist(), strict=True):
                example["labels"] = target
        return examples
