"""Starting and reaching Ray without what it does to its host: its handler of signals, its output, its open ports."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any


def import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    with quiet():
        import ray
        import ray.exceptions

    return ray


@contextlib.contextmanager
def sigterm_as_it_was() -> Iterator[None]:
    """Take back the handler that Ray sets for SIGTERM: a run ends by its own, with a line and what is complete."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Ray says about itself from the terminal; errors are raised, and said in one line."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Let a Ray that is started meanwhile listen on this machine's loopback interface alone.

    Ray does so of itself where it has no clusters (macOS, Windows); elsewhere it turns 127.0.0.1 into the address that
    others reach, asking a public name server for the way there.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def is_loopback(address: str) -> bool:
    host = address.removeprefix("ray://").rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
