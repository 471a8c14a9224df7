"""Does asking for the rating that tells most beat asking at random? Real users, of whom the answers are known.

Each meta-test user's ratings are halved at random: one half can be asked for, the other is the query whose error is
measured after every question. ``python scripts/ask_simulation.py`` prints what docs/recommend.md shows.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from fewrec.data.load import open_dataset
from fewrec.data.table import Dataset
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import Pool, split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.registry import learner_class
from fewrec.metrics.statistics import percentile_interval, resampled_sums
from fewrec.seeding import substream

MIN_RATINGS, RANDOM_ORDERS = 40, 3


class Simulation:
    """Users who are asked, one question a step, and a learner that adapts after each; all users at once.

    Row *r* of ``user, item, rating`` is a question that may be put to a user; the rating is NaN where the user doesn't
    know the item, and then the question is lost. ``catalog``: ask for any item that meta-train has seen (but those of
    the query), not only for those that the user can rate. Each of a user's ``halvings`` is a user of its own here.
    """

    def __init__(self, dataset: Dataset, learner: str, settings: dict, seed: int, catalog: bool = False,
                 halvings: int = 10) -> None:  # fmt: skip
        split = split_dataset(dataset, Protocol(state="user-cold", k_max=10), seed)
        self.ctx = Context(torch.device("cpu"), split.catalog, dataset.scale, Path("cache"))
        self.learner = learner_class(learner)(learner_class(learner).Config(**settings))
        self.learner.prepare(self.ctx)
        self.learner.meta_fit(MetaTrainSet(split, dataset.scale), self.ctx)
        self.raters = np.bincount(split.meta_train.item, minlength=len(split.catalog))
        self.seed, self.scale, self.halvings = seed, dataset.scale, halvings
        self._halve(split.pools["test"], np.flatnonzero(split.catalog.seen) if catalog else None)

    def _halve(self, pool: Pool, asked: np.ndarray | None) -> None:
        rows, rng = pool.support, substream(self.seed, "ask/halves")
        halves, query, self.table_user = [], [], []
        for u in np.flatnonzero(rows.counts >= MIN_RATINGS):
            of_user = np.arange(rows.offsets[u], rows.offsets[u + 1])
            for _ in range(self.halvings):
                order, n, half = rng.permutation(of_user), len(self.table_user), len(of_user) // 2
                item, rating = rows.item[order[half:]], rows.rating[order[half:]]
                if asked is not None:
                    unknown = np.setdiff1d(asked, rows.item[of_user])
                    item, rating = np.r_[item, unknown], np.r_[rating, np.full(len(unknown), np.nan)]
                halves.append((np.full(len(item), n), item, rating))
                query.append((np.full(half, n), rows.item[order[:half]], rows.rating[order[:half]]))
                self.table_user.append(pool.users[u])
        self.user, self.item, self.rating = map(np.concatenate, zip(*halves, strict=True))
        self.query = tuple(map(np.concatenate, zip(*query, strict=True)))

    def run(self, strategy: str, steps: int, order: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return users' squared errors and numbers of answers after 0 .. ``steps`` questions: two (users, steps + 1).

        ``strategy``: information, information-popular (times the item's raters), popular, or random in one ``order``.
        """
        n, rng = len(self.table_user), substream(self.seed, "ask/random", order)
        chance = rng.random(len(self.user))
        predictor = self.learner.adapt_batch(SupportBatch.of([self._support(np.zeros(0, np.int64))]), self.ctx)
        still, answers = np.arange(len(self.user)), np.zeros(n)
        error, count = [self._error(predictor)], [answers]
        for _ in range(steps):
            score = chance[still]
            if strategy.startswith("information"):
                score = self._information(predictor, still)
            if "popular" in strategy:
                score = self.raters[self.item[still]] * (score if strategy.startswith("information") else 1 + 0 * score)
            ranked = np.lexsort((-score, self.user[still]))
            best = ranked[np.unique(self.user[still][ranked], return_index=True)[1]]
            chosen, still = still[best], np.delete(still, best)
            chosen = chosen[~np.isnan(self.rating[chosen])]
            predictor = predictor.update(SupportBatch.of([self._support(chosen)]), self.ctx)
            answers = answers + np.bincount(self.user[chosen], minlength=n)
            error.append(self._error(predictor))
            count.append(answers)
        return np.stack(error, 1), np.stack(count, 1)

    def _support(self, rows: np.ndarray) -> Support:
        user, item, rating = (torch.from_numpy(column[rows]) for column in (self.user, self.item, self.rating))
        new = torch.full((len(self.table_user),), -1)
        return Support(len(new), user, item, rating, None, new, seed=0)

    def _information(self, predictor, rows: np.ndarray) -> np.ndarray:
        user, item = torch.from_numpy(self.user[rows]), torch.from_numpy(self.item[rows])
        targets, weights = torch.arange(len(self.raters)), torch.from_numpy(self.raters)
        return predictor.information(torch.zeros_like(user), user, item, targets, weights).numpy()

    def _error(self, predictor) -> np.ndarray:
        user, item, rating = self.query
        users = torch.from_numpy(user)
        found = predictor.predict(torch.zeros_like(users), users, torch.from_numpy(item)).numpy()
        squared = (self.scale.clip(found) - rating) ** 2
        return np.bincount(user, squared) / np.bincount(user)


def by_user(values: np.ndarray, table_user: np.ndarray) -> np.ndarray:
    """Return the means of the rows of each table user, (users, columns)."""
    _, at = np.unique(table_user, return_inverse=True)
    sums = np.stack([np.bincount(at, column) for column in values.T], 1)
    return sums / np.bincount(at)[:, None]


def curves(dataset: Dataset, strategies: list[str], steps: int, seeds: list[int], catalog: bool = False,
           learner: str = "gp", settings: dict | None = None, halvings: int = 10) -> tuple[dict, dict]:  # fmt: skip
    """Return by strategy the squared errors and the numbers of answers, (users, steps + 1), means over the splits."""
    error, count, users = {name: [] for name in strategies}, {name: [] for name in strategies}, []
    for seed in seeds:
        simulation = Simulation(dataset, learner, settings or {}, seed, catalog, halvings)
        users.append(simulation.table_user)
        for name in strategies:
            runs = [simulation.run(name, steps, order) for order in range(RANDOM_ORDERS if name == "random" else 1)]
            error[name].append(np.mean([run[0] for run in runs], 0))
            count[name].append(np.mean([run[1] for run in runs], 0))
    of = np.concatenate(users)
    return tuple({name: by_user(np.concatenate(rows), of) for name, rows in kind.items()} for kind in (error, count))


def difference(error: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of the RMSEs' means over the questions, and its 95 % bootstrap interval over users."""
    both = np.stack([error[:, 1:], other[:, 1:]], 2)
    users = len(both)

    def mean(sums: np.ndarray) -> np.ndarray:
        rmse = np.sqrt(sums.reshape(-1, *both.shape[1:]) / users).mean(1)
        return rmse[:, :1] - rmse[:, 1:]

    flat = both.reshape(users, -1)
    low, high = percentile_interval(mean(resampled_sums(flat)))
    return float(mean(flat.sum(0))[0, 0]), float(low[0]), float(high[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", help="a name, or a file of ratings")
    parser.add_argument("--learner", default="gp")
    parser.add_argument("--settings", type=json.loads, default={}, help="options of the learner: '{\"selection\": 0}'")
    parser.add_argument("--seeds", type=int, default=5, help="number of splits of the users")
    parser.add_argument("--halvings", type=int, default=10, help="of each user's ratings, a split")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--strategies", nargs="+", default=["random", "information", "information-popular", "popular"])
    parser.add_argument("--catalog", action="store_true", help="ask for any item; who doesn't know it can't answer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    strategies = ["random", *(name for name in options.strategies if name != "random")]  # what all are compared to
    error, count = curves(open_dataset(options.dataset), strategies, options.steps, list(range(options.seeds)),
                          options.catalog, options.learner, options.settings, options.halvings)  # fmt: skip
    print(f"{len(error['random'])} users; RMSE after 0, 1 ... {options.steps} questions, - random [95 %], answers")
    for name in strategies:
        rmse = " ".join(f"{value:.4f}" for value in np.sqrt(error[name].mean(0)))
        change = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*difference(error[name], error["random"]))
        print(f"{name:20}{rmse}  {change}  {count[name][:, -1].mean():.1f}")


if __name__ == "__main__":
    main()
