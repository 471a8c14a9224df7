"""The order of an epoch: shuffled by its own generator, and batches of lines of similar length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewrec.seeding import substream_keys

POOL = 16  # batches whose lines are sorted together: enough to pad little, too few to make an epoch's order a rule


def epoch_generator(seed: int, what: str, epoch: int) -> torch.Generator:
    """Return the generator of one purpose in one epoch, by (seed, purpose, epoch) alone: nothing to save or restore."""
    return torch.Generator().manual_seed(epoch_key(seed, what, epoch))


def epoch_key(seed: int, what: str, epoch: int) -> int:
    """Return 63 bits that (seed, purpose, epoch) alone decide."""
    return int(substream_keys(seed, f"finetune {what}", np.array([epoch]))[0] >> np.uint64(1))


def epoch_batches(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the batches of one epoch: positions into ``lengths`` (n,), each once.

    A random order is cut into pools of ``POOL`` batches; a pool is sorted by length (equal lengths stay in random
    order) and cut into batches; the batches of all pools are shuffled.
    """
    batches: list[Tensor] = []
    for pool in torch.randperm(len(lengths), generator=generator).split(POOL * batch_size):
        batches += pool[lengths[pool].argsort(stable=True)].split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def padded_tokens(lengths: Tensor, batches: list[Tensor]) -> int:
    """Return how many tokens the batches have, padding included: what an epoch's time is proportional to."""
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)
