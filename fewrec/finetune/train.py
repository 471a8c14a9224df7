"""Training and predicting: AdamW on the squared error of standardised scores, epoch after epoch, resumable between."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fewrec.errors import FewrecError
from fewrec.finetune.batches import epoch_batches, epoch_generator, epoch_key, padded_tokens
from fewrec.finetune.model import regression
from fewrec.finetune.options import FinetuneOptions
from fewrec.finetune.progress import Reporter
from fewrec.finetune.texts import Tokens
from fewrec.runner.timing import Stopwatch, synchronise

_PREDICTED_AT_ONCE = 512
_WARM_UP, _MEASURED = 1, 3  # steps of the first epoch by which the estimate of the time is made


class Trainer:
    """A model in training on the lines ``lines`` (n,) of ``tokens`` with the scores ``scores`` (n,) float64.

    Scores are standardised by their own mean and standard deviation (``mean``, ``spread``), so that a new head, whose
    output is close to zero, begins at the mean score. All randomness of epoch *e* comes from (seed, e): an epoch is a
    function of the parameters, the optimiser's state and its number.
    """

    def __init__(
        self, model: Any, tokens: Tokens, lines: Tensor, scores: Tensor, options: FinetuneOptions, device: torch.device
    ) -> None:
        self.model, self.tokens, self.lines, self.options, self.device = (
            model.to(device),
            tokens,
            lines,
            options,
            device,
        )
        self.mean = float(scores.mean())
        self.spread = float(scores.std(correction=0)) or 1.0  # all scores equal: nothing to learn but the mean
        self.target = ((scores - self.mean) / self.spread).float()
        self.lengths = tokens.lengths[lines]
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )  # fmt: skip
        self._names = [name for name, _ in model.named_parameters()]

    def epoch(self, number: int, reporter: Reporter, *, measure: bool = False) -> float:
        """Train for epoch ``number`` (from 1) and return the mean squared error seen in it, in squared score units.

        ``measure``: time the first steps, and tell ``reporter`` how long all of it will take.

        Raises:
            FewrecError: if the error is no longer a finite number.
        """
        order = epoch_generator(self.options.seed, "order", number)
        batches = epoch_batches(self.lengths, self.options.batch_size, order)
        reporter.epoch(number, len(batches), padded_tokens(self.lengths, batches))
        errors: list[Tensor] = []
        with self._dropout(number):
            self.model.train()
            if measure and len(batches) > _WARM_UP + 1:
                first, batches = batches[: _WARM_UP + _MEASURED], batches[_WARM_UP + _MEASURED :]
                for tokens in self._steps(first[:_WARM_UP], errors):
                    reporter.step(tokens)
                measured = first[_WARM_UP:]
                with Stopwatch(self.device) as watch:
                    for tokens in self._steps(measured, errors):
                        reporter.step(tokens)
                reporter.measured(len(measured), padded_tokens(self.lengths, measured), watch.seconds)
            for tokens in self._steps(batches, errors):
                reporter.step(tokens)
        mse = float(torch.stack(errors).double().sum()) / len(self.lines) * self.spread**2
        if not math.isfinite(mse):
            raise FewrecError(f"training diverged in epoch {number}; give a smaller --learning-rate")
        return mse

    def _steps(self, batches: Iterable[Tensor], errors: list[Tensor]) -> Iterator[int]:
        """Take one step a batch, without waiting for the device; yield each batch's number of padded tokens."""
        for rows in batches:
            ids, length = self._on_device(self.lines[rows])
            target = self._sent(self.target[rows])
            with self._autocast():
                output = regression(self.model, ids, length)
            error = (output - target).square()
            error.mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            errors.append(error.detach().sum())
            yield ids.numel()

    @torch.inference_mode()
    def predict(self, lines: Tensor) -> Tensor:
        """Return predicted scores of (m,) lines, on their own scale, not clipped; float64, on the CPU."""
        self.model.eval()
        order = self.tokens.lengths[lines].argsort(stable=True)
        parts = []
        for rows in order.split(_PREDICTED_AT_ONCE):
            ids, length = self._on_device(lines[rows])
            with self._autocast():
                parts.append(regression(self.model, ids, length))
        out = torch.empty(len(lines), dtype=torch.float64)
        out[order] = torch.cat(parts).cpu().double()
        return self.mean + self.spread * out

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimiser state, on the CPU: what the next epoch depends on, besides its number."""
        out = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, entries in self.optimizer.state_dict()["state"].items():
            for kind, tensor in entries.items():
                out[f"optimizer.{kind}.{self._names[number]}"] = tensor
        return {name: tensor.detach().cpu().contiguous() for name, tensor in out.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a state; a ``KeyError`` or ``RuntimeError`` says that it is another model's."""
        prefix = "model."
        self.model.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        kinds = ("step", "exp_avg", "exp_avg_sq")
        state = {
            number: {kind: tensors[f"optimizer.{kind}.{name}"] for kind in kinds}
            for number, name in enumerate(self._names)
            if f"optimizer.step.{name}" in tensors  # a parameter without a gradient has no state
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def _on_device(self, lines: Tensor) -> tuple[Tensor, Tensor]:
        # Tensor cores want multiples of 8; elsewhere a padded token is only work.
        ids, length = self.tokens.padded(lines, multiple=8 if self.device.type == "cuda" else 1)
        return self._sent(ids), self._sent(length)

    def _sent(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _autocast(self) -> torch.autocast:
        cuda = self.device.type == "cuda"
        return torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=cuda)

    @contextmanager
    def _dropout(self, epoch: int) -> Iterator[None]:
        """Let dropout, which knows the global generator alone, draw from this epoch's key; the global one stays."""
        if self.options.dropout == 0:
            yield
            return
        index = [self.device.index or 0] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=index):
            torch.manual_seed(epoch_key(self.options.seed, "dropout", epoch))
            yield


def timed(trainer: Trainer, number: int, reporter: Reporter, measure: bool) -> tuple[float, float]:
    """Train for an epoch and return its mean squared error and seconds."""
    synchronise(trainer.device)
    begun = time.perf_counter()
    mse = trainer.epoch(number, reporter, measure=measure)
    synchronise(trainer.device)
    return mse, time.perf_counter() - begun
