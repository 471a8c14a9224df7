"""benchmarks/gpu.sh leaves a report whatever fails; the real steps run where there is a GPU."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.sh"
PYTHON = """#!/bin/sh
case "$*" in
*is_available*) exit {available} ;;
*get_device_properties*) echo "A card, 80 GiB" ;;
*"pytest -m gpu"*) echo "50 passed" ;;
*in_flight*) echo "last layer, 1 in flight: 3 episodes a second"; exit 1 ;;
*) echo "last layer: 1 s, the Trainer: 2 s, 2 times as long" ;;
esac
"""


def run(tmp_path: Path, available: int) -> subprocess.CompletedProcess:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(available=available))
    python.chmod(0o755)
    environment = {"FEWREC_PYTHON": str(python), "PATH": "/usr/bin:/bin"}
    return subprocess.run(["sh", SCRIPT, tmp_path / "gpu"], env=environment, capture_output=True, text=True)


def test_the_report_has_every_step_and_names_the_one_that_failed(tmp_path):
    done = run(tmp_path, available=0)
    report = (tmp_path / "gpu" / "report.md").read_text()
    assert done.returncode == 1
    assert "**Failed:** episodes in flight;" in report
    for part in ("A card, 80 GiB", "50 passed", "3 episodes a second", "2 times as long"):
        assert part in report


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run(tmp_path, available=1)
    assert done.returncode == 1 and "no CUDA device" in done.stderr
    assert not (tmp_path / "gpu" / "report.md").exists()
