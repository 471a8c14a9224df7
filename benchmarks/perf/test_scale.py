"""25 million ratings: loading, indexing and the first thousand episodes, beside pandas and a dict of lists."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scale

OTHER = "pandas and a dict of lists"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("scale")
    scale.make(where)
    yield where
    shutil.rmtree(where)  # 2 GB that nobody needs any more


def measured(what: str, folder: Path) -> dict[str, float]:
    """Run ``scale.py`` in a process of its own, whose start counts."""
    if what == "text":
        for copy in folder.glob("parsed-*"):
            shutil.rmtree(copy)
    done = subprocess.run([sys.executable, scale.__file__, what, folder], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("what, limit_s", [("text", 60), ("kept", 5)])
def test_25_million_ratings(compare, folder, what, limit_s):
    found: dict[str, dict[str, float]] = {}
    if what == "kept" and not list(folder.glob("parsed-*")):
        measured("text", folder)

    def note(ours_s: float, other_s: float) -> str:
        ours, other = found[what], found["frame"]
        return (
            f"MovieLens-32M's format, generated; {ours['seconds']:.3g} s ({ours['import_s']:.2g} s of them imports) at "
            f"a peak of {ours['peak_gb']:.2g} GB without the start of Python, theirs {other['seconds']:.3g} s at "
            f"{other['peak_gb']:.2g} GB; wanted: at most {limit_s} s and 3 GB"
        )

    compare(
        f"25 million ratings, {'from text' if what == 'text' else 'from the kept copy'}, and 1,000 episodes",
        lambda _: found.update({what: measured(what, folder)}),
        lambda _: found.update({"frame": measured("frame", folder)}),
        other_name=OTHER,
        note=note,
        rounds=1,
    )
