"""What a cell leaves behind: score rows and predictions of a block, and the timings gathered from all its blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fewrec.data.table import Dataset
from fewrec.episodes.support import Episodes
from fewrec.metrics import ndcg_is_defined, pair_counts, per_user_scores, without_rounding
from fewrec.report.beside import PAIRS, score_files
from fewrec.runner.cell import CellSpec
from fewrec.runner.predict import Normal
from fewrec.runner.store import read_json

if TYPE_CHECKING:
    from fewrec.runner.units import Fit

LATENCY_EPISODES = 10


def score_rows(
    spec: CellSpec, episodes: Episodes, prediction: np.ndarray, first: int, dataset: Dataset,
    normal: Normal | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return one row an (episode, user): the raw sums that every metric, interval and test is computed from.

    Predictions of clicks are scores, so their rows have no ``se`` and ``ae``. Where the learner has distributions of
    the ratings (``normal``), rows have ``log_density`` and ``within90``; others lack these columns.
    """
    support, query = episodes.support, episodes.query
    group = support.flat_user(query.episode, query.user).numpy()
    every = (spec.ndcg_at,) if isinstance(spec.ndcg_at, int) else spec.ndcg_at
    ndcg_at = [k for k in every if ndcg_is_defined(k, spec.n_query)]
    truth, scale = episodes.answers.rating.numpy(), dataset.scale
    scores = per_user_scores(group, support.total_users, truth, prediction, low=scale.low, high=scale.high,
                             ndcg_at=ndcg_at, top_at=spec.top_at, errors=dataset.kind == "ratings",
                             normal=normal)  # fmt: skip
    episode = np.repeat(np.arange(first, first + len(support)), support.n_users.numpy())
    return pd.DataFrame({"episode": episode, "user": episodes.answers.table_user.numpy(), **scores})


def rows_by_user(
    spec: CellSpec, episodes: Episodes, prediction: np.ndarray, dataset: Dataset
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the score rows of windows in time, one a user over all of its windows, and the counts by pair of users.

    ``episodes`` are all of the cell's, one query rating each, ``prediction`` (m,) theirs. ``episode`` of a score row is
    the user's first. The second frame has a row a pair (user, other): see ``fewrec.metrics.pair_counts``. Predictions
    that differ by rounding alone are ties in both.
    """
    users, first, group = np.unique(episodes.answers.table_user.numpy(), return_index=True, return_inverse=True)
    truth, scale, prediction = episodes.answers.rating.numpy(), dataset.scale, without_rounding(prediction)
    every, fewest = (spec.ndcg_at,) if isinstance(spec.ndcg_at, int) else spec.ndcg_at, int(np.bincount(group).min())
    ndcg_at = [k for k in every if ndcg_is_defined(k, fewest)]
    scores = per_user_scores(group, len(users), truth, prediction, low=scale.low, high=scale.high, ndcg_at=ndcg_at,
                             errors=dataset.kind == "ratings")  # fmt: skip
    right, pairs = pair_counts(group, len(users), truth, prediction)
    by_pair = {"user": np.repeat(users, len(users)), "other": np.tile(users, len(users))}
    counts = pd.DataFrame({**by_pair, "pairs": pairs.ravel(), "right": right.ravel()})
    return pd.DataFrame({"episode": first, "user": users, **scores}), counts[list(PAIRS.columns[1:])]


def prediction_rows(
    episodes: Episodes, prediction: np.ndarray, first: int, normal: Normal | None = None
) -> pd.DataFrame:
    """Return one row a query rating; ``sd``, the standard deviation, where the learner has distributions."""
    query = episodes.query
    columns = {"episode": query.episode.numpy() + first, "user": query.user.numpy(), "item": query.item.numpy()}
    return pd.DataFrame({**columns, "prediction": prediction, **({} if normal is None else {"sd": normal[1]})})


def cell_figures(folder: Path) -> dict[str, float]:
    """Return the figures of a complete cell from its files, those that are defined: what trackers are told.

    ``rmse`` and ``mae`` over all query ratings (of clicks neither), likewise ``nlpd`` and ``coverage90`` of learners
    with a distribution, ``ndcg<k>`` and ``auc`` as means over users where they are defined, latencies as medians in
    milliseconds an episode, and the other timings as they are.
    """
    scores = pd.concat([pd.read_parquet(file) for file in score_files(folder)])
    timing = read_json(folder / "timing.json") or {}
    ranking = [name for name in scores.columns if name == "auc" or name.startswith("ndcg")]
    errors = {}
    if "se" in scores:
        errors["rmse"] = float(np.sqrt(scores["se"].sum() / scores["n"].sum()))
        errors["mae"] = float(scores["ae"].sum() / scores["n"].sum())
    if "log_density" in scores:
        asked = scores.loc[scores["log_density"].notna(), "n"].sum()
        errors["nlpd"] = float(-scores["log_density"].sum() / asked)
        errors["coverage90"] = float(scores["within90"].sum() / asked)
    figures = {
        **errors,
        **{name: float(scores[name].mean()) for name in ranking},
        **{name: float(np.median(timing[name])) for name in ("adapt_ms", "predict_ms") if timing.get(name)},
        **{
            name: timing[name]
            for name in ("prepare_s", "meta_fit_s", "episodes_per_s", "peak_mb", "device_peak_mb")
            if timing.get(name) is not None
        },
    }
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def cell_timing(folder: Path, fit: Fit) -> dict[str, Any]:
    """Gather a cell's timings from its blocks, whichever run they were made in.

    ``nodes`` are those that it was timed on (see ``fewrec.runner.nodes``), each with what was ``timed`` there: fit,
    latency, throughput. What earlier versions wrote without a node is not among them.
    """
    blocks = [block for file in sorted(folder.glob("block-*.timing.json")) if (block := read_json(file))]
    batches = [batch for block in blocks for batch in block["batches"]]
    latency, throughput = read_json(folder / "latency.json"), read_json(folder / "throughput.json")
    timed: dict[str, list[dict[str, Any] | None]] = {"fit": [fit.node], "latency": [], "throughput": []}
    if latency is None:
        singles = [(batch, block) for block in blocks for batch in block["batches"] if batch[0] == 1]
        singles = singles[:LATENCY_EPISODES]
        latency = {"adapt_s": [a for (_, a, _), _ in singles], "predict_s": [p for (_, _, p), _ in singles]}
        timed["latency"] = [block.get("node") for _, block in singles]
    else:
        timed["latency"] = [latency.get("node")]
    if throughput is None:
        throughput = {"episodes": sum(n for n, _, _ in batches), "seconds": sum(a + p for _, a, p in batches)}
        timed["throughput"] = [block.get("node") for block in blocks]
    else:
        timed["throughput"] = [throughput.get("node")]
    device_peaks = [b["device_peak_mb"] for b in blocks if b["device_peak_mb"] is not None]
    if fit.device_peak_mb is not None:
        device_peaks.append(fit.device_peak_mb)
    return {
        "prepare_s": fit.prepare_s,
        "meta_fit_s": fit.meta_fit_s,
        "adapt_ms": [1000 * s for s in latency["adapt_s"]],
        "predict_ms": [1000 * s for s in latency["predict_s"]],
        **({"update_ms": [1000 * s for s in latency["update_s"]]} if "update_s" in latency else {}),
        "episodes_per_s": throughput["episodes"] / throughput["seconds"] if throughput["seconds"] else None,
        "peak_mb": max([fit.peak_mb, *(b["peak_mb"] for b in blocks)]),
        "device_peak_mb": max(device_peaks, default=None),
        "nodes": _nodes(timed),
    }


def _nodes(timed: dict[str, list[dict[str, Any] | None]]) -> list[dict[str, Any]]:
    """Return the nodes of timings, each once, in order of their names, with what was timed there."""
    found: dict[str, dict[str, Any]] = {}
    for kind, nodes in timed.items():
        for node in filter(None, nodes):
            own = found.setdefault(node["name"], {**node, "timed": []})
            if kind not in own["timed"]:
                own["timed"].append(kind)
    return [found[name] for name in sorted(found, key=lambda name: (len(name), name))]
