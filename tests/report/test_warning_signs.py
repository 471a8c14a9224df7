"""Every warning fires where it should, and stays silent where it should."""

import numpy as np
import pandas as pd
import pytest

from fewrec.report import leaderboard, load_results
from fewrec.report.naming import grouped_signs

TUNED = {"kind": "tuned", "budget": 20, "trials": 20, "method": "tpe", "seeds": [0, 1], "dataset": "toy", "suite": "s"}


def warning_of(run, label="mine"):
    frame = leaderboard(load_results(run.path))
    (said,) = frame.loc[frame["label"] == label, "warning"]
    return said


@pytest.fixture
def warning(new_run, scores_of):
    """The warning of a row ``mine`` with the given scores, beside ``bias`` and others."""

    def of(scores, **others):
        run = new_run()
        run.cell("bias", scores_of(1.0))
        for name, frame in others.items():
            run.cell(name, frame)
        run.cell("mine", scores)
        return warning_of(run)

    return of


def test_a_sound_row_has_no_warning(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0, episodes=60))
    run.cell("mine", scores_of(0.9, episodes=60).assign(pred_min=1.5, pred_max=4.5), tuning={"kind": "default"})
    assert warning_of(run) == ""


def test_constant_predictions_are_warned_of(warning, scores_of):
    constant = scores_of(1.0).assign(pred_mean=3.5, pred_min=3.5, pred_max=3.5)
    assert "constant predictions" in warning(constant)


def test_one_constant_for_each_user_is_warned_of(warning, scores_of):
    frame = scores_of(1.0)
    said = warning(frame.assign(pred_min=frame["pred_mean"], pred_max=frame["pred_mean"]))
    assert "one constant for each user" in said and "constant predictions" not in said


def test_predictions_that_differ_for_one_user_are_no_constant(warning, scores_of):
    frame = scores_of(1.0)
    constant = frame.assign(pred_min=3.5, pred_max=3.5)
    constant.loc[7, "pred_max"] = 3.6
    assert "constant" not in warning(constant)


def test_identical_rows_are_warned_of(warning, scores_of):
    frame = scores_of(0.8)
    assert "identical to twin" in warning(frame, twin=frame.assign(se=frame["se"] + 1e-12))


def test_rows_that_agree_to_four_digits_are_not_called_identical(warning, scores_of):
    frame = scores_of(0.8)
    assert "identical" not in warning(frame, twin=frame.assign(pred_mean=frame["pred_mean"] + 1e-6))


def test_predictions_outside_the_scale_are_warned_of(warning, scores_of):
    assert "predictions outside 1..5 for 100 % of the users" in warning(scores_of(1.0, offset=20.0))


def test_a_few_predictions_over_the_edge_are_not_warned_of(warning, scores_of):
    frame = scores_of(0.9).assign(pred_min=1.5, pred_max=4.5)
    frame.loc[:9, "pred_max"] = 5.2
    assert "outside" not in warning(frame)


def test_a_row_that_is_surely_worse_than_bias_is_warned_of(warning, scores_of):
    assert "worse than bias" in warning(scores_of(1.3))


def test_a_row_that_is_better_or_not_surely_worse_is_not_called_worse(new_run, scores_of):
    run = new_run()
    base = scores_of(1.0)
    run.cell("bias", base)
    run.cell("mine", scores_of(0.9))
    noise = np.random.default_rng(0).normal(size=len(base))
    run.cell("like-bias", base.assign(se=base["se"] + noise - noise.mean() + 0.01))
    assert "worse" not in warning_of(run) and "worse" not in warning_of(run, "like-bias")


@pytest.mark.parametrize(("pool", "said"), [(40, "only 40 test users"), (99, "only 99 test users"), (100, "")])
def test_fewer_than_a_hundred_test_users_are_warned_of(new_run, scores_of, pool, said):
    run = new_run()
    run.cell("mine", scores_of(1.0, pool=pool, episodes=200).assign(pred_min=1.5, pred_max=4.5))
    assert warning_of(run) == said


def undefined(frame, share, *names):
    rows = int(round(share * len(frame)))
    return frame.assign(**{name: np.r_[np.full(rows, np.nan), frame[name].to_numpy()[rows:]] for name in names})


def test_ranking_metrics_without_a_value_for_many_users_are_warned_of(warning, scores_of):
    frame = scores_of(0.9)
    assert "AUC and nDCG@5 undefined for 12 % of the users" in warning(undefined(frame, 0.12, "auc", "ndcg5"))


def test_each_metric_has_its_own_share(warning, scores_of):
    said = warning(undefined(undefined(scores_of(0.9), 0.2, "auc"), 0.06, "ndcg5"))
    assert "AUC undefined for 20 % of the users" in said and "nDCG@5 undefined for 6 % of the users" in said


def test_metrics_undefined_for_five_percent_are_not_warned_of(new_run, scores_of):
    run = new_run()
    frame = scores_of(0.9, episodes=40)  # 200 rows
    run.cell("mine", undefined(frame, 0.05, "auc", "ndcg5"))
    run.cell("more", undefined(frame, 0.055, "auc", "ndcg5"))
    assert "undefined" not in warning_of(run) and "undefined" in warning_of(run, "more")


def test_an_ndcg_that_was_not_computed_is_not_called_undefined(warning, scores_of):
    assert "undefined" not in warning(undefined(scores_of(0.9), 1.0, "ndcg5"))


def test_an_auc_that_no_user_has_is_undefined_for_all(new_run, scores_of):
    run = new_run()
    run.cell("mine", undefined(scores_of(0.9), 1.0, "auc", "ndcg5"))
    assert "AUC undefined for 100 % of the users" in warning_of(run) and "nDCG" not in warning_of(run)


def tuned_run(run, scores_of, seeds, **tuning):
    for seed in seeds:
        run.cell("mine", scores_of(0.9, seed=seed), seed=seed, tuning=TUNED | tuning)
    return warning_of(run)


def test_a_tuned_row_on_the_seeds_that_it_was_tuned_on_is_not_suspect(new_run, scores_of):
    assert "tuning" not in tuned_run(new_run(), scores_of, (0, 1))


def test_a_tuned_row_on_other_seeds_is_suspect_and_they_are_named(new_run, scores_of):
    said = tuned_run(new_run(), scores_of, (0, 1, 3, 2))
    assert "meta-test used for tuning: test users of seeds 2, 3 may be among those that it was tuned on" in said


def test_a_row_tuned_on_another_dataset_is_not_suspect(new_run, scores_of):
    assert "tuning" not in tuned_run(new_run(), scores_of, (5,), dataset="elsewhere")


def configurations(run, scores_of, **tuning_of):
    """Write three configurations of one learner beside bias; the first is the best of them."""
    run.cell("bias", scores_of(1.0))
    for rate, noise in ((1, 0.8), (2, 0.9), (3, 0.95)):
        label = f"mine[rate={rate}]"
        run.cell("mine", scores_of(noise), label=label, config={"rate": rate}, tuning=tuning_of.get(f"rate{rate}"))


def test_the_best_of_several_hand_set_configurations_is_suspect(new_run, scores_of):
    run, by_hand = new_run(), {"kind": "set"}
    configurations(run, scores_of, rate1=by_hand, rate2=by_hand, rate3={"kind": "default"})
    said = "meta-test used for tuning: set by hand, and the best of 3 configurations of mine in this table"
    assert said in warning_of(run, "mine[rate=1]")
    assert "tuning" not in warning_of(run, "mine[rate=2]") and "tuning" not in warning_of(run, "mine[rate=3]")


@pytest.mark.parametrize("kind", [None, {"kind": "default"}, TUNED])
def test_the_best_configuration_is_not_suspect_where_it_was_not_set_by_hand(new_run, scores_of, kind):
    run = new_run()
    configurations(run, scores_of, rate1=kind, rate2={"kind": "set"}, rate3={"kind": "set"})
    assert all("tuning" not in warning_of(run, f"mine[rate={rate}]") for rate in (1, 2, 3))


def test_a_hand_set_row_that_is_the_only_one_of_its_learner_is_not_suspect(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    run.cell("mine", scores_of(0.8), config={"rate": 1}, tuning={"kind": "set"})
    assert "tuning" not in warning_of(run)


def replaced(run, scores_of, set_aside, tuning, rates=(1, 2)):
    for rate in rates:
        set_aside(run.cell("mine", scores_of(1.0), config={"rate": rate}, tuning={"kind": "set"}))
    run.cell("mine", scores_of(0.9), config={"rate": 3}, tuning=tuning)
    return warning_of(run)


def test_configurations_that_stood_in_the_row_before_make_it_suspect(new_run, scores_of, set_aside):
    said = replaced(new_run(), scores_of, set_aside, {"kind": "set"})
    assert "meta-test used for tuning: 2 other configurations of this row were tested before" in said
    said = replaced(new_run("one"), scores_of, set_aside, {"kind": "default"}, rates=(1,))
    assert "1 other configuration of this row was tested before" in said


def test_a_tuned_row_is_not_suspect_for_what_it_replaced(new_run, scores_of, set_aside):
    assert "tuning" not in replaced(new_run(), scores_of, set_aside, TUNED)


def test_the_same_configuration_run_again_with_other_code_is_not_suspect(new_run, scores_of, set_aside):
    assert "tuning" not in replaced(new_run(), scores_of, set_aside, {"kind": "set"}, rates=(3,))


def test_signs_that_rows_share_are_said_once():
    rows = pd.DataFrame(
        {
            "label": ["a", "b, c", "d"],
            "warning": [
                "only 9 test users; identical to b, c", "only 9 test users; identical to a; worse than bias",
                "only 9 test users",
            ],
        }
    )  # fmt: skip
    assert grouped_signs(rows) == [
        ("only 9 test users", "all rows"), ("identical", "a, b, c"), ("worse than bias", "b, c"),
    ]  # fmt: skip
    assert grouped_signs(rows[:1]) == [("only 9 test users", "a"), ("identical to b, c", "a")]


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (7.9, "intervals too narrow: those of 90 % hold 79.0 % of the ratings"),
        (9.8, "intervals too wide: those of 90 % hold 98.0 % of the ratings"),
        (8.05, ""), (9.0, ""), (9.65, ""),
    ],
)  # fmt: skip
def test_intervals_that_hold_too_few_or_too_many_ratings_are_warned_of(warning, scores_of, within, said):
    scores = scores_of(0.9).assign(log_density=-14.0, within90=within)
    found = [sign for sign in warning(scores).split("; ") if "intervals" in sign]
    assert found == [said] * bool(said)
