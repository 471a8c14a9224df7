"""Write the tables of README.md and docs from the committed results, so that no figure in them is typed by hand.

python scripts/readme_tables.py rewrites the parts between the markers <!-- NAME --> and <!-- /NAME -->; with --check it
only says whether they are up to date.
"""

import functools
import re
import sys
from pathlib import Path

import pandas as pd

from fewrec.report.comparison.paired import PairedScores, paired_figures
from fewrec.report.leaderboard import TRIVIAL
from fewrec.report.numbers import fixed, interval, short
from fewrec.report.pooled import pooled_figures
from fewrec.report.results import Results, load_results

ROOT = Path(__file__).resolve().parent.parent


def quick_table(state: str) -> str:
    """Return the table of one state of results/reference/quick: the figures that a reader compares first."""
    table = pd.read_csv(ROOT / "results/reference/quick/leaderboard.csv")
    rows = table[table["state"] == state]
    lines = [
        "| learner | RMSE [95 %] | − bias [95 %] | nDCG@5 | AUC | meta-fit s | ms an episode |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.to_dict("records"):
        name = f"*{row['label']}*" if row["learner"] in TRIVIAL else row["label"]
        if row["status"] != "ok":
            lines.append(f"| {name} | {row['status']}: {row['reason']} | | | | | |")
            continue
        cells = [
            name,
            interval(row["rmse"], row["rmse_low"], row["rmse_high"]),
            interval(row["diff_bias"], row["diff_bias_low"], row["diff_bias_high"], sign=True),
            fixed(row["ndcg5"], 3),
            fixed(row["auc"], 3),
            short(row["meta_fit_s"]),
            short(row["adapt_ms_p50"] + row["predict_ms"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def both_states_table() -> str:
    """Return the table of results/reference/quick for the first screen: both states beside each other."""
    table = pd.read_csv(ROOT / "results/reference/quick/leaderboard.csv")
    rows = {(row["label"], row["state"]): row for row in table.to_dict("records")}
    lines = [
        "| learner | new users: RMSE | − bias [95 %] | unseen items too: RMSE | − bias [95 %] "
        "| meta-fit s | ms an episode |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for label in table[table["state"] == "user-cold"]["label"]:
        own = [rows[label, state] for state in ("user-cold", "both-cold")]
        cells = [f"*{label}*" if own[0]["learner"] in TRIVIAL else label]
        for row in own:
            if row["status"] == "ok":
                difference = (row[f"diff_bias{end}"] for end in ("", "_low", "_high"))
                cells += [fixed(row["rmse"], 4), interval(*difference, sign=True)]
            else:
                cells += [row["status"], ""]
        cells += [short(own[0]["meta_fit_s"]), short(own[0]["adapt_ms_p50"] + own[0]["predict_ms"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def perf_table() -> str:
    """Return the table of results/reference/perf.csv: fewrec beside its peers, medians of one run."""
    table = pd.read_csv(ROOT / "results/reference/perf.csv")
    lines = ["| what | fewrec | other | times as fast | note |", "| --- | ---: | ---: | ---: | --- |"]
    for row in table.to_dict("records"):
        ours, other = f"{short(row['ours_s'])} s", f"{row['other']}: {short(row['other_s'])} s"
        lines.append(f"| {row['benchmark']} | {ours} | {other} | {short(row['ratio'])} | {row['note']} |")
    return "\n".join(lines)


def memory_table() -> str:
    """Return the table of results/reference/perf-memory.csv: peaks of resident memory."""
    table = pd.read_csv(ROOT / "results/reference/perf-memory.csv")
    lines = ["| learner | backbone | peak GB | limit GB |", "| --- | --- | ---: | ---: |"]
    for row in table.to_dict("records"):
        lines.append(f"| `{row['learner']}` | {row['backbone']} | {row['peak_gb']} | {row['limit_gb']} |")
    return "\n".join(lines)


def published_table(suite: str) -> str:
    """Return the rows of a published protocol: all learners by RMSE, figures of the five highest-rated items beside."""
    table = pd.read_csv(ROOT / f"results/reference/{suite}/leaderboard.csv")
    names = ("top5_precision", "top5_ndcg", "top5_mrr")
    lines = [
        "| row | RMSE [95 %] | − bias [95 %] | MAE | P@5 | nDCG@5 | MRR@5 | AUC | meta-fit s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table[table["status"] == "ok"].to_dict("records"):
        cells = [
            f"*{row['label']}*" if row["learner"] in TRIVIAL else f"`{row['label']}`",
            interval(row["rmse"], row["rmse_low"], row["rmse_high"]),
            interval(row["diff_bias"], row["diff_bias_low"], row["diff_bias_high"], sign=True),
            fixed(row["mae"], 4),
            *(fixed(row[name], 3) for name in names),
            fixed(row["auc"], 3),
            short(row["meta_fit_s"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_best_table(suite: str, state: str) -> str:
    """Return RMSE at each K of a suite's state, and how far each row is behind the best one, paired over users."""
    table = pd.read_csv(ROOT / f"results/reference/{suite}/leaderboard.csv")
    table = table[(table["state"] == state) & (table["status"] == "ok")]
    shots = sorted(table["k_shot"].astype(int).unique())
    heads = " | ".join(f"K = {k} | − best [95 %]" for k in shots)
    lines = [f"| row | {heads} | NLPD | 90 % cover | meta-fit s |", f"| --- |{' ---: |' * (2 * len(shots) + 3)}"]
    rows = {(row["label"], int(row["k_shot"])): row for row in table.to_dict("records")}
    middle = shots[len(shots) // 2]
    for label in table[table["k_shot"].astype(int) == middle]["label"]:
        cells = [f"*{label}*" if rows[label, middle]["learner"] in TRIVIAL else f"`{label}`"]
        for row in (rows[label, k] for k in shots):
            behind = tuple(row[f"diff_best{end}"] for end in ("", "_low", "_high"))
            tied = " ≈" if row["p_best"] >= 0.05 else ""
            best = pd.isna(row["p_best"])
            cells += [fixed(row["rmse"], 4) + tied, "best" if best else interval(*behind, sign=True)]
        row = rows[label, middle]
        known = [row[name] for name in ("nlpd", "coverage90")]
        cells += ["" if pd.isna(value) else fixed(value, 3) for value in known]
        lines.append("| " + " | ".join([*cells, short(row["meta_fit_s"])]) + " |")
    return "\n".join(lines)


def melu_table(state: str) -> str:
    """Return the rows of one state of results/reference/melu-ml-1m by MAE, the metric of the published table."""
    table = pd.read_csv(ROOT / "results/reference/melu-ml-1m/leaderboard.csv")
    table = table[(table["state"] == state) & (table["status"] == "ok")].sort_values("mae", kind="stable")
    lines = [
        "| row | MAE [95 %] | RMSE | − bias, RMSE [95 %] | nDCG@1 | nDCG@3 | AUC | meta-fit s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table.to_dict("records"):
        cells = [
            f"*{row['label']}*" if row["learner"] in TRIVIAL else f"`{row['label']}`",
            interval(row["mae"], row["mae_low"], row["mae_high"]),
            fixed(row["rmse"], 4),
            interval(row["diff_bias"], row["diff_bias_low"], row["diff_bias_high"], sign=True),
            *(fixed(row[name], 3) for name in ("ndcg1", "ndcg3", "auc")),
            short(row["meta_fit_s"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tallrec_table() -> str:
    """Return the rows of TALLRec's protocol by AUC over all rows, beside the share of likes in the history and bias."""
    results = load_results(ROOT / "results/reference/tallrec-movie")
    table = results.leaderboard[results.leaderboard["status"] == "ok"]
    rows = table.to_dict("records")
    cells = [results.cells[results.cells["label"] == row["label"]] for row in rows]
    place = {row["learner"]: i for i, row in enumerate(rows)}
    to_share, to_bias = (
        pooled_figures(results.pairs, cells, against=place[name]).to_dict("records") for name in ("user-mean", "bias")
    )
    lines = [
        "| row | AUC, all rows [95 %] | − share of likes [95 %] | − bias [95 %] | AUC by user [95 %] |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for i in sorted(range(len(rows)), key=lambda i: -rows[i]["auc_all"]):
        label = rows[i]["label"].replace("user-mean (share of likes in the history)", "share of likes (user-mean)")
        written = [f"*{label}*" if rows[i]["learner"] in TRIVIAL else f"`{label}`"]
        figures = ((rows[i], "auc_all"), (to_share[i], "diff_all"), (to_bias[i], "diff_all"), (rows[i], "auc"))
        for found, name in figures:
            written.append(interval(*(found[f"{name}{end}"] for end in ("", "_low", "_high")), sign=name == "diff_all"))
        lines.append(f"| {' | '.join(written)} |")
    return "\n".join(lines)


def shots_table() -> str:
    """Return, from results/reference/shots, each learner's difference to bias at every K, best mean first."""
    table = pd.read_csv(ROOT / "results/reference/shots/leaderboard.csv")
    table = table[(table["status"] == "ok") & ~table["learner"].isin(TRIVIAL - {"bias"})]
    shots = sorted(table["k_shot"].unique())
    order = table.groupby("label")["diff_bias"].mean().sort_values().index
    rows = {(row["label"], row["k_shot"]): row for row in table.to_dict("records")}
    lines = [
        "| learner | " + " | ".join(f"K = {k}" for k in shots) + " | meta-fit s |",
        "| --- |" + " ---: |" * (len(shots) + 1),
    ]
    for label in order:
        own = [rows[label, k] for k in shots]
        if label == "bias":
            cells = [f"RMSE {row['rmse']:.4f}" for row in own]
        else:
            ends = ("diff_bias", "diff_bias_low", "diff_bias_high")
            cells = [interval(*(row[end] for end in ends), sign=True) for row in own]
        lines.append(f"| `{label}` | {' | '.join(cells)} | {short(own[0]['meta_fit_s'])} |")
    return "\n".join(lines)


def states_table() -> str:
    """Return, from results/reference/standard, each learner's RMSE at K = 5 in the four states."""
    table = pd.read_csv(ROOT / "results/reference/standard/leaderboard.csv")
    table = table[table["k_shot"] == 5]
    states = ["user-cold", "item-cold", "both-cold", "warm"]
    rows = {(row["label"], row["state"]): row for row in table.to_dict("records")}
    best = table[table["status"] == "ok"].groupby("state")["rmse"].min()
    labels = list(dict.fromkeys(table.sort_values(["state", "rmse"], key=lambda c: c.map(_by_state))["label"]))
    lines = ["| learner | " + " | ".join(f"`{s}`" for s in states) + " |", "| --- |" + " ---: |" * len(states)]
    for label in labels:
        cells = []
        for state in states:
            row = rows[label, state]
            if row["status"] != "ok":
                cells.append("–")
                continue
            low, high = row["diff_bias_low"], row["diff_bias_high"]
            mark = "" if label == "bias" else " +" if high < 0 else " −" if low > 0 else ""
            figure = fixed(row["rmse"], 4) + mark
            cells.append(f"**{figure}**" if row["rmse"] == best[state] else figure)
        name = f"*{label}*" if rows[label, states[0]]["learner"] in TRIVIAL else label
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_state(value):
    """Sort user-cold first: its order of rows is the table's."""
    return ("user-cold", "both-cold", "item-cold", "warm").index(value) if isinstance(value, str) else value


def curves_table() -> str:
    """Return, from results/reference/standard, meta-validation RMSE at the start, at its best and at the end."""
    curves = pd.read_csv(ROOT / "results/reference/standard/curves.csv")
    curves = curves[curves["state"] == "user-cold"]
    lines = [
        "| learner | start | best | at step | last | at step |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = []
    for learner, own in curves.groupby("learner"):
        found = []
        for _, curve in own.groupby("seed"):
            trained = curve[curve["step"] > 0]
            best, last = trained.loc[trained["validation_rmse"].idxmin()], curve.iloc[-1]
            start = curve[curve["step"] == 0]["validation_rmse"]
            found.append((start.mean(), best["validation_rmse"], best["step"], last["validation_rmse"], last["step"]))
        rows.append((learner, *pd.DataFrame(found).mean()))
    for learner, start, best, at, last, end in sorted(rows, key=lambda row: row[2]):
        first = "" if pd.isna(start) else f"{start:.4f}"
        lines.append(f"| `{learner}` | {first} | {best:.4f} | {at:.0f} | {last:.4f} | {end:.0f} |")
    return "\n".join(lines)


def l2l_table() -> str:
    """Return the two rows of results/reference/l2l that are the same algorithm."""
    table = pd.read_csv(ROOT / "results/reference/l2l/leaderboard.csv").set_index("label")
    lines = ["| learner | RMSE | meta-fit s |", "| --- | ---: | ---: |"]
    for label in ("maml-mf", "maml-mf-l2l", "bias"):
        lines.append(f"| `{label}` | {table.loc[label, 'rmse']:.6f} | {short(table.loc[label, 'meta_fit_s'])} |")
    return "\n".join(lines)


def coverage_table() -> str:
    """Return, from results/reference/coverage.csv, how often 95 % intervals hold the truth, by number of test users."""
    table = pd.read_csv(ROOT / "results/reference/coverage.csv")
    wide = table.pivot_table(index=["statistic", "method"], columns="users", values="coverage", sort=False)
    lines = [
        f"| statistic | method | {' | '.join(f'{users} users' for users in wide)} |",
        "| --- | --- |" + " ---: |" * wide.shape[1],
    ]
    for (statistic, method), row in wide.iterrows():
        lines.append(f"| {statistic} | {method} | {' | '.join(f'{100 * share:.1f} %' for share in row)} |")
    return "\n".join(lines)


BARS = (
    ("embed-ridge", "user-mean"),
    ("embed-ridge", "bias"),
    ("bert-meta", "user-mean"),
    ("bert-meta", "bias"),
    ("bert-meta", "embed-ridge"),
)


def pairs_table(suite: str, pairs: tuple[tuple[str, str], ...] = BARS) -> str:
    """Return paired differences of RMSE between rows of results/reference/SUITE, each K in a column."""
    results = load_results(ROOT / "results/reference" / suite)
    shots = sorted(results.cells["k_shot"].unique())
    lines = [
        "| difference of RMSE [95 %] | " + " | ".join(f"K = {k}" for k in shots) + " |",
        "| --- |" + " ---: |" * len(shots),
    ]
    for one, other in pairs:
        figures = paired_figures([_pair(results, k, other, one) for k in shots]).to_dict("records")
        ends = ("rmse_diff", "rmse_diff_low", "rmse_diff_high")
        cells = [interval(*(row[end] for end in ends), sign=True) for row in figures]
        lines.append(f"| `{one}` − `{other}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair(results: Results, k_shot: int, a: str, b: str) -> PairedScores:
    """Return the scores of two rows of a table on the episodes of all seeds."""
    cells, keys = results.cells, ["seed", "episode", "user"]
    sides = []
    for label in (a, b):
        own = cells[(cells["label"] == label) & (cells["k_shot"] == k_shot)][["cell", "seed"]]
        sides.append(results.scores.merge(own, on="cell").sort_values(keys, ignore_index=True))
    assert sides[0][keys].equals(sides[1][keys]), f"{a} and {b} were not run on the same episodes"
    columns = ("n", "se", "ae")
    return PairedScores(
        sides[0]["user"].to_numpy(), *({name: side[name].to_numpy() for name in columns} for side in sides)
    )


def ways_table(state: str) -> str:
    """Return, from results/reference/lm, each way of adapting at every K: the difference to bias, and what it costs."""
    table = pd.read_csv(ROOT / "results/reference/lm/leaderboard.csv")
    return _by_shots(table[table["state"] == state])


def suite_table(suite: str) -> str:
    """Return the same of a reference with one state."""
    return _by_shots(pd.read_csv(ROOT / "results/reference" / suite / "leaderboard.csv"))


def _by_shots(table: pd.DataFrame) -> str:
    shots = sorted(table["k_shot"].unique())
    rows = {(row["label"], row["k_shot"]): row for row in table.to_dict("records")}
    order = table[table["k_shot"] == shots[-1]].sort_values("rmse")["label"]  # rows without figures come last
    lines = [
        "| row | " + " | ".join(f"K = {k}: RMSE | − bias [95 %]" for k in shots) + " | meta-fit s | ms an episode |",
        "| --- |" + " ---: |" * (2 * len(shots) + 2),
    ]
    for label in order:
        own = [rows[label, k] for k in shots]
        cells = [f"*{label}*" if own[0]["learner"] in TRIVIAL else f"`{label}`"]
        for row in own:
            if row["status"] == "ok":
                difference = (row[f"diff_bias{end}"] for end in ("", "_low", "_high"))
                cells += [fixed(row["rmse"], 4), "" if label == "bias" else interval(*difference, sign=True)]
            else:
                cells += [row["status"], ""]
        last = own[-1]
        cells += [short(last["meta_fit_s"]), short(last["adapt_ms_p50"] + last["predict_ms"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


PAGES = {
    "README.md": {"quick": both_states_table},
    "docs/tables.md": {
        "states": states_table,
        "user-cold": lambda: quick_table("user-cold"),
        "both-cold": lambda: quick_table("both-cold"),
    },
    "docs/metrics.md": {"coverage": coverage_table},
    "docs/speed.md": {"perf": perf_table, "memory": memory_table},
    "docs/language_models.md": {
        "bars": lambda: suite_table("lm_bars"),
        "pairs": lambda: pairs_table("lm_bars"),
        "ways-user-cold": lambda: ways_table("user-cold"),
        "ways-both-cold": lambda: ways_table("both-cold"),
        "decoder": lambda: suite_table("lm_decoder"),
        "ablation": lambda: suite_table("lm_ablation"),
    },
    "docs/hybrid_gp.md": {
        f"{suite}-{state}": (lambda suite=suite, state=state: beside_best_table(suite, state))
        for suite in ("hybrid_gp", "hybrid_gp-ml-1m", "hybrid_gp-goodbooks", "hybrid_gp_ablation")
        for state in ("user-cold", "both-cold")
    },
    "docs/published/recbole-metarec.md": {"recbole": lambda: published_table("recbole-metarec-ml-100k")},
    "docs/published/clover.md": {
        name: functools.partial(published_table, name) for name in ("clover-ml-100k", "clover-book-crossing")
    },
    "docs/published/melu.md": {
        state: (lambda state=state: melu_table(state)) for state in ("user-cold", "item-cold", "both-cold")
    },
    "docs/published/tallrec.md": {"tallrec": tallrec_table},
    "docs/learners.md": {"shots": shots_table, "curves": curves_table, "l2l": l2l_table},
}


def filled(text: str, name_of_page: str) -> str:
    """Return a page with every table made anew."""
    for name, table in PAGES[name_of_page].items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n?<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{name_of_page} has no markers <!-- {name} --> and <!-- /{name} -->")
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table()}\n{match[2].lstrip()}", text)
    return text


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        new = filled(text, name)
        if "--check" not in sys.argv[1:]:
            page.write_text(new, encoding="utf-8")
        elif new != text:
            raise SystemExit(f"{name} is not what the committed results say: run python scripts/readme_tables.py")


if __name__ == "__main__":
    main()
