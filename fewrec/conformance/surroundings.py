"""The global state of Python, NumPy and torch: what a learner must leave as it is and must not depend on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Surroundings:
    """A snapshot of the settings and generators that all code of a process shares."""

    settings: dict[str, Any]
    torch_random: torch.Tensor
    numpy_random: Any
    python_random: object

    @classmethod
    def now(cls) -> Surroundings:
        settings = {
            "torch's default dtype (torch.set_default_dtype)": torch.get_default_dtype(),
            "torch's default device (torch.set_default_device)": torch.get_default_device(),
            "gradients on or off (torch.set_grad_enabled)": torch.is_grad_enabled(),
            "the number of threads (torch.set_num_threads)": torch.get_num_threads(),
            "deterministic algorithms (torch.use_deterministic_algorithms)": (
                torch.are_deterministic_algorithms_enabled()
            ),
        }
        return cls(settings, torch.get_rng_state(), np.random.get_state(), random.getstate())

    def changed_settings(self, later: Surroundings) -> list[str]:
        """Return what a later snapshot has otherwise, as "name: before -> after"."""
        pairs = ((name, value, later.settings[name]) for name, value in self.settings.items())
        return [f"{name}: {before} -> {after}" for name, before, after in pairs if before != after]

    def drawn_from(self, later: Surroundings) -> list[str]:
        """Return the global generators that have been drawn from or seeded by the time of a later snapshot."""
        numpys = zip(self.numpy_random, later.numpy_random, strict=True)
        same = {
            "torch": torch.equal(self.torch_random, later.torch_random),
            "numpy.random": all(np.array_equal(before, after) for before, after in numpys),
            "random": self.python_random == later.python_random,
        }
        return [name for name, unchanged in same.items() if not unchanged]

    def restore(self) -> None:
        dtype, device, grad, threads, deterministic = self.settings.values()
        torch.set_default_dtype(dtype)
        torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_rng_state(self.torch_random)
        np.random.set_state(self.numpy_random)
        random.setstate(self.python_random)  # type: ignore[arg-type]  # what getstate returned


@contextmanager
def known_surroundings(seed: int) -> Iterator[Surroundings]:
    """Run a block with all global generators seeded; yield what it begins with; restore everything afterwards."""
    outside = Surroundings.now()
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield Surroundings.now()
    finally:
        outside.restore()


@contextmanager
def double_by_default() -> Iterator[None]:
    """Run a block with float64 as torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
