"""``fewrec.run``: from a suite's name to its results; the command line calls the same function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewrec.data.likes import likes_of
from fewrec.data.load import open_dataset
from fewrec.data.table import Dataset
from fewrec.data.weights import check_option, find_weights
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.errors import SuiteError
from fewrec.learners.registry import add_plugin_file
from fewrec.paths import cache_folder, go_offline, offline_mode_ends
from fewrec.report.render import write_leaderboard
from fewrec.report.results import Results, load_results
from fewrec.runner.cell import SCHEMA, CellSpec
from fewrec.runner.environment import choose_device, describe
from fewrec.runner.estimate import Estimate, estimate
from fewrec.runner.execute import CellRunner
from fewrec.runner.override import one_or_many, override
from fewrec.runner.progress import Reporter, reporter_for
from fewrec.runner.splits import split_key, split_of
from fewrec.runner.store import RunFolder
from fewrec.runner.suite import Shots, Suite, load_suite
from fewrec.runner.tuned_rows import load_tuned
from fewrec.runner.workers import Workers, choose_workers, open_executor
from fewrec.seeding import digest
from fewrec.terminal import rich_console
from fewrec.tracking.base import Tracker, Trackers, open_trackers


@dataclass(frozen=True)
class Plan:
    """A checked run that has not begun: its cells in order, its data, its folder and what it is expected to take."""

    name: str
    suite: Suite
    cells: list[CellSpec]
    datasets: dict[str, Dataset]
    splits: dict[str, str]
    device: torch.device
    threads: int
    out: Path
    estimate: Estimate
    backbone: str | None = None
    workers: Workers = Workers()
    offline: bool = False

    def expected(self) -> dict[str, tuple[float, float]]:
        """Return the expected seconds of the fit and of all blocks of each cell, by the cell's hash."""
        return {spec.spec_hash: parts for spec, parts in zip(self.cells, self.estimate.parts, strict=True)}


@offline_mode_ends
def plan(
    suite: str = "quick",
    *,
    learners: Iterable[str] = (),
    datasets: Iterable[str] = (),
    meta_datasets: Iterable[Dataset | str | Path] = (),
    states: Iterable[str] = (),
    shots: Iterable[Shots] = (),
    seeds: Iterable[int] = (),
    episodes: int | None = None,
    order: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backbone: str | None = None,
    tuned: Iterable[str | Path] = (),
    data: Dataset | str | Path | None = None,
    plugins: Iterable[str | Path] = (),
    device: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    offline: bool = False,
    jobs: int | None = None,
    executor: str | None = None,
    ray_address: str | None = None,
) -> Plan:
    """Check everything that can be checked before any training, and return the plan.

    ``tuned`` are files of ``fewrec tune``, whose rows are added beside the suite's. ``backbone`` names the language
    model (``fewrec.data.weights.find_weights``) of all rows whose learner has that option. ``meta_datasets`` are those
    to meta-train on in place of the one that is tested, each for a table of its own. ``jobs``, ``executor`` and
    ``ray_address``: see ``fewrec.runner.workers``; ``threads`` are those of a worker.

    Raises ``SuiteError`` or ``DataError`` with one line that names the option or the file and the fix.
    """
    workers = choose_workers(jobs, executor, ray_address, offline=offline)
    for plugin in one_or_many(plugins):
        add_plugin_file(Path(plugin))
    if backbone is not None:
        check_option(backbone)
    name, definition = load_suite(suite)
    if data is not None:
        data = data if isinstance(data, Dataset) else open_dataset(data, offline=offline)
        datasets = [data.name]
    meta_datasets = one_or_many(meta_datasets)
    opened = [one if isinstance(one, Dataset) else open_dataset(one, offline=offline) for one in meta_datasets]
    sources = {one.name: one for one in opened}
    definition = override(
        definition, name, learners=learners, datasets=datasets, meta_datasets=sources, states=states, shots=shots,
        seeds=seeds,
        episodes=episodes, order=order, conditions=conditions, settings=settings, backbone=backbone,
        tuned=load_tuned(one_or_many(tuned)),
    )  # fmt: skip
    cells = definition.cells()
    chosen = choose_device(device)
    if threads is not None and threads < 1:
        raise SuiteError(f"--threads {threads}: at least one thread is needed")
    threads = threads or workers.default_threads()
    if offline:
        go_offline()
    loaded = {key: data if data is not None else open_dataset(key, offline=offline) for key in definition.datasets}
    for source in definition.meta_datasets:
        if source not in loaded:
            loaded[source] = sources.get(source) or open_dataset(source, offline=offline)
    loaded = {key: likes_of(one, definition.protocol.likes_above) for key, one in loaded.items()}
    folder = Path(out) if out is not None else Path("results") / name
    earlier = [folder, *sorted(Path("results/reference").glob("*/"))]
    return Plan(
        name, definition, cells, loaded, _check_episodes(cells, loaded), chosen, threads, folder,
        estimate(cells, earlier), backbone, workers, offline,
    )  # fmt: skip


def _check_episodes(cells: list[CellSpec], datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """Draw the last episode of every kind that is asked for; return the hash of every split by its readable name."""
    splits: dict[str, str] = {}
    made: dict[str, Any] = {}
    checked = set()
    for spec in cells:
        protocol = spec.protocol
        key = split_key(spec)
        if key not in made:
            made = {key: split_of(spec, datasets)}
            source = f" from {spec.meta_dataset}" if spec.meta_dataset else ""
            users = f"/users with {'-'.join(map(str, protocol.user_ratings))} ratings" if protocol.user_ratings else ""
            place = f"{spec.dataset}{source}/{protocol.state}/{protocol.order}{users}/seed {spec.seed}"
            splits[place] = made[key].sha256
        kind = (key, digest(protocol.canonical()), spec.n_users, spec.k_shot, spec.n_query)
        if kind not in checked:
            checked.add(kind)
            sampler = EpisodeSampler.of(made[key], protocol)
            try:
                sampler.sample(spec.episodes - 1, 1, n_users=spec.n_users, k_shot=spec.k_shot, n_query=spec.n_query)
            except SuiteError as error:
                raise SuiteError(f"{spec.dataset}, {spec.protocol.state}: {error}") from None
    return splits


@offline_mode_ends
def execute(
    plan: Plan,
    *,
    reporter: Reporter | None = None,
    time_limit: float | None = None,
    command: str = "",
    track: Iterable[str | Tracker] = (),
) -> Results:
    """Run what is missing of a plan, write the tables, and return the results of its folder.

    Interrupting is safe at any moment: complete blocks and meta-fits stay, and the next call goes on from them.
    ``track``: names of backends and objects of one's own (``fewrec.tracking.Tracker``) that follow the run.
    """
    if plan.offline:
        go_offline()
    reporter = reporter or Reporter()
    trackers = Trackers(open_trackers(track), reporter.warn)
    if time_limit is not None and time_limit <= 0:
        raise SuiteError(f"--time-limit {time_limit:g}: give a number of seconds above 0")
    if plan.backbone is not None:
        find_weights(plan.backbone)  # fetched now: what can't be had is said before the first cell
    torch.set_num_threads(plan.threads)
    folder = RunFolder(plan.out, reporter.warn)
    manifest = _manifest(plan, command)
    folder.open(manifest)
    executor = None
    try:
        folder.set_aside_replaced(plan.cells)
        cache = cache_folder() / "learners"
        executor = open_executor(
            plan.workers, plan.cells, plan.datasets, plan.device, plan.threads, cache, folder, offline=plan.offline
        )
        runner = CellRunner(folder, plan.datasets, plan.device, cache, reporter, time_limit, plan.suite.tuning(),
                            trackers, executor)  # fmt: skip
        reporter.start(plan.cells, plan.estimate.seconds)
        trackers.begin(manifest, plan.cells, plan.out / "tracking")
        ended = "failed"
        try:
            runner.run_all(plan.cells, plan.expected())
            ended = "ok"
        except KeyboardInterrupt:
            ended = "interrupted"
            raise
        finally:
            trackers.end(ended)
            reporter.stop()
            if executor is not None:
                executor.close()  # before the tables are written: its workers' memory and processors are free then
        write_leaderboard(plan.out)
        return load_results(plan.out)
    finally:
        if executor is not None:
            executor.close()
        folder.close()


def run(
    suite: str = "quick",
    *,
    progress: bool = True,
    reporter: Reporter | None = None,
    time_limit: float | None = None,
    track: Iterable[str | Tracker] = (),
    **options: Any,
) -> Results:
    """Run a suite, by name or as the path of a TOML file, and return its results as tidy frames.

    Options are those of ``plan``: ``learners``, ``datasets``, ``meta_datasets``, ``states``, ``shots``, ``seeds``,
    ``episodes``, ``order``, ``conditions``, ``settings``, ``backbone``, ``tuned``, ``data``, ``plugins``, ``device``,
    ``threads``, ``out``, ``offline``, ``jobs``, ``executor``, ``ray_address``. A run that was interrupted is resumed;
    complete cells are not run again.
    ``time_limit`` is in seconds a cell.
    ``progress`` shows cells done and an ETA on standard error or in the notebook; ``reporter`` takes their place.
    ``track`` takes names (tensorboard, wandb, mlflow) and objects of one's own (``fewrec.tracking.Tracker``) that
    follow the run; they write into OUT/tracking. ``result.leaderboard`` is the table, ``result.cells`` one row a cell,
    ``result.scores`` one row an (episode, user).

    Raises ``FewrecError`` (one line, before any training) for input or options that can't be used.
    """
    if reporter is None and progress:
        reporter = reporter_for(rich_console(stderr=True))
    track = list(one_or_many(track))
    open_trackers(track)  # a package that is missing is said before data are read
    return execute(
        plan(suite, **options), reporter=reporter, time_limit=time_limit, command=f"fewrec.run({suite!r})", track=track
    )


def _manifest(plan: Plan, command: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "suite": plan.suite.model_dump(mode="json"),
        "command": command,
        "environment": describe(plan.device, plan.threads),
        "datasets": {
            name: {
                "sha256": data.table.sha256, "text_sha256": data.catalog.text_sha256,
                "features_sha256": data.features_sha256, "sources": data.sources,
                "licence": data.licence, "citation": data.citation, "homepage": data.homepage,
                "notes": list(data.notes), "scale": [data.scale.low, data.scale.high],
                "kind": data.kind,
            }
            for name, data in plan.datasets.items()
        },
        "splits": plan.splits,
    }  # fmt: skip
