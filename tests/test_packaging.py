"""What a user gets who installs the wheel: the command, the cards and the suites, away from the repository."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names_below(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def run(command: list[str | Path], cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], ROOT)
    (built,) = folder.glob("fewrec-*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """The wheel installed into a folder of its own, which comes before an editable install on the path."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    run([*pip, target, wheel], target)
    return target


@pytest.fixture
def installed_fewrec(installed: Path, tmp_path: Path):
    """Run the installed ``fewrec`` script in an empty folder; returns what it printed."""
    return lambda *arguments: run([installed / "bin" / "fewrec", *arguments], tmp_path, PYTHONPATH=str(installed))


def test_wheel_carries_every_module_template_card_and_suite_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = (
        {f"fewrec/{name}" for name in names_below(ROOT / "fewrec", "*.*") if not name.endswith(".pyc")}
        | {f"fewrec/_data/datasets/{name}" for name in names_below(ROOT / "datasets", "*.toml")}
        | {f"fewrec/_data/suites/{name}" for name in names_below(ROOT / "benchmarks" / "suites", "*.toml")}
    )
    assert files == expected


def test_installed_package_is_the_one_from_the_wheel(installed: Path, tmp_path: Path):
    printed = run([sys.executable, "-c", "import fewrec; print(fewrec.__file__)"], tmp_path, PYTHONPATH=str(installed))
    assert Path(printed.strip()) == installed / "fewrec" / "__init__.py"


def test_installed_command_finds_its_cards(installed_fewrec):
    listed = installed_fewrec("data", "list")
    cards = {path.stem for path in (ROOT / "datasets").glob("*.toml")}
    assert cards <= {line.split()[0] for line in listed.splitlines()}
    assert "grouplens" in installed_fewrec("data", "info", "ml-100k").lower()


def test_installed_command_finds_its_suites(installed_fewrec):
    listed = installed_fewrec("list", "suites")
    assert {line.split()[0] for line in listed.splitlines()} == names_of_suites()


def names_of_suites() -> set[str]:
    folder = ROOT / "benchmarks" / "suites"
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")}


def test_installed_command_and_module_print_the_version(installed: Path, installed_fewrec, tmp_path: Path):
    from fewrec import __version__

    as_module = run([sys.executable, "-m", "fewrec", "--version"], tmp_path, PYTHONPATH=str(installed))
    assert installed_fewrec("--version") == as_module
    assert __version__ in as_module


def test_benchmark_script_takes_what_fewrec_run_takes(tmp_path: Path):
    script = run([sys.executable, ROOT / "benchmarks" / "run.py", "--help"], tmp_path, PYTHONPATH=str(ROOT))
    command = run([sys.executable, "-m", "fewrec", "run", "--help"], tmp_path, PYTHONPATH=str(ROOT))
    assert script == command


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_constraints_pin_every_declared_requirement_within_its_bounds():
    project = PYPROJECT["project"]
    declared = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    for requirement in map(Requirement, declared + PYPROJECT["build-system"]["requires"]):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} is pinned at {version}"


def test_citation_names_the_released_version():
    from fewrec import __version__

    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None and cited.group(1) == __version__
