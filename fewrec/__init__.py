"""fewrec, a benchmark suite for few-shot recommendation. Light to import: what needs torch is loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Tracker", "__version__", "ask", "compare", "load_learner", "load_results", "recommend", "run", "tune"]

if TYPE_CHECKING:
    from fewrec.recommender.api import ask, recommend
    from fewrec.recommender.trained import open_learner as load_learner
    from fewrec.report.comparison.compare import compare
    from fewrec.report.results import load_results
    from fewrec.runner.api import run
    from fewrec.tracking import Tracker
    from fewrec.tuning.api import tune

_WHERE = {
    "Tracker": "fewrec.tracking:Tracker",
    "ask": "fewrec.recommender.api:ask",
    "compare": "fewrec.report.comparison.compare:compare",
    "load_learner": "fewrec.recommender.trained:open_learner",
    "load_results": "fewrec.report.results:load_results",
    "recommend": "fewrec.recommender.api:recommend",
    "run": "fewrec.runner.api:run",
    "tune": "fewrec.tuning.api:tune",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fewrec' has no attribute '{name}'")
    module, _, attribute = _WHERE[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
