"""Where cards, suites and the cache lie, in a checkout and in an installed package: the one place that knows."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from fewrec.errors import FewrecError, shown

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parent
_IN_CHECKOUT = {"datasets": "datasets", "suites": "benchmarks/suites"}


def data_folder(kind: Literal["datasets", "suites"]) -> Path:
    """Return the folder of the cards (``datasets``) or of the suites that come with fewrec.

    A wheel carries them as ``fewrec/_data/<kind>``; in a source checkout (and an editable install of it) they are
    ``datasets/`` and ``benchmarks/suites/`` at the top.

    Raises:
        FewrecError: if neither is there, which means a broken installation.
    """
    packaged, checkout = _PACKAGE / "_data" / kind, _PACKAGE.parent / _IN_CHECKOUT[kind]
    for folder in (packaged, checkout):
        # A neighbour in site-packages may have the same name (there is a package called "datasets"): look for cards.
        if folder.is_dir() and any(folder.glob("*.toml")):
            return folder
    raise FewrecError(f"fewrec's {kind} are neither in {packaged} nor in {checkout}: install fewrec again")


def cache_folder(override: str | Path | None = None) -> Path:
    """Return the folder for downloads and precomputed encodings: ``override``, else FEWREC_CACHE, else the platform's.

    The folder is not created here.
    """
    chosen = override or os.environ.get("FEWREC_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("fewrec", appauthor=False))


def cards_folder() -> Path:
    """Return the folder of the user's own cards (``fewrec data add``): FEWREC_CARDS, else in the platform's settings.

    The folder is not created here.
    """
    chosen = os.environ.get("FEWREC_CARDS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_config_dir("fewrec", appauthor=False)) / "datasets"


def offline_mode_ends(function: Callable[P, T]) -> Callable[P, T]:
    """Return ``function`` so that offline mode, where it switches it on (``go_offline``), ends when it returns."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before = os.environ.get("FEWREC_OFFLINE")
        try:
            return function(*args, **kwargs)
        finally:
            if before is None:
                os.environ.pop("FEWREC_OFFLINE", None)
            else:
                os.environ["FEWREC_OFFLINE"] = before

    return wrapped


def go_offline() -> None:
    """Switch offline mode on for all that follows: learners fetch weights, and know no options of the call."""
    os.environ["FEWREC_OFFLINE"] = "1"


def is_offline(flag: bool | None = None) -> bool:
    """Return whether nothing may be downloaded: ``flag`` is true, or the environment says FEWREC_OFFLINE=1.

    Raises:
        FewrecError: where FEWREC_OFFLINE is neither yes nor no, which nobody should have to guess.
    """
    said = os.environ.get("FEWREC_OFFLINE", "")
    if said.strip().lower() not in {"", "0", "false", "no", "off", "1", "true", "yes", "on"}:
        raise FewrecError(f"FEWREC_OFFLINE is {shown(said)}; set it to 1 (open no connection) or 0")
    return bool(flag) or said.strip().lower() in {"1", "true", "yes", "on"}
