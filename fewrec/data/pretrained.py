"""What has to be done around transformers when it reads a model: apart, since data and learners both read models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator


def hide_broken_torchvision() -> None:
    """Make a torchvision that can't be imported look absent: transformers imports one that it finds, for texts too."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its image part, which no text needs
            importlib.import_module("torchvision")
    except Exception:  # built for another torch: anything from ImportError to RuntimeError
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # find_spec then reports that there is none


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep back transformers' warnings and progress bars; call ``hide_broken_torchvision`` before.

    Standard error is kept back with them: the bar over a GGUF file's tensors obeys no switch of transformers.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
