"""``import fewrec`` stays light: what needs torch is loaded on first use, and reading results never needs it."""

import subprocess
import sys

import pytest

import fewrec


def modules_after(statement: str, *names: str) -> set[str]:
    """Return which of ``names`` are loaded in a fresh interpreter that has run ``statement``."""
    code = f"{statement}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_loads_no_heavy_package():
    heavy = ("torch", "transformers", "learn2learn", "matplotlib", "pandas", "numpy", "pyarrow", "pydantic")
    assert modules_after("import fewrec", *heavy) == set()


def test_reading_results_needs_no_torch():
    assert modules_after("import fewrec; fewrec.load_results", "torch", "transformers") == set()


def test_listing_learners_imports_none_of_them():
    statement = "from fewrec.learners.registry import known_learners; assert 'bias' in known_learners()"
    assert modules_after(statement, "torch", "transformers", "fewrec.learners.bias") == set()


def test_public_names_are_those_of_all():
    assert callable(fewrec.run) and callable(fewrec.load_results)
    assert set(fewrec.__all__) <= set(dir(fewrec))


def test_unknown_attribute_is_named():
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        getattr(fewrec, "rnu")  # noqa: B009  (looking it up is the test)
