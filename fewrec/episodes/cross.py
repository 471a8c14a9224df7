"""Cross-domain: meta-train on one data set, episodes of another; for a learner all of the latter's items are unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fewrec.data.table import Dataset, RatingTable, Scale
from fewrec.episodes.protocol import KNOWN_USER_STATES, Protocol
from fewrec.episodes.split import Pool, Split, UserRows, split_dataset
from fewrec.errors import SuiteError


def split_across(target: Dataset, source: Dataset, protocol: Protocol, seed: int) -> Split:
    """Return a split with the meta-train and meta-validation of ``source`` and the meta-test of ``target``.

    Both data sets are cut by the same protocol and seed; the test episodes are those of a split of ``target`` alone.
    The catalog has the items of ``target``, unseen, and behind them those of ``source``; source ratings are mapped onto
    the target's scale, lowest to lowest and highest to highest. User attributes are left out: they differ.

    Raises ``SuiteError`` where the state has known users (those of another data set are new), or with item shots.
    """
    if protocol.state in KNOWN_USER_STATES:
        raise SuiteError(
            f"{target.name} from {source.name}: state '{protocol.state}' has known users, but those of another data "
            "set are new; use user-cold or both-cold"
        )
    if protocol.item_shots:
        raise SuiteError(
            f"{target.name} from {source.name}: item_shots are ratings by meta-train users, and those of another data "
            "set rated none of its items; use item_shots = 0"
        )
    there, own = split_dataset(target, protocol, seed), split_dataset(source, protocol, seed)
    shift, n_items = len(target.catalog), len(target.catalog) + len(source.catalog)

    def moved(rows: UserRows) -> UserRows:
        return replace(rows, item=rows.item + shift, rating=_mapped(rows.rating, source.scale, target.scale))

    def moved_pool(pool: Pool) -> Pool:
        support = moved(pool.support)
        query = support if pool.query is pool.support else moved(pool.query)
        popularity = np.concatenate([np.zeros(shift, np.int64), pool.popularity])
        return replace(pool, support=support, query=query, popularity=popularity, user_features=None)

    test = there.pools["test"]
    popularity = np.concatenate([test.popularity, np.zeros(len(source.catalog), np.int64)])
    pools = {"train": moved_pool(own.pools["train"]), "validation": moved_pool(own.pools["validation"])}
    pools["test"] = replace(test, popularity=popularity, user_features=None)
    table = own.meta_train
    meta_train = RatingTable(
        table.user,
        table.item + shift,
        _mapped(table.rating, source.scale, target.scale),
        table.timestamp,
        table.n_users,
        n_items,
    )
    catalog = target.catalog.with_seen(np.zeros(shift, bool)).joined(own.catalog)
    return Split(protocol, seed, meta_train, own.meta_users, catalog, pools)  # type: ignore[arg-type]


def _mapped(rating: np.ndarray, source: Scale, target: Scale) -> np.ndarray:
    return target.low + (rating - source.low) * ((target.high - target.low) / (source.high - source.low))
