"""The split of a cell, of its data set alone or across two: planning, running and tuning need the same."""

from __future__ import annotations

from collections.abc import Mapping

from fewrec.data.table import Dataset
from fewrec.episodes.cross import split_across
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split, split_dataset
from fewrec.runner.cell import CellSpec
from fewrec.seeding import digest

_KEPT = 4


def split_key(spec: CellSpec) -> str:
    """Return what tells the splits of cells apart."""
    return digest([spec.dataset, spec.meta_dataset, spec.protocol.of_meta_fit(), spec.seed])


def split_of(spec: CellSpec, datasets: Mapping[str, Dataset]) -> Split:
    """Return the split of a cell; raises ``SuiteError`` where its data can't be cut so."""
    dataset = datasets[spec.dataset]
    if spec.meta_dataset is None:
        return split_dataset(dataset, spec.protocol, spec.seed)
    return split_across(dataset, datasets[spec.meta_dataset], spec.protocol, spec.seed)


class Splits:
    """The splits of cells, of which the last few are kept."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self.datasets = datasets
        self._kept: dict[str, Split] = {}

    def __getitem__(self, spec: CellSpec) -> Split:
        key = split_key(spec)
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = split_of(spec, self.datasets)
        return self._kept[key]

    def sampler(self, spec: CellSpec) -> EpisodeSampler:
        """Return the sampler of a cell's test episodes."""
        return EpisodeSampler.of(self[spec], spec.protocol)
