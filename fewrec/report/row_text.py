"""One row of a leaderboard in words: each figure with its interval, for who has a single method to look at."""

from __future__ import annotations

import re

import pandas as pd

from fewrec.report.leaderboard import tasks
from fewrec.report.numbers import interval, one_line, p_text


def row_lines(frame: pd.DataFrame, label: str) -> list[str]:
    """Return a line for each task of a leaderboard that has the row ``label``: errors, ranking, calibration, difference
    to bias.

    Each figure stands before its 95 % interval over users; p is that of the table, corrected by Holm.
    """
    ranking = [(name, f"nDCG@{name[4:]}") for name in frame.columns if re.fullmatch(r"ndcg\d+", name)]
    shown = [("rmse", "RMSE"), ("mae", "MAE"), *ranking, ("auc", "AUC"), ("nlpd", "NLPD"), ("coverage90", "90 % cover")]
    shown = [(name, head) for name, head in shown if name in frame]
    lines = []
    for (dataset, protocol, _, n_users, k_shot, n_query), rows in tasks(frame):
        for row in rows[rows["label"] == label].to_dict("records"):
            parts = [
                f"{head} {text}"
                for name, head in shown
                if (text := interval(row[name], row[f"{name}_low"], row[f"{name}_high"]))
            ]
            if text := interval(row["diff_bias"], row["diff_bias_low"], row["diff_bias_high"], sign=True):
                p = "" if pd.isna(row["p_bias"]) else f" ({p_text(row['p_bias'])})"
                parts.append(f"RMSE − bias {text}{p}")
            said = f"{label}, {dataset}, {protocol}, N={n_users}, K={k_shot}, Q={n_query}: {', '.join(parts)}"
            lines.append(one_line(said))
    return lines
