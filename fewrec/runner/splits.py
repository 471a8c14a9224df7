"""The split of a cell, of its data set alone or across two: planning, running and tuning need the same."""

from __future__ import annotations

from collections.abc import Mapping

from fewrec.data.table import Dataset
from fewrec.episodes.cross import split_across
from fewrec.episodes.split import Split, split_dataset
from fewrec.runner.cell import CellSpec
from fewrec.seeding import digest


def split_key(spec: CellSpec) -> str:
    """Return what tells the splits of cells apart."""
    return digest([spec.dataset, spec.meta_dataset, spec.protocol.of_meta_fit(), spec.seed])


def split_of(spec: CellSpec, datasets: Mapping[str, Dataset]) -> Split:
    """Return the split of a cell; raises ``SuiteError`` where its data can't be cut so."""
    dataset = datasets[spec.dataset]
    if spec.meta_dataset is None:
        return split_dataset(dataset, spec.protocol, spec.seed)
    return split_across(dataset, datasets[spec.meta_dataset], spec.protocol, spec.seed)
