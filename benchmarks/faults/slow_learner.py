"""The campaign's own learner, for ``--plugin``: trained, with a state, and as slow or as hungry as it is told to be.

FAULTS_PAUSE=adapt:0.1: that phase takes 0.1 seconds longer. FAULTS_HUNGRY_MB: allocate until memory ends, under a limit
of so many megabytes more than the process has. FAULTS_DIES: a file; where it is missing, make it and die in ``adapt``
by SIGKILL, as a process does that the kernel kills for its memory. None of them changes a prediction.
"""

import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import torch

from fewrec.learners.base import Learner, Predictor


def pause(phase: str) -> None:
    which, _, seconds = os.environ.get("FAULTS_PAUSE", "").partition(":")
    if which == phase:
        time.sleep(float(seconds))


class Offset(Predictor):
    def __init__(self, item_mean, offset):
        self.item_mean, self.offset = item_mean, offset

    def predict(self, users, items):
        return self.item_mean[items] + self.offset


class SlowMeans(Learner):
    """Predict the item's mean in meta-train, shifted by what the support is above it."""

    name = "slow-means"
    batch_episodes = 1

    def prepare(self, ctx):
        pause("prepare")

    def meta_fit(self, source, ctx):
        pause("meta-fit")
        table = source.table
        count = np.bincount(table.item, minlength=table.n_items)
        total = np.bincount(table.item, weights=table.rating, minlength=table.n_items)
        mean = table.rating.mean()
        self.item_mean = torch.tensor((total + 5 * mean) / (count + 5))
        pause("meta-fit")

    def adapt(self, support, ctx):
        pause("adapt")
        starve()
        die()
        above = support.rating - self.item_mean[support.item]
        return Offset(self.item_mean, float(above.sum() / (len(above) + 3)))

    def state(self):
        return {"item_mean": self.item_mean}, {}

    def load_state(self, tensors, values, ctx):
        self.item_mean = tensors["item_mean"]


def starve() -> None:
    more = int(os.environ.get("FAULTS_HUNGRY_MB", 0)) * 2**20
    if not more:
        return
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + more, resource.getrlimit(resource.RLIMIT_AS)[1]))
    held = []
    while True:
        held.append(np.ones(2**20))  # 8 MB, each page of it touched


def die() -> None:
    marker = os.environ.get("FAULTS_DIES")
    if marker and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
