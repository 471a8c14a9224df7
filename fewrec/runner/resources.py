"""What a unit of a learner reserves on a cluster: what its class declares, or what fits most of them."""

from __future__ import annotations

import torch

from fewrec.errors import SuiteError
from fewrec.learners.base import Learner
from fewrec.learners.resources import Resources


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
