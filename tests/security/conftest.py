"""What the tests of security share: the local server and the tiny model of other tests, and children with limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import gguf_of, server  # noqa: F401
from tests.learners.conftest import tiny_bert  # noqa: F401
from tests.report.conftest import new_run, scores_of, small_run  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def child(tmp_path):
    """A function that runs Python code in a process of its own, in a new folder; returns what subprocess.run does."""

    def run(code: str, *arguments: object, folder: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-P", "-c", code, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run
