"""fewrec, a benchmark suite for few-shot recommendation. Light to import: what needs torch is loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_results", "run"]

if TYPE_CHECKING:
    from fewrec.report.results import load_results
    from fewrec.runner.api import run

_WHERE = {"run": "fewrec.runner.api", "load_results": "fewrec.report.results"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fewrec' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
