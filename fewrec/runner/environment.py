"""What a run ran on: device, threads, versions; kept apart from scores, and compared before a folder is reused."""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fewrec.errors import SuiteError

_PACKAGES = ("fewrec", "torch", "transformers", "numpy", "pandas", "pyarrow", "safetensors")


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``mps``; ``auto`` takes the fastest that is there."""
    if not isinstance(name, str) or not re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", name):
        raise SuiteError(f"--device {name}: choose auto, cpu, cuda or mps")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind = name.split(":")[0]
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise SuiteError(f"--device {name}: this machine's torch finds no {kind} device; use --device auto")
    return torch.device(name)


def available_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def node_kind(device: torch.device, threads: int, workers: int) -> dict[str, Any]:
    """Return what kind of node this machine is (``fewrec.runner.nodes``), as JSON values."""
    return {"processor": processor(), "device": _device_name(device), "threads": threads, "workers": workers}


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the environment of a run, as JSON values."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "device": _device_name(device),
        "threads": threads,
        "versions": versions,
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what differs in device, threads and versions, as "name: old -> new"."""
    pairs = [(key, old.get(key), new.get(key)) for key in ("device", "threads", "python", "platform")]
    before = old.get("versions")
    before = before if isinstance(before, dict) else {}
    names = sorted({*before, *new["versions"]})
    pairs += [(name, before.get(name), new["versions"].get(name)) for name in names]
    return [f"{name}: {was} -> {now}" for name, was, now in pairs if was != now]


def _device_name(device: torch.device) -> str:
    return device.type if device.type != "cuda" else f"cuda ({torch.cuda.get_device_name(device)})"


@functools.cache
def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
