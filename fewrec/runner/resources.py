"""What a unit of a learner reserves on a cluster, and the device that it runs on: what its class declares of both."""

from __future__ import annotations

from typing import Any

import torch

from fewrec.errors import SuiteError
from fewrec.learners.base import Learner
from fewrec.learners.registry import learner_class
from fewrec.learners.resources import Resources
from fewrec.runner.environment import node_kind


def resources_of(cls: type[Learner], device: torch.device, threads: int) -> Resources:
    """Return processors and GPUs of a unit, both numbers: those of the class attribute ``resources`` where there are.

    Else it has as many processors as a worker has threads, and one GPU where ``device`` is one of CUDA.
    Raises ``SuiteError`` where the attribute is something else.
    """
    said = getattr(cls, "resources", None)
    if said is not None and not isinstance(said, Resources):
        raise SuiteError(
            f"learner '{cls.name}': its resources are a {type(said).__name__}; "
            "make them a fewrec.learners.resources.Resources"
        )
    said = said or Resources()
    gpus = (1.0 if said.gpus is None else said.gpus) if device.type == "cuda" else 0.0
    return Resources(float(threads) if said.cpus is None else said.cpus, gpus)


def device_of(cls: type[Learner], device: torch.device) -> torch.device:
    """Return where a learner's units run: the CPU where it declares no GPU, whatever runs them, else ``device``."""
    said = getattr(cls, "resources", None)
    return torch.device("cpu") if isinstance(said, Resources) and said.gpus == 0 else device


def kind_of_units(learner: str, device: torch.device, threads: int, workers: int) -> dict[str, Any]:
    """Return what kind of node this machine is to the units of a learner (``fewrec.runner.nodes``), as JSON values."""
    return node_kind(device_of(learner_class(learner), device), threads, workers)
