"""Peak memory of adapting language models at the default settings, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lm
import pytest

LIMIT_GB = {lm.ENCODER: 2.0, lm.DECODER: 4.0}
LEARNERS = {lm.ENCODER: ("bert-finetune", "bert-meta", "prompt-lm"), lm.DECODER: ("prompt-lm", "icl-lm")}


@pytest.mark.parametrize("backbone,learner", [(b, name) for b, names in LEARNERS.items() for name in names])
def test_peak_memory_at_the_default_settings(backbone, learner, tmp_path, memory):
    done = subprocess.run(
        [sys.executable, __file__, backbone, learner, str(tmp_path)],
        capture_output=True, text=True, timeout=1800, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak = float(done.stdout.split()[-1])
    memory(learner, backbone, peak, LIMIT_GB[backbone])
    assert 0.1 < peak < LIMIT_GB[backbone]


def child(backbone: str, name: str, cache: str) -> None:
    """Fit, adapt to twenty episodes and predict, and print the most memory that was resident, in GB."""
    import resource

    import torch

    from fewrec.episodes.meta import MetaTrainSet
    from fewrec.learners.registry import learner_class

    split, ctx = lm.context(torch.device("cpu"), Path(cache))
    found = learner_class(name)
    learner = found(found.Config(backbone=backbone))
    learner.prepare(ctx)
    learner.meta_fit(MetaTrainSet(split, ctx.scale), ctx)
    lm.all_of(learner, lm.episodes_of(split, "test", 20 if backbone == lm.ENCODER else 2), ctx)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


if __name__ == "__main__":
    child(*sys.argv[1:])
