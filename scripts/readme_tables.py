"""Write the README's tables from the committed results, so that no figure in it is typed by hand.

python scripts/readme_tables.py rewrites the parts of README.md between the markers <!-- NAME --> and <!-- /NAME -->;
with --check it only says whether they are up to date.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from fewrec.report.leaderboard import TRIVIAL
from fewrec.report.numbers import fixed, interval, short

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


def perf_table() -> str:
    """Return the table of results/reference/perf.csv: fewrec beside its peers, medians of one run."""
    table = pd.read_csv(ROOT / "results/reference/perf.csv")
    lines = ["| what | fewrec | other | times as fast | note |", "| --- | ---: | ---: | ---: | --- |"]
    for row in table.to_dict("records"):
        ours, other = f"{short(row['ours_s'])} s", f"{row['other']}: {short(row['other_s'])} s"
        lines.append(f"| {row['benchmark']} | {ours} | {other} | {short(row['ratio'])} | {row['note']} |")
    return "\n".join(lines)


TABLES = {
    "user-cold": lambda: quick_table("user-cold"),
    "both-cold": lambda: quick_table("both-cold"),
    "perf": perf_table,
}


def filled(text: str) -> str:
    """Return the README with every table made anew."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n?<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no markers <!-- {name} --> and <!-- /{name} -->")
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table()}\n{match[2].lstrip()}", text)
    return text


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    new = filled(text)
    if "--check" in sys.argv[1:]:
        if new != text:
            raise SystemExit("README.md is not what the committed results say: run python scripts/readme_tables.py")
        return
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
