"""Every built-in learner keeps the contract: one conformance suite for all of them.

Those that read text run it in tests of their own, on tiny language models made there; the one that needs
learn2learn runs it in test_l2l.py, where that can be imported.
"""

from pathlib import Path

from fewrec.learners.registry import BUILTIN, learner_class
from fewrec.testing import LearnerConformance

_NET = {"meta_steps": 30, "meta_batch": 20, "rank": 3, "pretrain_sweeps": 3, "evaluate_every": 10}
_CONTENT = {"meta_steps": 6, "meta_batch": 10, "evaluate_every": 3, "max_shots": 4, "n_query": 4}
_COLD = {"rank": 3, "sweeps": 3, "meta_steps": 20, "evaluate_every": 10, "hidden": 4}
SMALL = {
    "gp": {"rank": 3, "sweeps": 6},
    "proto": {"prototypes": 3, "profile_ridge": 3.0, "sweeps": 8},
    **dict.fromkeys(("maml-mf", "fomaml-mf", "anil-mf", "reptile-mf", "meta-sgd-mf"), {"meta_steps": 40}),
    "melu": _CONTENT | {"hidden": (8, 4)},
    "mamo": _CONTENT | {"hidden": (8,), "dim": 8},
    "tanp": _NET | {"hidden": 8, "latent": 4, "task_dim": 5, "clusters": 3},
    "lwa": _NET,
    "nlba": _NET | {"hidden": 6},
    "metaemb": _COLD,
    "mwuf": _COLD,
}
"""Options that make a learner's meta-fit take a second instead of a minute."""

ELSEWHERE = [name for name in BUILTIN if "item_text" in learner_class(name).needs] + ["maml-mf-l2l"]


def _cases() -> dict[str, type]:
    return {
        f"Test_{name.replace('-', '_')}": type(
            f"Test_{name.replace('-', '_')}",
            (LearnerConformance,),
            {"learner": learner_class(name), "config": SMALL.get(name, {})},
        )
        for name in BUILTIN
        if name not in ELSEWHERE
    }


globals().update(_cases())


def test_the_learners_that_run_the_suite_elsewhere_do():
    names = ("bert", "prompt", "embed_ridge", "hybrid_gp", "icl", "maml_lm", "l2l")
    files = [f"test_{name}.py" for name in names]
    sources = "".join((Path(__file__).parent / name).read_text() for name in files)
    classes = [learner_class(name) for name in ELSEWHERE]
    assert [cls.__name__ for cls in classes if f"learner = {cls.__name__}\n" not in sources] == []
