"""The leaderboard as a page that people read: a section a task, then data, environment and what the columns mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from fewrec.metrics.statistics import REPLICATES
from fewrec.report.leaderboard import TRIVIAL, is_best, is_tie, tasks
from fewrec.report.measure import AUC, RMSE, Measure, measure_of
from fewrec.report.naming import grouped_signs, why_excluded
from fewrec.report.numbers import fixed, interval, markdown_text, one_line, p_text, short
from fewrec.report.optional import CALIBRATION, Optional, optional_columns
from fewrec.report.published import published_rows
from fewrec.report.ranks import task_ranks
from fewrec.report.results import Results
from fewrec.report.warning_signs import FEW_USERS

_COSTS = ("meta-fit s", "adapt ms", "predict ms", "episodes/s", "peak MB", "parameters")
_HEAD = ("learner", "RMSE [95 %]", "− bias [95 %]", "MAE [95 %]", "nDCG@5 [95 %]", "AUC [95 %]", "skill", "rank",
         *_COSTS)  # fmt: skip
_CLICKS_HEAD = ("learner", "AUC [95 %]", "AUC − item-popularity [95 %]", "nDCG@5 [95 %]", "skill", "rank", *_COSTS)

_OF_RATINGS = """\
- **bold**: the lowest RMSE among the rows that cover all episodes. **≈**: a tie with it, p at least .05 in the paired
  test (bootstrap over users, two-sided, corrected by Holm for all rows of the table). *(trivial)*: a baseline that a
  learner has to beat.
- **RMSE, MAE**: over all query ratings of all seeds, predictions clipped to the scale. Intervals are 95 % {interval}
  intervals of {replicates:,} or more bootstrap samples of test users, the same samples for every row of a table. They
  are not corrected for the number of rows. With fewer than {few} test users they hold the truth less often than that.
- **− bias**: RMSE minus that of `bias` on the same (seed, episode, user) rows; below zero is better.
- **nDCG@5, AUC**: means over users, each over the user's own query, ties by expectation. A user whose query ratings
  are all equal is left out (counts under each table). Empty nDCG@5: the query is too short, or another k was chosen.
- **skill**: 1 − MSE / MSE of `bias` (for clicks 1 − (1 − AUC) / (1 − AUC of `item-popularity`)).
- **rank**: the mean over test users of the row's rank by the user's mean squared error (1 - AUC for clicks), 1 is best.
  Rows that share a letter are not told apart by the Nemenyi test at .05 (Demšar 2006). It counts users alike and not by
  how much they gain, so its order can differ from that of RMSE.
"""
_OF_CLICKS = """\
- **bold**: the highest AUC among the rows that cover all episodes. **≈**: a tie with it, p at least .05 in the paired
  test (bootstrap over users, two-sided, corrected by Holm for all rows of the table). *(trivial)*: a baseline that a
  learner has to beat.
- **AUC**: mean over users of the share of a user's (clicked, not clicked) query pairs that are ordered correctly, ties
  count half. A user whose query rows have one label alone is left out (counts under each table). Intervals are 95 %
  {interval} intervals of {replicates:,} or more bootstrap samples of test users, the same samples for every row of a
  table. They are not corrected for the number of rows. With fewer than {few} test users they hold the truth less often.
- **AUC − item-popularity**: AUC minus that of `item-popularity` on the (seed, episode, user) rows where both are
  defined; above zero is better. In leaderboard.csv, `diff_best` is likewise AUC minus that of the best row: below zero
  is worse. Predictions are scores, so there is no RMSE, MAE or `diff_bias`.
- **nDCG@5**: mean over users, each over the user's own query, gain 1 for a click, ties by expectation.
- **skill**: 1 − (1 − AUC) / (1 − AUC of `item-popularity`).
- **rank**: the mean over test users of the row's rank by the user's mean AUC, 1 is best (the highest AUC). Rows that
  share a letter are not told apart by the Nemenyi test at .05 (Demšar 2006).
"""
_OF_ALL = """\
- **tuning**, where a row has one: `set`: options of the row's own; `tuned, n trials`: chosen on meta-validation by a
  search with that budget; empty: the defaults, or not recorded.
- **meta-fit s**: seconds, once, mean over seeds. **adapt ms**, **predict ms**: median per episode at batch 1.
  **episodes/s**: at the learner's preferred batch. **peak MB**: of the process. **parameters**: all that is fitted, in
  meta-fit and in adapting.
- leaderboard.csv has more: means over users, paired differences to the best row, p-values of both differences corrected
  by Holm, the 95th percentile of latencies, device memory. leaderboard.tex has the tables for a paper."""


def markdown(results: Results, frame: pd.DataFrame) -> str:
    """Return leaderboard.md for ``frame``, the leaderboard of ``results``; a function of these two alone."""
    lines = [f"# {markdown_text(results.suite)}", ""]
    if results.manifest.get("command"):
        lines += [f"Generated from the cells of `{_code(results.manifest['command'])}`.", ""]
    if results.unfinished:
        lines += [f"**Not finished:** {len(results.unfinished)} cells have no result yet, so the tables lack them.", ""]
    if not len(frame):
        lines += ["There is no finished cell yet.", ""]
    lines += sections(results, frame) + _published(results) + _data(results) + _environment(results) + [notes(frame)]
    return "\n".join(lines) + "\n"


def sections(results: Results, frame: pd.DataFrame) -> list[str]:
    """Return the lines of a section a task: heading, table, what it rests on, rows without figures and warnings."""
    return [line for task, rows in tasks(frame) for line in _section(results, task, rows)]


def notes(frame: pd.DataFrame) -> str:
    """Return what the columns and marks of the tables of ``frame`` mean."""
    kind = {"bca": "BCa"}.get(frame.attrs.get("interval", "percentile"), "percentile")
    measures = [measure_of(rows) for _, rows in tasks(frame)]
    if AUC not in measures:
        said = f"{_OF_RATINGS}{_OF_ALL}"
    elif RMSE not in measures:
        said = f"{_OF_CLICKS}{_OF_ALL}"
    else:
        said = f"{_OF_RATINGS}{_OF_ALL}\n\nIn tables of clicks:\n\n{_OF_CLICKS.rstrip()}"
    more = "".join(f"- **{column.head}**: {column.meaning}.\n" for column in optional_columns(frame))
    return f"## Columns\n\n{more}{said.format(interval=kind, replicates=REPLICATES, few=FEW_USERS)}"


def _section(results: Results, task: tuple, rows: pd.DataFrame) -> list[str]:
    dataset, protocol, _, n_users, k_shot, n_query = task
    lines = [f"## {markdown_text(dataset)}, {markdown_text(protocol)}: N={n_users}, K={k_shot}, Q={n_query}", ""]
    scored, others = rows[rows["status"] == "ok"], rows[rows["status"] != "ok"]
    if len(scored):
        tuned = scored["tuning"].isin(["", "default"]).all()
        measure = measure_of(scored)
        head = _CLICKS_HEAD if measure is AUC else _HEAD
        head = head if tuned else (*head, "tuning")
        more = optional_columns(scored)
        calibration = [column for column in more if column.name in CALIBRATION]
        behind = [column for column in more if column not in calibration]
        costs = head.index(_COSTS[0])  # calibration stands with the other metrics, before them

        def line(cells: Sequence[str], one: list[str], other: list[str]) -> list[str]:
            return [*cells[:costs], *one, *cells[costs : len(head)], *other]

        table = (
            line(_cells(row, measure), _more(row, calibration), _more(row, behind)) for row in scored.to_dict("records")
        )
        heads = ([column.head_with_ends for column in part] for part in (calibration, behind))
        lines += _table(line(head, *heads), table, text_columns=1)
        lines += [_coverage(scored), *_ranks(results, task), ""]
    if len(others):
        table = ([_name(row), row["status"], markdown_text(row["reason"])] for row in others.to_dict("records"))
        lines += _table(("learner", "status", "reason"), table, text_columns=3)
    signs = grouped_signs(scored)
    if signs:
        lines += ["Warnings:", ""]
        lines += [f"- **{markdown_text(said)}**: {markdown_text(labels)}" for said, labels in signs] + [""]
    return lines + _splits(results.of_task(task))


def _cells(row: dict[str, Any], measure: Measure) -> list[str]:
    best = is_best(row)

    def with_ends(name: str, sign: bool = False) -> str:
        return interval(row[name], row[f"{name}_low"], row[f"{name}_high"], sign=sign)

    primary = with_ends(measure.column)
    return [
        f"**{_name(row)}**" if best else _name(row),
        f"**{primary}**" if best else f"{primary} ≈" if is_tie(row) else primary,
        with_ends(f"diff_{measure.ending}", sign=True),
        *map(with_ends, ("ndcg5",) if measure is AUC else ("mae", "ndcg5", "auc")),
        fixed(row["skill"], 3, sign=True),
        f"{fixed(row['rank'], 2)} {row['rank_group']}".strip(),
        *(short(row[name]) for name in ("meta_fit_s", "adapt_ms_p50", "predict_ms", "episodes_per_s", "peak_mb")),
        "" if pd.isna(row["trainable_params"]) else f"{int(row['trainable_params']):,}",
        "" if row["tuning"] == "default" else markdown_text(row["tuning"]),
    ]


def _more(row: dict[str, Any], columns: list[Optional]) -> list[str]:
    return [
        interval(row[one.name], row[f"{one.name}_low"], row[f"{one.name}_high"]) if one.metric else short(row[one.name])
        for one in columns
    ]


def _ranks(results: Results, task: tuple) -> list[str]:
    ranks = task_ranks(results, task)
    if ranks is None:
        return []
    return [
        f"Ranks over {ranks.users:,} users: the critical difference is {ranks.critical_difference:.2f}, "
        f"Friedman's test {p_text(ranks.p_friedman)}."
    ]


def _name(row: dict[str, Any]) -> str:
    learner, label = markdown_text(row["learner"]), markdown_text(row["label"])
    name = label if label.startswith(learner) else f"{label} ({learner})"
    return f"{name} *(trivial)*" if row["learner"] in TRIVIAL else name


def _coverage(scored: pd.DataFrame) -> str:
    parts = []
    for name in ("seeds", "episodes", "users"):
        counts = sorted(set(scored[name].dropna()))
        said = " or ".join(f"{count:,}" for count in counts)
        parts.append(f"{said} {name[:-1] if counts == [1] else name}")
    left_out = sorted(set(scored["undefined_users"].dropna()))
    said = " or ".join(f"{count:,}" for count in left_out)
    return f"{', '.join(parts)}; left out of the ranking metrics: {said} (episode, user) rows."


def _splits(cells: pd.DataFrame) -> list[str]:
    parts = []
    known = cells.dropna(subset=["split_hash"]).drop_duplicates(["seed", "split_hash", "eligible_users"])
    for cell in known.sort_values(["seed", "split_hash"]).to_dict("records"):
        said = f"seed {cell['seed']}: split `{_code(cell['split_hash'][:16])}`"
        if cell["eligible_users"] is not None:
            said += f", {cell['eligible_users']:,} eligible test users"
        if cell["excluded_users"] is not None:
            said += f", {cell['excluded_users']:,} excluded ({why_excluded(cell['protocol'])})"
        parts.append(said)
    return [f"Splits: {'; '.join(parts)}.", ""] if parts else []


def _published(results: Results) -> list[str]:
    """Return a table of the rows that the suite quotes from elsewhere: figures of others, as they stand there."""
    names, rows = published_rows(results)
    if not rows:
        return []
    table = ([markdown_text(label), *figures, markdown_text(source)] for label, figures, source in rows)
    return ["## Published figures", "", *_table(("row", *map(markdown_text, names), "source"), table, text_columns=1)]


def _data(results: Results) -> list[str]:
    lines = ["## Data", ""]
    for name, data in sorted((results.manifest.get("datasets") or {}).items()):
        lines.append(f"- {markdown_text(name)}: rating table sha256 `{_code(data.get('sha256'))}`"
                     f", item text sha256 `{_code(data.get('text_sha256'))}`.")  # fmt: skip
        if data.get("kind") == "clicks":
            lines.append(f"  Clicks: {markdown_text('; '.join(data.get('notes') or ['0/1']))}.")
        for key in ("licence", "citation"):
            if data.get(key):
                lines.append(f"  {key.capitalize()}: {markdown_text(data[key])}")
    return [*lines, ""]


def _environment(results: Results) -> list[str]:
    environment = dict(results.manifest.get("environment") or {})
    versions = environment.pop("versions", None) or {}
    lines = ["## Environment", ""]
    said = [f"{markdown_text(name)} {markdown_text(value)}" for name, value in sorted(environment.items())]
    lines += [f"- {', '.join(said)}"] if said else []
    said = [f"{markdown_text(name)} {markdown_text(value)}" for name, value in sorted(versions.items())]
    lines += [f"- {', '.join(said)}"] if said else []
    codes = results.cells["code_hash"].dropna().nunique()
    return [*lines, f"- {len(results.cells)} cells, {codes} code hashes", ""]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], text_columns: int) -> list[str]:
    head = list(head)
    rule = ["---" if i < text_columns else "---:" for i in range(len(head))]
    return [*(f"| {' | '.join(row)} |" for row in (head, rule, *rows)), ""]


def _code(value: Any) -> str:
    """Return a value for a code span, which a backtick or a line end of any kind would end."""
    return one_line(value).replace("`", "'")
