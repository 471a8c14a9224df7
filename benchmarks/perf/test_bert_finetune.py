"""``bert-finetune`` at its defaults beside the Hugging Face Trainer on all weights, episode after episode."""

import copy
import math
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewrec.data.weights import find_weights
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.support import Episodes
from fewrec.learners.registry import learner_class

N_USERS, K_SHOT, N_QUERY = 5, 5, 10
EPISODES, TUNING_EPISODES = 20, 6
EPOCHS, BATCH = 10, 16
LEARNING_RATES = (1e-5, 2e-5, 5e-5, 2e-4)


class Trained:
    """A full fine-tune of MiniLM with a regression head for each episode, by ``transformers.Trainer``."""

    def __init__(self, folder: Path, item_texts: list[str]) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.item_texts = item_texts
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        torch.manual_seed(0)  # of the new head
        self.start = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, problem_type="regression")

    def predict(self, episodes: Episodes, e: int, learning_rate: float) -> Tensor:
        """Return the query's predicted ratings, (N * Q,), of a model trained on the support of episode ``e``."""
        from transformers import Trainer, TrainingArguments

        support, rows = episodes.support[e], episodes.query.episode == e
        mean, spread = support.rating.mean(), support.rating.std().clamp_min(0.5)
        targets = ((support.rating - mean) / spread).float()
        with tempfile.TemporaryDirectory() as folder:
            options = TrainingArguments(
                output_dir=folder,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=N_USERS * N_QUERY,
                learning_rate=learning_rate,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=True,
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
        examples = [dict(self.tokenizer(text, truncation=True, max_length=64)) for text in texts]
        if targets is not None:
            for example, target in zip(examples, targets.tolist(), strict=True):
                example["labels"] = target
        return examples


def rmse(episodes: Episodes, predictions: dict[int, Tensor], scale) -> float:
    """Return the RMSE over the query ratings of the predicted episodes, predictions clipped to the scale."""
    errors = [
        scale.clip(predicted.double()) - episodes.answers.rating[episodes.query.episode == e]
        for e, predicted in predictions.items()
    ]
    return math.sqrt(torch.cat(errors).square().mean())


def test_bert_finetune_beside_the_trainer(compare, user_cold, ctx):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install 'fewrec[perf]'")
    shape = {"n_users": N_USERS, "k_shot": K_SHOT, "n_query": N_QUERY}
    learner = learner_class("bert-finetune")()
    learner.prepare(ctx)
    peer = Trained(find_weights("all-MiniLM-L6-v2").folder, ctx.catalog.texts())

    validation = EpisodeSampler(user_cold.pools["validation"], 0, "validation", k_max=K_SHOT)
    tuning = validation.sample(0, TUNING_EPISODES, **shape)
    tuned = {
        rate: rmse(tuning, {e: peer.predict(tuning, e, rate) for e in range(TUNING_EPISODES)}, ctx.scale)
        for rate in LEARNING_RATES
    }
    best_rate = min(tuned, key=tuned.__getitem__)

    episodes = EpisodeSampler(user_cold.pools["test"], 0, "test", k_max=K_SHOT).sample(0, EPISODES, **shape)
    predictions: dict[str, dict[int, Tensor]] = {"ours": {}, "theirs": {}}

    def ours(e: int) -> None:
        rows = episodes.query.episode == e
        predictor = learner.adapt(episodes.support[e], ctx)
        predictions["ours"][e] = predictor.predict(episodes.query.user[rows], episodes.query.item[rows]).detach().cpu()

    def theirs(e: int) -> None:
        predictions["theirs"][e] = peer.predict(episodes, e, best_rate)

    def note() -> str:
        figures = {side: rmse(episodes, predicted, ctx.scale) for side, predicted in predictions.items()}
        return (
            f"RMSE {figures['ours']:.3f} against {figures['theirs']:.3f} on {EPISODES} episodes of MovieLens-100K "
            f"user-cold ({N_USERS} users, {K_SHOT} + {N_QUERY}), one at a time; theirs: all weights, {EPOCHS} epochs, "
            f"batch {BATCH}, standardised targets, learning rate {best_rate:g}, the best of "
            f"{', '.join(f'{rate:g}' for rate in tuned)} on {TUNING_EPISODES} meta-validation episodes"
        )

    compare(
        "bert-finetune, an episode",
        ours,
        theirs,
        other_name="Hugging Face Trainer, full fine-tune of MiniLM",
        note=note,
        rounds=EPISODES,
    )
