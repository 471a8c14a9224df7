"""Cards, suites and the cache are found in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewrec import paths
from fewrec.errors import FewrecError


def test_cards_are_found():
    assert (paths.data_folder("datasets") / "ml-100k.toml").is_file()


def test_packaged_cards_win_over_a_folder_beside_the_package(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "fewrec"
    for folder in (package / "_data" / "datasets", package.parent / "datasets"):
        folder.mkdir(parents=True)
        (folder / "x.toml").touch()
    monkeypatch.setattr(paths, "_PACKAGE", package)
    assert paths.data_folder("datasets") == package / "_data" / "datasets"


def test_a_folder_without_cards_is_not_taken_for_theirs(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "fewrec")
    with pytest.raises(FewrecError, match="install fewrec again"):
        paths.data_folder("datasets")


def test_the_cache_folder_is_the_argument_then_the_environment_then_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWREC_CACHE", str(tmp_path / "env"))
    assert paths.cache_folder(tmp_path / "given") == tmp_path / "given"
    assert paths.cache_folder() == tmp_path / "env"
    monkeypatch.delenv("FEWREC_CACHE")
    assert paths.cache_folder().name == "fewrec" and paths.cache_folder().is_absolute()
    assert paths.cache_folder("~/x") == Path.home() / "x"


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_mode_is_the_flag_or_the_environment(monkeypatch, value, expected):
    monkeypatch.setenv("FEWREC_OFFLINE", value)
    assert paths.is_offline() is expected
    assert paths.is_offline(True) is True
