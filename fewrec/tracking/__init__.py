"""Trackers: what follows a run live, in TensorBoard, Weights & Biases, MLflow or code of one's own; off by default.

A tracker changes no score, and none of its errors ends a run. ``fewrec run --track tensorboard`` and
``fewrec.run(track=["tensorboard", MyTracker()])`` switch trackers on.
"""

from fewrec.tracking.base import Tracker

__all__ = ["Tracker"]
