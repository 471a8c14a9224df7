"""From a suite to frozen episodes: its grid without the learners, as ``fewrec episodes export`` writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fewrec.data.likes import likes_of
from fewrec.data.load import open_dataset
from fewrec.data.table import Dataset
from fewrec.episodes.frozen.layout import ExportRecord
from fewrec.episodes.frozen.write import Task, write_export
from fewrec.errors import SuiteError
from fewrec.runner.override import override
from fewrec.runner.suite import Shots, Suite, load_suite


def export_suite(
    suite: str,
    out: str | Path,
    *,
    datasets: Iterable[str] = (),
    states: Iterable[str] = (),
    shots: Iterable[Shots] = (),
    seeds: Iterable[int] = (),
    episodes: int | None = None,
    order: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    data: Dataset | str | Path | None = None,
    offline: bool = False,
    told: Callable[[str], None] = lambda name: None,
) -> ExportRecord:
    """Write the episodes of every task of a suite (a name or a TOML file) into ``out``; no learner is imported.

    The options choose and replace what those of ``fewrec.run`` do, so the same options name the same episodes.
    ``told`` hears the name of each task. Raises ``SuiteError`` or ``DataError`` for what can't be drawn, and
    ``FolderError`` where ``out`` holds something else.
    """
    name, definition = load_suite(suite)
    if data is not None:
        data = data if isinstance(data, Dataset) else open_dataset(data, offline=offline)
        datasets = [data.name]
    definition = override(
        definition, name, datasets=datasets, states=states, shots=shots, seeds=seeds, episodes=episodes, order=order,
        conditions=conditions,
    )  # fmt: skip
    if definition.meta_datasets:
        raise SuiteError(f"{name}: meta_datasets: an export is of one data set; leave them out")
    if definition.protocol.history is not None:
        raise SuiteError(f"{name}: protocol.history: windows in time can't be exported; an export is of drawn episodes")
    loaded = {key: data if data is not None else open_dataset(key, offline=offline) for key in definition.datasets}
    loaded = {key: likes_of(one, definition.protocol.likes_above) for key, one in loaded.items()}
    fields = definition.model_dump(mode="json", exclude={"learners"})
    return write_export(out, tasks_of(definition), loaded, suite=name, definition=fields, told=told)


def tasks_of(suite: Suite) -> list[Task]:
    """Return the tasks of a suite, those of one split after another."""
    return [
        Task(dataset, protocol, seed, n_users, k_shot, n_query, suite.episodes, suite.block,
             suite.ndcg_at)
        for dataset in suite.datasets
        for state in suite.states
        for protocol in suite.protocols_of(state)
        for seed in suite.seeds
        for n_users in suite.n_users
        for k_shot in suite.shots
        for n_query in suite.n_query
    ]  # fmt: skip
