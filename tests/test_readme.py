"""The README keeps what it says: its tables are those of the committed results, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_table_is_made_from_the_committed_results():
    command = [sys.executable, str(ROOT / "scripts" / "readme_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("bench", "test"):
        assert f"make {target}" in README and re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_suite_has_its_line():
    from fewrec.runner.suite import list_suites

    pages = README + (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    assert [name for name in list_suites() if f"`{name}`" not in pages] == []


def test_each_part_fits_a_screen():
    parts = re.split(r"^## ", README, flags=re.MULTILINE)
    assert {part.splitlines()[0]: len(part.splitlines()) for part in parts if len(part.splitlines()) > 50} == {}
