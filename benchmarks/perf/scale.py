"""25 million ratings in MovieLens-32M's format: generated, loaded from text and from the kept copy, and sampled from.

    .venv/bin/python benchmarks/perf/scale.py make FOLDER [ratings]
    .venv/bin/python benchmarks/perf/scale.py text|kept|frame FOLDER

The latter prints {"seconds": ..., "import_s": ..., "peak_gb": ...} of loading, indexing and the first episodes, each in
a process of its own so that its peak is its own; the seconds hold those of importing. ``frame`` is the usual way:
pandas and a dict of lists.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

RATINGS, USERS, ITEMS = 25_000_000, 162_000, 59_000
SHAPE = {"n_users": 5, "k_shot": 5, "n_query": 10}


def make(folder: Path, ratings: int = RATINGS, items: int = ITEMS) -> None:
    """Write ratings.csv and movies.csv: no pair twice, popular films as popular as in the real ones.

    Ratings are 3.5 and effects of user and film, ten tastes and noise, in the shares that MovieLens-1M has about, so
    that learners have something to learn and stop when they have learned it.
    """
    rng = np.random.default_rng(0)
    users = max(20, int(USERS * ratings / RATINGS))
    wanted, count = rng.pareto(1.2, users) + 0.2, np.ones(users)
    for _ in range(30):  # what the limits take from some users goes to the others
        wanted *= ratings / count.sum() if count.sum() > users else ratings / wanted.sum()
        count = np.maximum(wanted.astype(int), 20).clip(max=items // 4)
    user = np.repeat(np.arange(1, users + 1), count)
    first, prime = rng.integers(0, items, users), _prime_from(items)
    within = np.arange(len(user)) - np.repeat(count.cumsum() - count, count)
    step = 4 * rng.integers(0, items // 8, users) + 1  # odd and below the prime: walks through items without repeating
    item = 1 + (np.repeat(first, count) + within * np.repeat(step, count)) % prime
    rating = _ratings(rng, user, item)
    stamp = 1_000_000_000 + rng.integers(0, 700_000_000, len(user))
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"userId": user, "movieId": item, "rating": rating, "timestamp": stamp})
    options = pa.csv.WriteOptions(quoting_style="none")
    pa.csv.write_csv(table, folder / "ratings.csv", options)
    movies = np.unique(item)
    titles = [f'"Film, The {number} ({1930 + number % 90})"' for number in movies.tolist()]
    lines = [f"{m},{t},Comedy|Drama\n" for m, t in zip(movies.tolist(), titles, strict=True)]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(lines), encoding="utf-8")


def _ratings(rng: np.random.Generator, user: np.ndarray, item: np.ndarray, tastes: int = 10) -> np.ndarray:
    of_user, of_item = rng.normal(0, 0.42, user.max() + 1), rng.normal(0, 0.55, item.max() + 1)
    likes = rng.normal(0, 1, (user.max() + 1, tastes)).astype("float32")
    has = rng.normal(0, 0.4 / tastes**0.5, (item.max() + 1, tastes)).astype("float32")
    rating = np.empty(len(user))
    for start in range(0, len(user), 1_000_000):
        part = slice(start, start + 1_000_000)
        u, i = user[part], item[part]
        shared = np.einsum("nk,nk->n", likes[u], has[i])
        rating[part] = 3.5 + of_user[u] + of_item[i] + shared + rng.normal(0, 0.8, len(u))
    return (2 * rating).round().clip(1, 10) / 2


def _prime_from(number: int) -> int:
    return next(n for n in range(number, 2 * number) if all(n % d for d in range(2, int(n**0.5) + 1)))


def loaded(folder: Path, kept: bool) -> float:
    """Load as ``load_dataset`` does after fetching, split, and draw the first thousand episodes.

    Return the seconds of importing.
    """
    start = time.perf_counter()
    from fewrec.data import parsed as copies
    from fewrec.data.cards import load_card
    from fewrec.data.download import sha256_of
    from fewrec.data.load import read_files
    from fewrec.episodes.protocol import Protocol
    from fewrec.episodes.sampler import EpisodeSampler
    from fewrec.episodes.split import split_dataset

    import_s = time.perf_counter() - start
    card = load_card("ml-32m")
    files = {name: sha256_of(folder / name) for name in ("ratings.csv", "movies.csv")}  # every load verifies them

    def read():
        if kept:
            raise SystemExit("there is no kept copy; run `text` before")
        return read_files(card, folder, "movielens-csv", "ratings")

    dataset = copies.parsed(card, folder, files, read)
    protocol = Protocol(state="user-cold", k_max=5)
    episodes = EpisodeSampler.of(split_dataset(dataset, protocol, 0), protocol).sample(0, 1000, **SHAPE)
    assert len(episodes) == 1000
    return import_s


def framed(folder: Path) -> float:
    """Do the same with pandas and a dict of lists, a thousand episodes one by one."""
    start = time.perf_counter()
    import pandas as pd

    import_s = time.perf_counter() - start
    frame = pd.read_csv(folder / "ratings.csv")
    by_user: dict[int, list[tuple[int, float]]] = {}
    for user, item, rating in zip(frame.userId.tolist(), frame.movieId.tolist(), frame.rating.tolist(), strict=True):
        by_user.setdefault(user, []).append((item, rating))
    rng = np.random.default_rng(0)
    users = [user for user, own in by_user.items() if len(own) >= SHAPE["k_shot"] + SHAPE["n_query"]]
    test = rng.permutation(users)[: len(users) // 5]
    for _ in range(1000):
        for user in rng.choice(test, SHAPE["n_users"], replace=False):
            own = by_user[user]
            chosen = rng.permutation(len(own))
            support, query = chosen[: SHAPE["k_shot"]], chosen[-SHAPE["n_query"] :]
            _ = [own[i] for i in support], [own[i] for i in query]
    return import_s


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        make(folder, *map(int, sys.argv[3:]))
        return
    start = time.perf_counter()
    import_s = framed(folder) if what == "frame" else loaded(folder, kept=what == "kept")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "import_s": import_s, "peak_gb": peak}))


if __name__ == "__main__":
    main()
