"""``fewrec.tune``: from a suite and a learner to a tuned row; the command line calls the same function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewrec.data.likes import likes_of
from fewrec.data.load import open_dataset
from fewrec.data.table import Dataset
from fewrec.errors import SuiteError
from fewrec.learners.base import Learner
from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.paths import cache_folder, go_offline, offline_mode_ends
from fewrec.report.measure import Measure
from fewrec.runner.cell import code_hash
from fewrec.runner.environment import available_threads, choose_device
from fewrec.runner.override import override
from fewrec.runner.provenance import Tuned
from fewrec.runner.suite import LearnerRow, Shots, Suite, load_suite, validated_config
from fewrec.seeding import digest
from fewrec.terminal import rich_console
from fewrec.tuning.objective import Objective, Task, tasks_of
from fewrec.tuning.progress import TrialLines
from fewrec.tuning.result import TuningResult, trials_frame, value_of, write_row
from fewrec.tuning.space import Space, search_space
from fewrec.tuning.study import METHOD, Search, Trial, require_optuna

DEFAULT_BUDGET = 30


@dataclass(frozen=True)
class TuningPlan:
    """A checked search that has not begun: one row of a suite, its search space and where the result goes."""

    suite_name: str
    suite: Suite
    row: LearnerRow
    cls: type[Learner]
    start: dict[str, Any]
    space: Space
    folder: Path
    path: Path


def plan_tuning(
    suite: str,
    learner: str,
    *,
    datasets: Iterable[str] = (),
    states: Iterable[str] = (),
    shots: Iterable[Shots] = (),
    seeds: Iterable[int] = (),
    episodes: int | None = None,
    order: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    plugins: Iterable[str | Path] = (),
    out: str | Path | None = None,
) -> TuningPlan:
    """Check everything but the data, and return the plan. Raises ``SuiteError`` naming the option and the fix."""
    for plugin in plugins:
        add_plugin_file(Path(plugin))
    name, definition = load_suite(suite)
    row = _row(definition, name, learner, settings or {})
    definition = override(
        definition, name, datasets=datasets, states=states, shots=shots, seeds=seeds, episodes=episodes, order=order,
        conditions=conditions,
    ).model_copy(update={"learners": (row,)})
    cls = learner_class(row.learner)
    start = validated_config(row)
    space = search_space(cls, row.config)
    folder = Path(out) if out is not None else Path("results") / "tune" / name
    file = re.sub(r"[^\w.-]+", "-", row.shown).strip("-.")
    return TuningPlan(name, definition, row, cls, start, space, folder / file, folder / f"{file}.toml")


def _row(suite: Suite, name: str, learner: str, settings: Mapping[str, Mapping[str, Any]]) -> LearnerRow:
    """Return the suite's row of that label, else of that learner, else a new one; with the options of ``settings``."""
    found = [row for row in suite.learners if row.shown == learner] or [
        row for row in suite.learners if row.learner == learner and row.tuned is None
    ]
    if len(found) > 1:
        labels = ", ".join(repr(row.shown) for row in found)
        raise SuiteError(f"--learner {learner}: suite {name} has it as {labels}; give one of these")
    row = found[0] if found else LearnerRow(learner=learner)
    strangers = sorted(set(settings) - {row.learner, row.shown})
    if strangers:
        raise SuiteError(f"--set {strangers[0]}: the learner that is tuned is '{learner}'")
    options = {key: value for target in settings.values() for key, value in target.items()}
    if row.tuned is not None:
        raise SuiteError(f"--learner {learner}: this row is a tuning result; tune '{row.learner}'")
    if not options:
        return row
    only = override(suite.model_copy(update={"learners": (row,)}), name, settings={row.shown: options})
    return only.learners[0]


@offline_mode_ends
def tune(
    suite: str = "quick",
    learner: str = "mf-foldin",
    *,
    budget: int = DEFAULT_BUDGET,
    time_limit: float | None = None,
    data: Dataset | str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    offline: bool = False,
    progress: bool = True,
    **options: Any,
) -> TuningResult:
    """Search the options of one learner of a suite on meta-validation, and write the best as a row for the suite.

    Every learner gets the same: ``budget`` trials (30) of Optuna's TPE in the space that one rule derives from its
    options (``fewrec.tuning.space``), seeded by the suite's first seed; the first trial is the configuration that the
    suite has, so the result is never worse than it on meta-validation. A trial is scored by the mean RMSE (of clicks
    the mean AUC) over the suite's (data set, state, K, seed), on meta-validation episodes with its N, K and Q.
    Meta-test is removed before the first trial. The learner's own early stopping looks at the same users, so scores
    here are optimistic.

    ``learner`` is a label or a learner of the suite, or any registered one; options that its row or ``settings`` give
    are not searched. ``time_limit`` is in seconds a trial; a trial that fails counts and is recorded with its reason.
    Other options are those of ``fewrec.run``: ``datasets``, ``states``, ``shots``, ``seeds``, ``episodes``, ``order``,
    ``conditions``, ``settings``, ``data``, ``plugins``, ``device``, ``threads``, ``out`` (results/tune/<suite>),
    ``offline``.

    Trials are kept in OUT/<learner>/study.db: calling it again goes on after an interruption, a larger budget adds
    trials. Raises ``FewrecError`` (one line) for what can't be searched, and where the folder holds another search.
    """
    require_optuna()
    if budget < 1:
        raise SuiteError(f"--budget {budget}: at least one trial is needed")
    if time_limit is not None and time_limit <= 0:
        raise SuiteError(f"--time-limit {time_limit:g}: give a number of seconds above 0")
    if threads is not None and threads < 1:
        raise SuiteError(f"--threads {threads}: at least one thread is needed")
    if data is not None:
        data = data if isinstance(data, Dataset) else open_dataset(data, offline=offline)
        options["datasets"] = [data.name]
    plan = plan_tuning(suite, learner, **options)
    if not plan.space.searched:
        raise SuiteError(f"'{plan.row.shown}' has no option that is searched; see fewrec tune --space")
    if offline:
        go_offline()
    chosen = choose_device(device)
    torch.set_num_threads(threads or available_threads())
    loaded = {key: data if data is not None else open_dataset(key, offline=offline) for key in plan.suite.datasets}
    loaded = {key: likes_of(one, plan.suite.protocol.likes_above) for key, one in loaded.items()}
    tasks, left_out = tasks_of(plan.suite.cells(), loaded, plan.cls)
    if not tasks:
        raise SuiteError(f"'{plan.row.shown}' can't be run on suite {plan.suite_name}: {next(iter(left_out.values()))}")
    del loaded, data  # what follows sees the tasks alone
    keep_fits = set(plan.space.searched) <= plan.cls.adapt_options
    objective = Objective(plan.cls, tasks, chosen, cache_folder() / "learners", keep_fits)
    definition = _definition(plan, tasks, objective.measure)
    search = Search(plan.folder, definition, plan.space, plan.start, plan.suite.seeds[0])
    lines = TrialLines(rich_console(stderr=True), plan.row.shown, budget, objective.measure) if progress else None
    with search.opened(), lines or nullcontext():
        if lines is not None:
            lines.known(search.run(min(budget, search.ended), objective))
        told = lines.told if lines is not None else lambda trial: None
        trials = search.run(budget, objective, limit=time_limit, told=told)
        importance = search.importance(budget)
    best = _best(trials, plan.row.shown)
    row = _tuned_row(plan, trials, best, search.sha, tasks, objective.measure)
    write_row(plan.path, row)
    return TuningResult(plan.path, row, plan.start, best, trials_frame(trials, objective.measure), importance, left_out)


def _best(trials: list[Trial], label: str) -> Trial:
    scored = [(trial.error, trial.number, trial) for trial in trials if trial.error is not None]
    if not scored:
        raise SuiteError(
            f"none of {len(trials)} trials of '{label}' gave a score; the last reason: {trials[-1].reason}"
        )
    return min(scored)[2]


def _definition(plan: TuningPlan, tasks: list[Task], measure: Measure) -> dict[str, Any]:
    """Return what makes trials comparable; its parts are what a refusal names."""
    cells = [spec.canonical() for task in tasks for spec in task.cells]
    for cell in cells:
        for name in ("learner", "label", "config", "block", "ndcg_at"):
            del cell[name]
    return {
        "method": METHOD,
        "metric": measure.column,
        "suite": plan.suite_name,
        "learner": plan.row.learner,
        "start": plan.start,
        "space": plan.space.canonical(),
        "code": code_hash(plan.cls),
        "episodes": cells,
        "data": {task.name: task.sha256 for task in tasks},
    }


def _tuned_row(
    plan: TuningPlan, trials: list[Trial], best: Trial, study: str, tasks: list[Task], measure: Measure
) -> LearnerRow:
    config = {**plan.start, **best.options}
    used = [spec for task in tasks for spec in task.cells]
    tuned = Tuned(
        budget=len(trials),
        trials=sum(trial.error is not None for trial in trials),
        method="tpe",
        seeds=tuple(dict.fromkeys(spec.seed for spec in used)),
        dataset=", ".join(dict.fromkeys(spec.dataset for spec in used)),
        suite=plan.suite_name,
        states=tuple(dict.fromkeys(spec.protocol.state for spec in used)),
        shots=tuple(dict.fromkeys(spec.k_shot for spec in used)),
        episodes=plan.suite.episodes,
        study=study,
        config_hash=digest(validated_config(LearnerRow(learner=plan.row.learner, config=config))),
        **{
            f"{which}_{measure.column}": value_of(trial.error, measure)
            for which, trial in (("validation", best), ("default", trials[0]))
        },
    )
    written = {name: value for name, value in config.items() if value is not None}
    return LearnerRow(learner=plan.row.learner, label=f"{plan.row.shown} (tuned)", config=written, tuned=tuned)
