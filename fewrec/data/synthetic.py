"""Ratings of known structure, for unit tests and offline demos only; apart from the readers because nothing is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fewrec.data.table import Catalog, Dataset, RatingTable, Scale
from fewrec.errors import SuiteError
from fewrec.seeding import substream

# Each genre has its own title words, so that a text encoder (or a bag of words) finds the genre from the title alone.
GENRE_WORDS: dict[str, tuple[str, ...]] = {
    "Action": ("Bullet", "Chase", "Strike", "Explosion", "Commando", "Showdown"),
    "Comedy": ("Laughing", "Clumsy", "Prank", "Silly", "Joke", "Wacky"),
    "Drama": ("Sorrow", "Family", "Letters", "Silence", "Winter", "Farewell"),
    "Horror": ("Ghost", "Scream", "Haunted", "Blood", "Nightmare", "Crypt"),
    "Romance": ("Kiss", "Wedding", "Sweetheart", "Passion", "Valentine", "Bride"),
    "Sci-Fi": ("Galaxy", "Robot", "Asteroid", "Laser", "Alien", "Starship"),
    "War": ("Battalion", "Trench", "General", "Siege", "Regiment", "Armistice"),
    "Western": ("Sheriff", "Saloon", "Cowboy", "Prairie", "Outlaw", "Mustang"),
}

STARS = Scale(1.0, 5.0, 1.0)


@dataclass(frozen=True, eq=False)
class Truth:
    """What the synthetic ratings were made from: ``mean + user_bias + item_bias + user_factors . item_factors``.

    ``user_bias`` is (n_users,), ``item_bias`` (n_items,), ``user_factors`` (n_users, rank), ``item_factors``
    (n_items, rank), ``item_genre`` (n_items,) the genre's index in ``genres``; ``noise`` is the standard deviation of
    what was added to each rating before rounding to the scale.
    """

    mean: float
    user_bias: np.ndarray
    item_bias: np.ndarray
    user_factors: np.ndarray
    item_factors: np.ndarray
    item_genre: np.ndarray
    genres: tuple[str, ...]
    noise: float

    def expected(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return the noise-free, unrounded, unclipped rating of each (user, item) pair, shape of the inputs."""
        dot = np.sum(self.user_factors[user] * self.item_factors[item], axis=-1)
        return self.mean + self.user_bias[user] + self.item_bias[item] + dot


@dataclass(frozen=True, eq=False)
class Synthetic(Dataset):
    """A data set that also carries the ``truth`` it was made from."""

    truth: Truth | None = None


def make_synthetic(
    n_users: int = 200,
    n_items: int = 100,
    *,
    ratings_per_user: int | None = None,
    density: float | None = None,
    rank: int = 4,
    noise: float = 0.5,
    user_bias_std: float = 0.4,
    item_bias_std: float = 0.5,
    factor_std: float = 0.5,
    genre_share: float = 0.7,
    n_genres: int = 6,
    scale: Scale = STARS,
    timestamps: bool = True,
    seed: int = 0,
) -> Synthetic:
    """Make ratings of low rank plus biases, on items whose titles and genres tell their factors.

    Each user rates ``ratings_per_user`` distinct items (default: 30, or ``density * n_items``, at most all of them).
    The standard deviation of the dot product of user and item factors is ``factor_std``; ``genre_share`` of the
    variance of the item factors *and* biases is the genre's, so text predicts unseen items that well and no better.
    Ratings are rounded to ``scale.step`` (None: not rounded) and clipped to the scale. Same arguments, same bytes.

    Raises:
        SuiteError: if a size is below 1, a share is outside 0..1, or there are more genres than words for them.
    """
    count = _ratings_per_user(n_users, n_items, ratings_per_user, density)
    if not 1 <= n_genres <= len(GENRE_WORDS) or rank < 1 or not 0 <= genre_share <= 1:
        raise SuiteError(
            f"make_synthetic: needs 1 <= n_genres <= {len(GENRE_WORDS)}, rank >= 1 and 0 <= genre_share <= 1, "
            f"got {n_genres}, {rank} and {genre_share}"
        )
    mean = scale.middle + 0.1 * (scale.high - scale.low)
    stds = (user_bias_std, item_bias_std, factor_std)
    truth = _draw_truth(n_users, n_items, rank, mean, stds, noise, genre_share, n_genres, seed)
    # The items of a user are the ones with the largest random keys: distinct, and vectorised over users.
    rng = substream(seed, "synthetic-pairs")
    item = np.argpartition(rng.random((n_users, n_items)), count - 1, axis=1)[:, :count].ravel().astype(np.int64)
    user = np.repeat(np.arange(n_users, dtype=np.int64), count)
    rating = truth.expected(user, item) + substream(seed, "synthetic-noise").normal(0.0, 1.0, len(user)) * noise
    if scale.step:
        rating = scale.low + np.round((rating - scale.low) / scale.step) * scale.step
    rating = scale.clip(rating)
    time = None
    if timestamps:
        start = substream(seed, "synthetic-time").integers(1_000_000_000, 1_100_000_000, n_users)
        gaps = substream(seed, "synthetic-gaps").integers(1, 3600, len(user)).reshape(n_users, count)
        time = (start[:, None] + np.cumsum(gaps, axis=1)).ravel()
    return Synthetic(
        name=f"synthetic-{n_users}x{n_items}-{seed}",
        table=RatingTable(user, item, rating, time, n_users, n_items),
        catalog=Catalog(item_ids=np.arange(1, n_items + 1), text=_texts(truth, seed)),
        scale=scale,
        user_ids=np.arange(1, n_users + 1),
        user_features=_user_features(n_users, seed),
        licence="generated; no rights reserved",
        citation="none: synthetic data, for tests and demos only",
        truth=truth,
    )


def _ratings_per_user(n_users: int, n_items: int, ratings_per_user: int | None, density: float | None) -> int:
    if ratings_per_user is not None and density is not None:
        raise SuiteError("make_synthetic: give ratings_per_user or density, not both")
    if n_users < 1 or n_items < 1:
        raise SuiteError(f"make_synthetic: needs n_users >= 1 and n_items >= 1, got {n_users} and {n_items}")
    count = ratings_per_user if ratings_per_user is not None else (30 if density is None else round(density * n_items))
    if ratings_per_user is None:
        count = max(1, min(count, n_items))
    if not 1 <= count <= n_items:
        raise SuiteError(f"make_synthetic: ratings_per_user={count} is outside 1..{n_items}, the number of items")
    return count


def _draw_truth(
    n_users: int,
    n_items: int,
    rank: int,
    mean: float,
    stds: tuple[float, float, float],
    noise: float,
    genre_share: float,
    n_genres: int,
    seed: int,
) -> Truth:
    user_bias_std, item_bias_std, factor_std = stds
    users, items = substream(seed, "synthetic-users"), substream(seed, "synthetic-items")
    genre = items.permutation(np.arange(n_items) % n_genres)
    common, own = np.sqrt(genre_share), np.sqrt(1 - genre_share)
    # A dot product of two N(0, s^2 I) vectors has the standard deviation sqrt(rank) * s^2.
    s = np.sqrt(factor_std / np.sqrt(rank))
    genre_factors = items.normal(0, 1, (n_genres, rank))
    genre_bias = items.normal(0, 1, n_genres)
    item_factors = s * (common * genre_factors[genre] + own * items.normal(0, 1, (n_items, rank)))
    item_bias = item_bias_std * (common * genre_bias[genre] + own * items.normal(0, 1, n_items))
    return Truth(
        mean=mean,
        user_bias=users.normal(0, user_bias_std, n_users),
        item_bias=item_bias,
        user_factors=s * users.normal(0, 1, (n_users, rank)),
        item_factors=item_factors,
        item_genre=genre,
        genres=tuple(GENRE_WORDS)[:n_genres],
        noise=noise,
    )


def _texts(truth: Truth, seed: int) -> pd.DataFrame:
    rng = substream(seed, "synthetic-titles")
    words = [GENRE_WORDS[truth.genres[g]] for g in truth.item_genre]
    picks = rng.integers(0, len(GENRE_WORDS["Action"]), (len(words), 2))
    titles = [f"The {w[a]} {w[b]} {i + 1}" for i, (w, (a, b)) in enumerate(zip(words, picks, strict=True))]
    years = rng.integers(1950, 2020, len(words))
    return pd.DataFrame(
        {
            "title": titles,
            "year": [str(y) for y in years],
            "genres": [truth.genres[g] for g in truth.item_genre],
            "description": [""] * len(titles),
        }
    )


def _user_features(n_users: int, seed: int) -> pd.DataFrame:
    rng = substream(seed, "synthetic-user-features")
    return pd.DataFrame(
        {
            "age": rng.integers(15, 75, n_users),
            "gender": rng.choice(["F", "M"], n_users),
            "occupation": rng.choice(["artist", "engineer", "student", "teacher"], n_users),
        }
    )
