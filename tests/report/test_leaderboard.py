"""The leaderboard's figures by hand and against plain pandas, and what it does about seeds, statuses and oddities."""

import shutil
import time

import numpy as np
import pandas as pd
import pytest

from fewrec.errors import DataError
from fewrec.report import leaderboard, load_results, ranks
from fewrec.report.figures import _unique_rows
from fewrec.report.leaderboard import COLUMNS, tasks
from fewrec.report.results import looked_up


def row(frame, label, **where):
    mine = frame[frame["label"] == label]
    for name, value in where.items():
        mine = mine[mine[name] == value]
    assert len(mine) == 1
    return mine.iloc[0]


def table(run):
    return leaderboard(load_results(run.path))


HAND = pd.DataFrame(
    {
        "episode": [0, 0, 1, 1], "user": [7, 8, 7, 9], "n": [10, 10, 10, 10], "se": [10.0, 20.0, 6.0, 4.0],
        "ae": [8.0, 12.0, 7.0, 5.0], "ndcg5": [0.5, 1.0, np.nan, 0.75], "auc": [0.5, 1.0, np.nan, 0.6],
        "pred_mean": [3.0, 3.0, 2.0, 4.0], "pred_min": [2.0, 2.5, 1.0, 3.0], "pred_max": [4.0, 3.5, 3.0, 5.0],
    }
)  # fmt: skip


def test_the_figures_of_a_tiny_table_are_those_worked_out_by_hand(new_run):
    run = new_run()
    run.cell("bias", HAND.assign(se=[20.0, 20.0, 10.0, 10.0]))
    run.cell("mine", HAND)
    mine = row(table(run), "mine")
    assert mine["rmse"] == pytest.approx(1.0, abs=1e-12)  # sqrt(40 / 40)
    assert mine["mae"] == pytest.approx(32 / 40, abs=1e-12)
    assert mine["ndcg5"] == pytest.approx(2.25 / 3, abs=1e-12)
    assert mine["auc"] == pytest.approx(0.7, abs=1e-12)
    assert mine["skill"] == pytest.approx(1 - 40 / 60, abs=1e-12)
    assert mine["diff_bias"] == pytest.approx(1 - np.sqrt(1.5), abs=1e-12)
    assert mine["rmse_user"] == pytest.approx(np.sqrt([1.0, 2.0, 0.6, 0.4]).mean(), abs=1e-12)
    assert mine["mae_user"] == pytest.approx(0.8, abs=1e-12)
    assert (mine["episodes"], mine["users"], mine["undefined_users"], mine["seeds"]) == (2, 3, 1, 1)
    assert (mine["adapt_ms_p50"], mine["adapt_ms_p95"], mine["predict_ms"]) == (2.0, pytest.approx(2.9), 0.6)
    assert (mine["meta_fit_s"], mine["episodes_per_s"], mine["peak_mb"], mine["trainable_params"]) == (2, 100, 300, 12)
    assert mine["diff_best"] == 0 and np.isnan(mine["p_best"])


def test_the_columns_come_in_the_promised_order(small_run):
    frame = table(small_run)
    assert list(frame.columns) == COLUMNS
    assert COLUMNS[:32] == (
        "dataset,protocol,state,n_users,k_shot,n_query,seeds,learner,label,status,reason,episodes,users,rmse,rmse_low,"
        "rmse_high,mae,mae_low,mae_high,ndcg5,auc,skill,diff_bias,diff_bias_low,diff_bias_high,meta_fit_s,adapt_ms_p50,"
        "adapt_ms_p95,predict_ms,episodes_per_s,peak_mb,trainable_params"
    ).split(",")


def test_seeds_are_pooled_over_all_their_ratings(small_run, scores_of):
    better = row(table(small_run), "better", k_shot=5)
    pooled = pd.concat([scores_of(0.9, seed=0), scores_of(0.9, seed=1)])
    assert better["rmse"] == pytest.approx(np.sqrt(pooled["se"].sum() / pooled["n"].sum()), abs=1e-12)
    assert better["auc"] == pytest.approx(pooled["auc"].mean(), abs=1e-12)
    assert (better["seeds"], better["episodes"], better["users"]) == (2, 60, pooled["user"].nunique())


def test_the_paired_interval_agrees_with_a_plain_bootstrap_over_users(new_run, scores_of):
    run = new_run()
    a, b = scores_of(0.9), scores_of(1.0)
    run.cell("mine", a)
    run.cell("bias", b)
    sums = pd.DataFrame({"user": a["user"], "a": a["se"], "b": b["se"], "n": a["n"]}).groupby("user").sum().to_numpy()
    rng = np.random.default_rng(1)
    draws = [sums[rng.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(4000)]
    differences = [np.sqrt(x / n) - np.sqrt(y / n) for x, y, n in draws]
    low, high = np.quantile(differences, [0.025, 0.975])
    mine = row(table(run), "mine")
    ours = [mine["diff_bias_low"], mine["diff_bias_high"]]
    np.testing.assert_allclose(ours, [low, high], rtol=0, atol=0.1 * (high - low))
    assert high - low < 0.3 * (mine["rmse_high"] - mine["rmse_low"])  # pairing is what makes it narrow
    assert mine["rmse_low"] < mine["rmse"] < mine["rmse_high"] and mine["auc_low"] < mine["auc"] < mine["auc_high"]


def test_bias_differs_from_itself_by_nothing(small_run):
    bias = row(table(small_run), "bias", k_shot=5)
    for name in ("diff_bias", "diff_bias_low", "diff_bias_high", "skill"):
        assert bias[name] == pytest.approx(0, abs=1e-12)


def test_rows_are_sorted_by_task_then_rmse_and_rows_without_figures_come_last(small_run):
    frame = table(small_run)
    assert frame["k_shot"].tolist() == [5] * 5 + [10] * 3
    assert frame["label"].tolist() == ["better", "bias", "worse", "broken", "needs-text", "better", "bias", "worse"]


def test_the_order_of_folders_does_not_matter(small_run, monkeypatch, tmp_path):
    from pathlib import Path

    before = table(small_run)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(sorted(listing(self))))
    moved = tmp_path / "elsewhere"
    shutil.copytree(small_run.path, moved)
    pd.testing.assert_frame_equal(leaderboard(load_results(moved)), before)


def test_the_best_row_is_tested_against_all_others_with_holms_correction(small_run):
    frame = table(small_run)
    frame = frame[(frame["k_shot"] == 5) & (frame["status"] == "ok")].set_index("label")
    assert frame.loc["better", "diff_best"] == 0
    assert frame.loc["bias", "diff_best"] == pytest.approx(frame.loc["bias", "rmse"] - frame.loc["better", "rmse"])
    assert frame.loc[["bias", "worse"], "p_best"].tolist() == pytest.approx([2 * 2 / 2001] * 2)


def test_every_row_is_tested_against_bias_with_holms_correction(small_run):
    frame = table(small_run)
    frame = frame[(frame["k_shot"] == 5) & (frame["status"] == "ok")].set_index("label")
    assert frame.loc[["better", "worse"], "p_bias"].tolist() == pytest.approx([2 * 2 / 2001] * 2)
    assert np.isnan(frame.loc["bias", "p_bias"])


def test_a_tie_is_a_row_whose_corrected_p_is_at_least_five_percent(new_run, scores_of):
    run = new_run()
    best = scores_of(0.9)
    run.cell("bias", scores_of(1.0))
    run.cell("mine", best)
    better = np.arange(len(best)) % 2 == 0  # for every other user
    run.cell("like-mine", best.assign(se=best["se"] + np.where(better, -0.45, 0.5)))
    frame = table(run).set_index("label")
    assert frame["tie"].to_dict() == {"mine": 0, "like-mine": 1, "bias": 0}
    assert frame.loc["like-mine", "p_best"] >= 0.05 > frame.loc["bias", "p_best"]
    assert frame.loc["like-mine", "diff_best_low"] < 0 < frame.loc["like-mine", "diff_best_high"]


def test_after_the_correction_an_interval_without_zero_can_be_a_tie(new_run, scores_of):
    run = new_run()
    best = scores_of(0.9)
    run.cell("mine", best)
    noise = np.random.default_rng(1).normal(size=len(best))
    for i in range(12):
        shifted = noise - noise.mean() + 2.3 * noise.std() / np.sqrt(len(best))  # about p = .02 before the correction
        run.cell(f"other-{i}", best.assign(se=best["se"] + 0.3 * shifted))
    others = table(run).query("label != 'mine'")
    assert (others["diff_best_low"] > 0).all() and (others["p_best"] >= 0.05).all() and (others["tie"] == 1).all()


def test_rows_without_figures_are_neither_ties_nor_ranked(small_run):
    failed = row(table(small_run), "broken")
    assert failed[["tie", "p_best", "p_bias", "rank"]].isna().all() and failed["rank_group"] == ""


def test_many_rows_get_samples_enough_to_be_told_apart_after_the_correction(new_run, scores_of):
    run = new_run()
    run.cell("mine", scores_of(0.2))
    for i in range(60):
        run.cell(f"other-{i}", scores_of(1 + i / 100))
    others = table(run).query("label != 'mine'")
    assert (others["p_best"] < 0.03).all() and (others["tie"] == 0).all()


def test_ranks_and_groups_stand_in_the_table(small_run):
    frame = table(small_run)
    frame = frame[(frame["k_shot"] == 5) & (frame["status"] == "ok")].set_index("label")
    assert frame["rank"].to_dict() == {"better": 1, "bias": 2, "worse": 3}  # the same errors, times .9, 1 and 1.2
    assert frame["rank_group"].to_dict() == {"better": "a", "bias": "b", "worse": "c"}


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (None, ""),
        ({"kind": "default"}, "default"),
        ({"kind": "set"}, "set"),
        ({"kind": "tuned", "budget": 20, "trials": 20}, "tuned, 20 trials"),
        ({"kind": "tuned", "budget": 20, "trials": 12}, "tuned, 12 of 20 trials"),
    ],
)
def test_a_row_says_where_its_options_come_from(new_run, scores_of, tuning, said):
    run = new_run()
    for seed in (0, 1):
        run.cell("mine", scores_of(1.0, seed=seed), seed=seed, tuning=tuning)
    assert row(table(run), "mine")["tuning"] == said


def test_bca_intervals_are_others_around_the_same_figures(small_run):
    results = load_results(small_run.path)
    percentile, bca = leaderboard(results), leaderboard(results, "bca")
    assert (percentile.attrs["interval"], bca.attrs["interval"]) == ("percentile", "bca")
    ends = [name for name in COLUMNS if name.endswith(("_low", "_high"))]
    pd.testing.assert_frame_equal(bca.drop(columns=ends), percentile.drop(columns=ends))
    scored = bca["status"] == "ok"
    width = (percentile["rmse_high"] - percentile["rmse_low"])[scored]
    moved = (bca["rmse_high"] - percentile["rmse_high"])[scored].abs()
    assert (moved > 0).all() and (moved < 0.1 * width).all()
    assert (bca.loc[bca["label"] == "bias", ["diff_bias_low", "diff_bias_high"]] == 0).all(axis=None)


def test_another_kind_of_interval_is_refused(small_run):
    with pytest.raises(ValueError, match="'normal' is none of percentile, bca"):
        leaderboard(load_results(small_run.path), "normal")


def test_without_bias_its_columns_are_empty(new_run, scores_of):
    run = new_run()
    run.cell("mine", scores_of(1.0))
    mine = row(table(run), "mine")
    assert mine[["skill", "diff_bias", "diff_bias_low", "diff_bias_high"]].isna().all()
    assert np.isfinite(mine["rmse"])


def test_a_failed_seed_takes_the_figures_of_its_row(new_run, scores_of):
    run = new_run()
    for seed in (0, 1, 2):
        run.cell("bias", scores_of(1.0, seed=seed), seed=seed)
    run.cell("mine", scores_of(1.0, seed=0), seed=0)
    run.cell("mine", seed=1, status="timeout", reason="not finished within 5 s", episodes=30)
    run.cell("mine", seed=2, status="failed", reason="it returned NaN", episodes=30)
    mine = row(table(run), "mine")
    assert mine["status"] == "failed"
    assert mine["reason"] == "seed 1 (timeout): not finished within 5 s; seed 2: it returned NaN"
    assert mine[["rmse", "auc", "diff_bias", "episodes", "users"]].isna().all() and mine["seeds"] == 3


def test_one_reason_shared_by_all_seeds_is_said_once(small_run):
    said = row(table(small_run), "needs-text")
    assert (said["status"], said["reason"]) == ("not applicable", "toy has no item text")


def test_a_cell_that_lacks_episodes_is_incomplete_and_has_no_figures(new_run, scores_of):
    run = new_run()
    run.cell("mine", scores_of(1.0, episodes=20), episodes=40)
    mine = row(table(run), "mine")
    assert mine["status"] == "incomplete" and mine["reason"].startswith("20 of 40 episodes") and np.isnan(mine["rmse"])


def test_a_row_with_fewer_seeds_says_so_and_is_compared_on_the_common_ones(new_run, scores_of):
    run = new_run()
    for seed in (0, 1, 2):
        run.cell("bias", scores_of(1.0, seed=seed), seed=seed)
    run.cell("mine", scores_of(0.2, seed=1), seed=1)
    frame = table(run)
    mine = row(frame, "mine")
    a, b = scores_of(0.2, seed=1), scores_of(1.0, seed=1)
    assert "only seed 1, other rows have 0, 1, 2" in mine["warning"]
    assert mine["diff_bias"] == pytest.approx(np.sqrt(a["se"].mean() / 10) - np.sqrt(b["se"].mean() / 10), abs=1e-12)
    assert mine["skill"] == pytest.approx(1 - a["se"].sum() / b["se"].sum(), abs=1e-12)
    assert row(frame, "bias")["diff_best"] == 0  # a row of one seed can't be the best of three


def test_where_bias_lacks_seeds_differences_are_those_on_its_own(new_run, scores_of):
    run = new_run()
    for seed in (0, 1, 2):
        run.cell("mine", scores_of(0.5 + 0.2 * seed, seed=seed), seed=seed)
    run.cell("bias", scores_of(1.0, seed=1), seed=1)
    mine = row(table(run), "mine")
    a, b = scores_of(0.7, seed=1), scores_of(1.0, seed=1)
    assert mine["diff_bias"] == pytest.approx(np.sqrt(a["se"].mean() / 10) - np.sqrt(b["se"].mean() / 10), abs=1e-12)
    assert mine["skill"] == pytest.approx(1 - a["se"].sum() / b["se"].sum(), abs=1e-12)


def test_two_configurations_of_a_learner_are_two_rows(new_run, scores_of):
    run = new_run()
    run.cell("mine", scores_of(1.0), config={"rate": 0.1, "epochs": 3})
    run.cell("mine", scores_of(0.9), config={"rate": 0.2, "epochs": 3})
    assert table(run)["label"].tolist() == ["mine (rate=0.2)", "mine (rate=0.1)"]


def test_protocols_are_named_by_what_is_not_the_default(new_run, scores_of):
    run = new_run()
    for protocol in ({}, {"order": "time"}, {"state": "both-cold", "item_shots": 3}, {"user_shares": [0.8, 0.1, 0.1]}):
        run.cell("bias", scores_of(1.0), protocol=protocol)
    assert table(run)["protocol"].tolist() == [
        "user-cold", "user-cold, order=time", "user-cold, user_shares=0.8/0.1/0.1", "both-cold, item_shots=3",
    ]  # fmt: skip


def test_k_max_is_named_where_it_tells_two_protocols_apart(new_run, scores_of):
    run = new_run()
    for k_max in (5, 10):
        run.cell("bias", scores_of(1.0), protocol={"k_max": k_max})
    assert table(run)["protocol"].tolist() == ["user-cold, k_max=10", "user-cold, k_max=5"]


def test_the_rest_as_k_stands_behind_the_numbers(new_run, scores_of):
    run = new_run()
    for k in ("rest", 10, 5):
        run.cell("bias", scores_of(1.0), k_shot=k)
    assert table(run)["k_shot"].tolist() == [5, 10, "rest"]


def test_two_cells_that_claim_one_place_are_refused(new_run, scores_of):
    run = new_run()
    run.cell("mine", scores_of(1.0))
    twin = run.cell("mine", scores_of(1.0), protocol={"support_items": None})
    with pytest.raises(DataError, match=f"{twin.name}.* are all 'mine' with seed 0"):
        table(run)


def test_clicks_without_squared_errors_have_auc_and_skill_of_auc(new_run, scores_of):
    run = new_run()
    run.cell("item-popularity", scores_of(2.0).drop(columns=["se", "ae", "ndcg5"]))
    run.cell("mine", scores_of(0.5).drop(columns=["se", "ae", "ndcg5"]))
    frame = table(run)
    mine, popularity = row(frame, "mine"), row(frame, "item-popularity")
    assert frame["label"].tolist() == ["mine", "item-popularity"] and frame["rmse"].isna().all()
    assert mine["skill"] == pytest.approx(1 - (1 - mine["auc"]) / (1 - popularity["auc"]))


def test_an_ndcg_at_another_k_has_columns_of_its_own(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0).rename(columns={"ndcg5": "ndcg3"}), ndcg_at=3)
    bias = row(table(run), "bias")
    assert np.isnan(bias["ndcg5"]) and bias["ndcg3_low"] < bias["ndcg3"] < bias["ndcg3_high"]


def test_a_table_of_twenty_learners_and_six_tasks_takes_a_second(new_run, scores_of):
    run = new_run()
    for k in range(6):
        for i in range(20):
            run.cell("bias" if i == 0 else f"learner-{i}", scores_of(1 + i / 50, episodes=40), k_shot=k)
    results = load_results(run.path)
    start = time.perf_counter()
    assert len(leaderboard(results)) == 120
    assert time.perf_counter() - start < 5  # about half a second alone on one core


def test_keys_are_told_apart_as_numpy_tells_rows_apart_packed_or_not():
    rng = np.random.default_rng(0)
    for low, high in ((0, 5), (-3, 40), (-(2**40), 2**40)):  # the last don't fit into one number
        keys = rng.integers(low, high, (500, 3))
        keys = np.concatenate([keys, keys[:100]])
        unique, code = _unique_rows(keys)
        expected, expected_code = np.unique(keys, axis=0, return_inverse=True)
        assert np.array_equal(unique, expected) and np.array_equal(code, expected_code.ravel())
    assert [len(part) for part in _unique_rows(np.zeros((0, 3), np.int64))] == [0, 0]


def test_names_are_looked_up_as_pandas_maps_them():
    names = pd.Series(np.random.default_rng(0).choice(["a", "b", "c"], 100))
    values = {"a": 3, "b": 1, "c": 2, "unused": 9}
    assert looked_up(names, values).tolist() == names.map(values).tolist()
    assert looked_up(names.iloc[:0], values).tolist() == []


def test_ranks_of_a_task_are_computed_once_for_all_forms_of_a_table(small_run, monkeypatch):
    results = load_results(small_run.path)
    task, _ = next(tasks(results.cells))
    first = ranks.task_ranks(results, task)
    monkeypatch.setattr(ranks, "rank_rows", None)
    assert ranks.task_ranks(results, task) is first


def test_rows_are_told_apart_whatever_their_numbers_are():
    from fewrec.report.figures import _unique_rows

    ends = np.iinfo(np.int64)
    keys = np.array([[ends.max, 0, 1], [ends.min, 0, 1], [0, ends.max, 1], [ends.max, 0, 1]])
    unique, code = _unique_rows(keys)
    assert unique.tolist() == [keys[1].tolist(), keys[2].tolist(), keys[0].tolist()] and code.tolist() == [2, 0, 1, 2]
