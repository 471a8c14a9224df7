"""Windows in time: each rating is asked for once, with the ratings just before it as support (option ``history``).

Apart from the split and the sampler because positions, not users, are cut, and nothing is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewrec.data.table import RatingTable
from fewrec.errors import SuiteError

MOST_USERS = 2_000  # of meta-test: AUC over all rows keeps a count for each pair of them


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of one meta set. ``rows`` (m,): rows of the rating table that they hold, user after user, each by
    time; ``targets`` (w,): the places in ``rows`` that are asked for, each after its ``history``."""

    rows: np.ndarray
    targets: np.ndarray


def cut_windows(
    table: RatingTable, history: int, last: int | None, shares: tuple[float, float, float], name: str
) -> tuple[Windows, Windows, Windows]:
    """Return the windows of meta-train, meta-validation and meta-test.

    Users come in the order of their first row in ``table``, each one's ratings by time, ties in the table's order. Each
    rating but a user's first ``history`` is the target of one window. Of all windows, one user's after the other's, the
    ``last`` ones are kept (None: all) and cut by position into ``shares``: a user may be cut in two.

    Raises ``SuiteError``, with ``name`` for the data set, where there are fewer windows than ``last`` or a share is
    empty.
    """
    assert table.timestamp is not None
    first = np.full(table.n_users, len(table))
    np.minimum.at(first, table.user, np.arange(len(table)))
    order = np.lexsort((table.timestamp, first[table.user]))  # stable: ties stay in the table's order
    user = table.user[order]
    begins = np.concatenate([[True], user[1:] != user[:-1]])
    start = np.maximum.accumulate(np.where(begins, np.arange(len(user)), 0))
    targets = np.flatnonzero(np.arange(len(user)) - start >= history)
    if last is not None and last > len(targets):
        raise SuiteError(
            f"{name}: last_windows = {last}, but with history = {history} there are {len(targets)} windows"
        )
    targets = targets if last is None else targets[-last:]
    ends = [round(len(targets) * share) for share in (shares[0], shares[0] + shares[1], 1)]
    parts = np.split(targets, ends[:2])
    if any(share > 0 and not len(part) for share, part in zip(shares, parts, strict=True)) or not len(parts[2]):
        raise SuiteError(f"{name}: {len(targets)} windows are too few to be cut by user_shares {shares}")
    found = []
    for part in parts:
        held = np.unique((part[:, None] - np.arange(history + 1)).ravel())
        found.append(Windows(order[held], np.searchsorted(held, part)))
    if (users := len(np.unique(table.user[found[2].rows]))) > MOST_USERS:
        raise SuiteError(
            f"{name}: {users} users in the windows of meta-test; AUC over all rows keeps a count for each pair of "
            f"users, of at most {MOST_USERS}: give last_windows"
        )
    return found[0], found[1], found[2]


def asked(targets: np.ndarray, first: int, count: int, k_shot: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the support rows, (count * K,) from the oldest of each window on, and the query rows, (count,)."""
    query = targets[first : first + count]
    return (query[:, None] - np.arange(k_shot, 0, -1)).reshape(-1), query
