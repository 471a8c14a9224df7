"""The registry of learners: knows the built-in ones without importing them, and finds plugins.

A name resolves to a class by, in this order: ``module:Class``, a plugin file given on the command line, the built-in
index, the entry-point group ``fewrec.learners``. A name that two of the latter three claim is refused.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from fewrec.errors import SuiteError, nearest

if TYPE_CHECKING:
    from fewrec.learners.base import Learner

GROUP = "fewrec.learners"


@dataclass(frozen=True)
class LearnerInfo:
    """What is known of a learner before it is imported."""

    name: str
    target: str  # module:Class
    summary: str
    origin: str = "built-in"
    problem: str | None = None  # why a plugin can't be used


BUILTIN: dict[str, LearnerInfo] = {
    name: LearnerInfo(name, f"fewrec.learners.{target}", summary)
    for name, target, summary in [
        ("global-mean", "trivial:GlobalMean", "the mean rating of meta-train"),
        ("user-mean", "trivial:UserMean", "the support mean, shrunk towards the global mean"),
        ("user-median", "trivial:UserMedian", "the support median"),
        ("item-mean", "trivial:ItemMean", "the item's mean in meta-train, shrunk"),
        ("item-popularity", "trivial:ItemPopularity", "ranks by the number of meta-train ratings"),
        ("random", "trivial:RandomRating", "a rating drawn from meta-train's ratings"),
        ("bias", "bias:Bias", "global + item + user effect, shrunk"),
        ("bias-shots", "bias:BiasShots", "bias that uses the ratings of unseen items that the protocol gives"),
        ("mf-scratch", "mf_scratch:MFScratch", "matrix factorization trained on the episode's support alone"),
        ("mf-foldin", "mf_foldin:MFFoldIn", "matrix factorization of meta-train, new user solved by ridge"),
        ("knn", "knn:KNN", "bias and the residuals of similar meta-train users (Herlocker et al., SIGIR 1999)"),
        ("proto", "proto:Proto", "prototypes of meta-train users, assigned softly (after Snell et al., NeurIPS 2017)"),
        ("gp", "gp:GP", "Gaussian process whose low-rank covariance is fitted on meta-train, exact posterior"),
        ("maml-mf", "meta_mf:MAMLMF", "second-order MAML over matrix factorization (Finn et al., ICML 2017)"),
        ("fomaml-mf", "meta_mf:FOMAMLMF", "first-order MAML over matrix factorization (Finn et al., ICML 2017)"),
        ("anil-mf", "meta_mf:ANILMF", "MAML whose inner loop adapts the user alone (Raghu et al., ICLR 2020)"),
        ("reptile-mf", "meta_mf:ReptileMF", "Reptile over matrix factorization (Nichol et al., 2018)"),
        ("meta-sgd-mf", "meta_mf:MetaSGDMF", "MAML with learned inner rates (Li et al., 2017)"),
        ("melu", "melu:MeLU", "content and id embeddings, decision layers adapted to a user (Lee et al., KDD 2019)"),
        ("mamo", "mamo:MAMO", "memories personalise the start of the inner loop (Dong et al., KDD 2020)"),
        ("tanp", "tanp:TaNP", "task-adaptive neural process (Lin et al., WWW 2021)"),
        ("lwa", "lwa:LWA", "a linear score's weights from the support's class means (Vartak et al., NeurIPS 2017)"),
        ("nlba", "lwa:NLBA", "a network's biases from the support's class means (Vartak et al., NeurIPS 2017)"),
        ("metaemb", "metaemb:MetaEmb", "a new item's embedding from attributes, warmed up (Pan et al., SIGIR 2019)"),
        ("mwuf", "mwuf:MWUF", "a new item's embedding scaled and shifted by networks (Zhu et al., SIGIR 2021)"),
        ("maml-mf-l2l", "l2l:MAMLMFL2L", "maml-mf through learn2learn's wrapper: the same numbers, one by one"),
        ("bert-finetune", "bert:BertFinetune", "pretrained encoder + head, fine-tuned on the episode's support"),
        ("bert-meta", "bert:BertMeta", "bert-finetune, first fine-tuned on meta-train"),
        ("prompt-lm", "prompt:PromptLM", "frozen language model, soft prompt + head trained on the support"),
        ("prompt-lm-meta", "prompt:PromptLMMeta", "prompt-lm, prompt and head initialised on meta-train"),
    ]
}

_files: dict[str, LearnerInfo] = {}


def known_learners() -> dict[str, LearnerInfo]:
    """Return every learner by name: built-in, by entry point, by plugin file. Imports none of them.

    Raises ``SuiteError`` where two plugins, or a plugin and a built-in learner, claim one name.
    """
    found = dict(BUILTIN)
    for point in entry_points(group=GROUP):
        origin = f"entry point of {point.dist.name if point.dist else point.value}"
        _add(found, LearnerInfo(point.name, point.value, origin, origin))
    for info in _files.values():
        _add(found, info)
    return found


def _add(found: dict[str, LearnerInfo], info: LearnerInfo) -> None:
    other = found.get(info.name)
    if other is not None and other.target != info.target:
        raise SuiteError(
            f"learner name '{info.name}' is claimed twice: {other.target} and {info.target}; rename one of them"
        )
    found[info.name] = info


def add_plugin_file(path: Path) -> None:
    """Import a plugin file and make its learners known by their ``name``; a broken file is listed with its reason."""
    path = Path(path)
    if not path.is_file():
        raise SuiteError(f"--plugin {path}: no such file")
    module_name = f"fewrec_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a plugin may fail in any way; the rest of the suite must still run
        reason = f"{type(error).__name__}: {error}"
        _files[path.stem] = LearnerInfo(path.stem, str(path), "", f"plugin {path}", problem=reason)
        return
    from fewrec.learners.base import Learner

    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Learner) and c.__module__ == module_name
    ]
    named = [c for c in classes if "name" in vars(c)]
    if not named:
        _files[path.stem] = LearnerInfo(
            path.stem, str(path), "", f"plugin {path}", problem="it defines no Learner with a name"
        )
    for cls in named:
        info = LearnerInfo(
            cls.name, f"{module_name}:{cls.__name__}", (cls.__doc__ or "").strip().split("\n")[0], f"plugin {path}"
        )
        _add(known_learners(), info)
        _files[cls.name] = info


def learner_class(name: str) -> type[Learner]:
    """Return the class of a learner given by name or as ``module:Class``; unknown names raise ``SuiteError``."""
    if ":" in name:
        return _load(name, name)
    known = known_learners()
    if name not in known:
        raise SuiteError(f"unknown learner '{name}'{nearest(name, known)}")
    info = known[name]
    if info.problem:
        raise SuiteError(f"learner '{name}' ({info.origin}) can't be used: {info.problem}")
    return _load(name, info.target)


def _load(name: str, target: str) -> type[Learner]:
    from fewrec.learners.base import Learner

    module_name, _, class_name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        raise SuiteError(
            f"learner '{name}' can't be imported from {target}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Learner)):
        raise SuiteError(f"learner '{name}': {target} is not a subclass of fewrec.learners.Learner")
    return cls
