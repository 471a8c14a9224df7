"""Tables of clicks: judged by AUC, compared in AUC by the same resamples, without a column of RMSE; ratings as ever."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fewrec.metrics import per_user_scores
from fewrec.metrics.statistics import holm
from fewrec.report import leaderboard, load_results
from fewrec.report.comparison.compare import compare
from fewrec.report.comparison.text import TerminalComparison
from fewrec.report.leaderboard import CLICK_COLUMNS, COLUMNS, tasks
from fewrec.report.markdown import markdown
from fewrec.report.page_table import shown_columns, task_findings
from fewrec.report.ranks import task_ranks
from fewrec.report.render import csv_text, leaderboard_files, terminal_table
from fewrec.seeding import substream

EMPTY = ["rmse", "rmse_low", "rmse_high", "mae", "mae_low", "mae_high", "rmse_user", "mae_user",
         "diff_bias", "diff_bias_low", "diff_bias_high", "p_bias"]  # fmt: skip
REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "quick"
NOISE = {"item-popularity": 2.0, "mine": 0.5, "like-mine": 0.54, "bias": 1.0, "bad": 8.0}


def clicks_of(noise, *, seed=0, episodes=30, n_users=5, n_query=6, pool=120):
    """Return score rows of scores that are a 0/1 label plus noise of its own; some users have one label alone."""
    rng = np.random.default_rng(seed)
    user = np.concatenate([rng.choice(pool, n_users, replace=False) for _ in range(episodes)])
    label = (rng.random((len(user), n_query)) < 0.3).astype(float)
    score = label + noise * np.random.default_rng([seed, round(100 * noise)]).normal(size=label.shape)
    group = np.repeat(np.arange(len(user)), n_query)
    scores = per_user_scores(group, len(user), label.ravel(), score.ravel(), low=0, high=1, errors=False)
    return pd.DataFrame({"episode": np.repeat(np.arange(episodes), n_users), "user": user, **scores})


def mark_clicks(run, dataset="toy"):
    """Say in a run's manifest that a data set is of clicks."""
    file = run.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["datasets"].setdefault(dataset, {}).update(kind="clicks", scale=[0, 1], notes=["negatives: 7 sampled"])
    file.write_text(json.dumps(manifest))


@pytest.fixture
def click_run(new_run):
    run = new_run("clicks")
    for learner, noise in NOISE.items():
        run.cell(learner, clicks_of(noise), n_query=6)
    mark_clicks(run)
    return run


def table(run):
    return leaderboard(load_results(run.path)).set_index("label")


def paired_by_hand(a, b):
    """Return the difference in mean AUC of two frames, its percentile interval and its p-value, from the same draws."""
    both = a["auc"].notna() & b["auc"].notna()
    users, code = np.unique(a["user"], return_inverse=True)
    gap = np.bincount(code, np.where(both, a["auc"] - b["auc"], 0), len(users))
    count = np.bincount(code, both, len(users))
    drawn = substream(0, "bootstrap over users").integers(0, len(users), size=(2000, len(users)))
    gaps = gap[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    p = 2 * (1 + min((gaps <= 1e-12).sum(), (gaps >= -1e-12).sum())) / 2001
    return gap.sum() / count.sum(), *np.quantile(gaps, [0.025, 0.975]), min(p, 1)


@pytest.mark.parametrize(
    ("column", "p_column", "reference"),
    [("diff_best", "p_best", "mine"), ("diff_popularity", "p_popularity", "item-popularity")],
)
def test_differences_in_auc_are_those_of_a_plain_bootstrap_over_users(click_run, column, p_column, reference):
    frame = table(click_run)
    others = [name for name in NOISE if name != reference]
    by_hand = {name: paired_by_hand(clicks_of(NOISE[name]), clicks_of(NOISE[reference])) for name in others}
    for name, (difference, low, high, _) in by_hand.items():
        ours = frame.loc[name, [column, f"{column}_low", f"{column}_high"]].astype(float)
        np.testing.assert_allclose(ours, [difference, low, high], rtol=0, atol=1e-12)
    corrected = holm(np.array([p for *_, p in by_hand.values()]))
    np.testing.assert_allclose(frame.loc[others, p_column].astype(float), corrected, rtol=0, atol=1e-12)
    assert frame.loc[reference, column] == 0 and np.isnan(frame.loc[reference, p_column])


def test_the_highest_auc_stands_first_and_what_it_does_not_beat_is_a_tie(click_run):
    frame = table(click_run)
    assert frame.index.tolist() == ["mine", "like-mine", "bias", "item-popularity", "bad"]
    assert frame["auc"].is_monotonic_decreasing and (frame["diff_best"][1:] < 0).all()
    assert frame["tie"].tolist() == [0, 1, 0, 0, 0]


def test_columns_of_errors_are_empty_and_those_of_popularity_come_last(click_run):
    frame = table(click_run)
    assert frame[EMPTY].isna().all(axis=None) and frame[["auc", "skill", *CLICK_COLUMNS[:3]]].notna().all(axis=None)
    assert frame.columns.tolist()[-4:] == CLICK_COLUMNS


def test_skill_compares_with_popularity_where_both_have_an_auc(new_run):
    run = new_run()
    mine, popularity = clicks_of(0.5), clicks_of(2.0)
    run.cell("item-popularity", popularity[popularity["episode"] < 20], n_query=6, episodes=20)
    run.cell("mine", mine, n_query=6)
    common = mine["episode"] < 20
    expected = 1 - (1 - mine["auc"][common].mean()) / (1 - popularity["auc"][common].mean())
    assert table(run).loc["mine", "skill"] == pytest.approx(expected, abs=1e-12)


def test_without_popularity_there_is_neither_skill_nor_a_difference_to_it(new_run):
    run = new_run()
    for learner in ("mine", "bias"):
        run.cell(learner, clicks_of(NOISE[learner]), n_query=6)
    frame = table(run)
    assert frame[["skill", *CLICK_COLUMNS]].isna().all(axis=None) and frame.loc["bias", "diff_best"] < 0


def test_users_without_an_auc_leave_the_differences(new_run):
    run = new_run()
    mine, popularity = clicks_of(0.5), clicks_of(2.0)
    popularity["auc"] = popularity["auc"].where(popularity["user"] % 3 > 0)  # another third than those of one label
    run.cell("item-popularity", popularity, n_query=6)
    run.cell("mine", mine, n_query=6)
    defined = mine["auc"].notna() & popularity["auc"].notna()
    assert mine["auc"].isna().any()
    expected = mine["auc"][defined].mean() - popularity["auc"][defined].mean()
    frame = table(run)
    assert frame.loc["mine", "diff_popularity"] == pytest.approx(expected, abs=1e-12)
    assert frame.loc["mine", "auc"] == pytest.approx(mine["auc"].mean(), abs=1e-12)


def test_what_is_worse_than_popularity_is_said_and_scores_have_no_scale_to_leave(click_run):
    warnings = table(click_run)["warning"]
    worse = warnings.str.contains("worse than item-popularity")
    assert worse.to_dict() == {name: name == "bad" for name in warnings.index}
    assert not warnings.str.contains("worse than bias|outside").any()


def test_rows_are_ranked_by_the_users_mean_auc(click_run):
    results = load_results(click_run.path)
    frames = {name: clicks_of(noise).groupby("user")["auc"].mean() for name, noise in NOISE.items()}
    by_user = pd.DataFrame(frames).dropna().round(9)
    expected = by_user.rank(axis=1, ascending=False).mean()
    frame = results.leaderboard.set_index("label")
    for name in NOISE:
        assert frame.loc[name, "rank"] == pytest.approx(expected[name], abs=1e-9)
    ((task, _),) = tasks(results.cells)
    assert task_ranks(results, task).users == len(by_user) and frame.loc["mine", "rank_group"].startswith("a")


def test_the_manifest_says_the_kind_and_errors_of_clicks_are_no_figures(new_run, scores_of):
    run = new_run()
    for learner, noise in (("bias", 1.0), ("item-popularity", 2.0), ("mine", 0.5)):
        run.cell(learner, scores_of(noise))
    before = load_results(run.path)
    assert set(before.cells["kind"]) == {"ratings"} and before.leaderboard["rmse"].notna().all()
    assert before.leaderboard.columns.tolist() == COLUMNS
    mark_clicks(run)
    after = load_results(run.path)
    assert set(after.cells["kind"]) == {"clicks"} and after.scores[["se", "ae"]].isna().all(axis=None)
    assert after.leaderboard[EMPTY].isna().all(axis=None) and after.leaderboard["auc"].notna().all()


def shown(renderable, width):
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def test_the_terminal_begins_with_auc_and_keeps_it_where_the_room_is_short(click_run):
    frame = load_results(click_run.path).leaderboard
    wide, narrow = shown(terminal_table(frame), 200), shown(terminal_table(frame), 34)
    head = next(line for line in wide.splitlines() if line.startswith("learner"))
    assert head.split()[:5] == ["learner", "AUC", "[95", "%]", "AUC"] and "AUC − popularity" in head
    assert "RMSE" not in wide and "MAE" not in wide and "− bias" not in wide
    assert "AUC" in next(line for line in narrow.splitlines() if line.startswith("learner"))
    assert "intervals of AUC − popularity" in " ".join(narrow.split())


def test_markdown_has_the_columns_of_clicks_and_says_what_they_mean(click_run):
    results = load_results(click_run.path)
    text = markdown(results, results.leaderboard)
    assert "| learner | AUC [95 %] | AUC − item-popularity [95 %] | nDCG@5 [95 %] | skill |" in text
    assert "RMSE [95 %]" not in text and "the highest AUC among the rows" in text and "lowest RMSE" not in text
    assert "| **mine** | **0." in text and "Clicks: negatives: 7 sampled." in text


def test_ratings_and_clicks_in_one_folder_have_a_table_each_and_both_are_explained(click_run, scores_of):
    for learner, noise in (("bias", 1.0), ("mine", 0.5)):
        click_run.cell(learner, scores_of(noise), dataset="rated")
    results = load_results(click_run.path)
    frame = results.leaderboard
    rated, clicked = (frame[frame["dataset"] == name] for name in ("rated", "toy"))
    assert rated["rmse"].notna().all() and rated[CLICK_COLUMNS].isna().all(axis=None)
    assert clicked["rmse"].isna().all() and clicked["diff_popularity"].notna().all()
    text = markdown(results, frame)
    assert "the lowest RMSE" in text and "In tables of clicks:" in text and "the highest AUC" in text
    assert "| learner | RMSE [95 %]" in text and "| learner | AUC [95 %]" in text
    assert csv_text(frame).splitlines()[0].endswith(",".join(CLICK_COLUMNS))


def test_the_page_puts_auc_first_and_tests_against_popularity(click_run):
    frame = load_results(click_run.path).leaderboard
    names = [column.name for column in shown_columns(frame)]
    assert names[:2] == ["auc", "diff_popularity"] and not {"rmse", "mae", "diff_bias"} & set(names)
    (finding,) = task_findings(frame)
    assert (finding["best"], finding["measure"], finding["losers"]) == ("mine", "AUC", ["bad"])


def test_two_runs_of_clicks_are_compared_in_auc(click_run, new_run):
    other = new_run("other")
    other.cell("mine", clicks_of(3.0), n_query=6)
    mark_clicks(other)
    found = compare(click_run.path, other.path)
    mine = found.rows.set_index("label").loc["mine"]
    difference, low, high, _ = paired_by_hand(clicks_of(3.0), clicks_of(0.5))
    ours = mine[["auc_diff", "auc_diff_low", "auc_diff_high"]].astype(float)
    np.testing.assert_allclose(ours, [difference, low, high], rtol=0, atol=1e-12)
    assert mine["verdict"] == "B worse" and "rmse_diff" not in found.rows
    assert "AUC A" in shown(TerminalComparison(found), 160)


def test_a_task_without_any_auc_is_still_of_clicks(new_run):
    run = new_run()
    run.cell("mine", clicks_of(0.5).assign(auc=np.nan), n_query=6)
    mark_clicks(run)
    results = load_results(run.path)
    text = markdown(results, results.leaderboard)
    assert "RMSE [95 %]" not in text and "AUC undefined for 100 % of the users" in text


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="results/reference is in the repository alone")
def test_tables_of_ratings_keep_their_bytes():
    results = load_results(REFERENCE)
    for name, content in leaderboard_files(results, results.leaderboard).items():
        assert (REFERENCE / name).read_bytes() == content, name
