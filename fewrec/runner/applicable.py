"""Whether a learner can be asked at all in a cell: what it needs against what data and protocol offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fewrec.data.table import Dataset
from fewrec.errors import NotApplicable
from fewrec.learners.base import Learner
from fewrec.runner.cell import CellSpec


def refuse_what_is_lacking(cls: type[Learner], spec: CellSpec, datasets: Mapping[str, Dataset]) -> None:
    """Raise ``NotApplicable`` with the reason where the cell lacks what the learner needs."""
    across = spec.meta_dataset is not None
    used = [datasets[name] for name in (spec.dataset, spec.meta_dataset) if name is not None]

    def without(what: str, has: Callable[[Dataset], bool]) -> tuple[bool, str]:
        lacking = [dataset.name for dataset in used if not has(dataset)]
        return bool(lacking), f"{' and '.join(lacking)} {'have' if len(lacking) > 1 else 'has'} no {what}"

    apart = (True, "user attributes and item features of another data set mean something else")
    lacking = {
        "k>0": (spec.k_shot == 0, "K = 0: it predicts nothing without support ratings"),
        "item_text": without("item text", lambda dataset: dataset.catalog.text is not None),
        "item_features": apart if across else without("item features", lambda one: one.catalog.features is not None),
        "user_features": apart if across else without("user attributes", lambda one: one.user_features is not None),
        "timestamps": without("timestamps", lambda dataset: dataset.table.timestamp is not None),
        "item_ratings": (
            spec.protocol.item_shots == 0,
            "the protocol gives no ratings of unseen items (item_shots = 0)",
        ),
    }
    for need in sorted(cls.needs):
        if need not in lacking:
            raise NotApplicable(f"it needs '{need}', which this version of fewrec does not know")
        missing, reason = lacking[need]
        if missing:
            raise NotApplicable(reason)
