"""The split of a cell, of its data set alone or across two: planning, running and tuning need the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewrec.data.table import Dataset
from fewrec.episodes.cross import split_across
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split, split_dataset
from fewrec.errors import SuiteError
from fewrec.runner.cell import CellSpec
from fewrec.seeding import digest

_KEPT = 4
# What mends a protocol that the data can't be cut by, by a part of what the split says of it.
_REMEDIES = {
    "too few to be split": "give a larger data set",
    "(user_ratings)": "change user_ratings in the suite's table [protocol]",
    'user_split = "given"': "leave it out of the suite's table [protocol], and users are drawn by user_shares",
}


def split_key(spec: CellSpec) -> str:
    """Return what tells the splits of cells apart."""
    return digest([spec.dataset, spec.meta_dataset, spec.protocol.of_meta_fit(), spec.seed])


def split_of(spec: CellSpec, datasets: Mapping[str, Dataset]) -> Split:
    """Return the split of a cell; raises ``SuiteError`` where its data can't be cut so."""
    dataset = datasets[spec.dataset]
    try:
        if spec.meta_dataset is None:
            return split_dataset(dataset, spec.protocol, spec.seed)
        return split_across(dataset, datasets[spec.meta_dataset], spec.protocol, spec.seed)
    except SuiteError as error:
        said = str(error)
        fixes = [fix for part, fix in _REMEDIES.items() if part in said]
        raise SuiteError("; ".join([said, *fixes])) from None


class Splits:
    """The splits of cells, of which the last few are kept."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self.datasets = datasets
        self._kept: dict[str, Split] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def __getitem__(self, spec: CellSpec) -> Split:
        key = split_key(spec)
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = split_of(spec, self.datasets)
        return self._kept[key]

    def facts(self, spec: CellSpec) -> dict[str, Any]:
        """Return what a cell's record says of its split: hashes, and how many users its episodes are drawn from.

        These are kept of all splits: cells end in any order, and of 32 million ratings a split takes many seconds.
        """
        key = digest([split_key(spec), spec.protocol.canonical(), spec.n_query])
        if key not in self._facts:
            split, eligible = self[spec], self.sampler(spec).eligible(spec.n_query)
            self._facts[key] = {
                "text_sha256": split.catalog.text_sha256, "split_hash": split.sha256,
                "eligible_users": len(eligible.users), "excluded_users": eligible.excluded,
            }  # fmt: skip
        return self._facts[key]

    def sampler(self, spec: CellSpec) -> EpisodeSampler:
        """Return the sampler of a cell's test episodes."""
        return EpisodeSampler.of(self[spec], spec.protocol)
