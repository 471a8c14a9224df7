"""The rows of the table: the trivial ones that any model must beat, and every row's errors with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewrec.data.table import Catalog, RatingTable, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import Pool, Split, UserRows
from fewrec.episodes.support import Support, SupportBatch
from fewrec.finetune.pairs import Pairs
from fewrec.learners.base import Context
from fewrec.learners.registry import learner_class
from fewrec.metrics import clipped_error_sums, percentile_interval, ratio, resampled_sums
from fewrec.paths import cache_folder
from fewrec.runner.timing import Stopwatch

TRIVIAL = ("global-mean", "user-mean", "item-mean", "bias")
_DECIMALS = 6  # rounding errors of a sum lie ten digits below, so other orders of adding give equal bytes


@dataclass(frozen=True, eq=False)
class Row:
    """A method's predictions of test, (m,) float64 on the scores' scale, not clipped, and the seconds it took."""

    label: str
    prediction: np.ndarray
    fit_s: float
    predict_s: float
    trivial: bool = False


def trivial_rows(pairs: Pairs, seed: int) -> list[Row]:
    """Return the rows of fewrec's own trivial learners: meta-fitted on train, which is each user's support as well."""
    cpu = torch.device("cpu")
    source = _source(pairs, seed)
    ctx = Context(cpu, source.catalog, pairs.scale, cache_folder() / "learners")
    supports = SupportBatch.of([_support(pairs.train, seed)])
    user, item = torch.from_numpy(pairs.test.user.copy()), torch.from_numpy(pairs.test.item.copy())
    rows = []
    for name in TRIVIAL:
        learner = learner_class(name)()
        with Stopwatch(cpu) as fit:
            learner.meta_fit(source, ctx)
            predictor = learner.adapt_batch(supports, ctx)
        with Stopwatch(cpu) as predict:
            found = predictor.predict(torch.zeros_like(user), user, item)
        rows.append(Row(name, found.double().numpy(), fit.seconds, predict.seconds, trivial=True))
    return rows


def _source(pairs: Pairs, seed: int) -> MetaTrainSet:
    """Return train as a meta-train set; nobody is there to draw episodes from, and closed forms draw none."""
    nobody = UserRows(*(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0), None))
    none = np.empty(0, np.int64)
    pool = Pool(none, none, nobody, nobody, popularity=none)
    seen = np.bincount(pairs.train.item, minlength=pairs.train.n_items) > 0
    catalog = Catalog(item_ids=np.array(pairs.item_ids, object), seen=seen)
    split = Split(
        Protocol(state="warm", k_max=0), seed, pairs.train, np.arange(pairs.train.n_users), catalog,
        {"train": pool, "validation": pool, "test": pool},
    )  # fmt: skip
    return MetaTrainSet(split, pairs.scale)


def _support(train: RatingTable, seed: int) -> Support:
    return Support(
        n_users=train.n_users,
        user=torch.from_numpy(train.user.copy()),
        item=torch.from_numpy(train.item.copy()),
        rating=torch.from_numpy(train.rating.copy()),
        timestamp=None,
        meta_user=torch.full((train.n_users,), -1),  # the support has all that is known, so nothing is counted twice
        seed=seed,
    )


def scored(rows: Sequence[Row], test: RatingTable, scale: Scale) -> list[dict[str, Any]]:
    """Return one object a row, the lowest RMSE first: errors of clipped predictions and 95 % intervals over users.

    Keys: ``label``, ``trivial``, ``mse``, ``mae``, ``rmse`` and ``diff_bias`` (RMSE minus that of ``bias`` on the same
    users), each with ``_low`` and ``_high``. Intervals are percentile bootstrap over the users of test, the same
    resamples for all rows.
    """
    user, group = np.unique(test.user, return_inverse=True)
    sums = [clipped_error_sums(group, len(user), test.rating, row.prediction, scale.low, scale.high) for row in rows]
    per_user = np.stack([sums[0]["n"].astype(float)] + [one[key] for one in sums for key in ("se", "ae")], 1)
    point, draws = (_figures(total, rows) for total in (per_user.sum(0, keepdims=True), resampled_sums(per_user)))
    out: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        one: dict[str, Any] = {"label": row.label, "trivial": row.trivial}
        for name in point:
            low, high = percentile_interval(draws[name][:, [number]])
            one[name] = _number(point[name][0, number])
            one[f"{name}_low"], one[f"{name}_high"] = _number(low[0]), _number(high[0])
        out.append(one)
    return sorted(out, key=lambda one: (one["rmse"], one["label"]))


def _figures(sums: np.ndarray, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return each figure, (r, rows), of sums (r, 1 + 2 rows)."""
    mse, mae = ratio(sums[:, 1::2], sums[:, :1]), ratio(sums[:, 2::2], sums[:, :1])
    rmse = np.sqrt(mse)
    bias = [row.label for row in rows].index("bias")
    return {"mse": mse, "mae": mae, "rmse": rmse, "diff_bias": rmse - rmse[:, [bias]]}


def _number(value: float) -> float:
    return round(float(value), _DECIMALS) + 0.0
