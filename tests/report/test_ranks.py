"""Mean ranks, Friedman's and Nemenyi's tests against Demšar's tables and SciPy, and the groups that they give."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, rankdata

from fewrec.report import leaderboard, load_results
from fewrec.report.leaderboard import tasks
from fewrec.report.ranks import RankFigures, critical_difference, groups_within, nemenyi_quantile, task_ranks

DEMSAR_5A = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


def ranks_of(run):
    results = load_results(run.path)
    task, _ = next(tasks(results.cells))
    return task_ranks(results, task)


@pytest.mark.parametrize(("k", "q"), DEMSAR_5A.items())
def test_critical_values_are_those_of_demsar_table_5a(k, q):
    assert nemenyi_quantile(k) == pytest.approx(q, abs=0.0011)  # his last digit is not always rounded to nearest


def test_the_critical_difference_is_that_of_demsars_example():
    # section 3.2.2: four classifiers, 14 data sets, CD = 2.569 sqrt(4 5 / (6 14)) = 1.25
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_mean_ranks_and_friedmans_p_agree_with_scipy_on_random_errors(new_run, scores_of):
    run, rng = new_run(), np.random.default_rng(0)
    base = scores_of(1.0, episodes=60)
    frames = {}
    for name in ("a", "b", "c", "d"):
        frames[name] = base.assign(se=rng.integers(1, 5, len(base)).astype(float))  # with many ties
        run.cell(name, frames[name])
    ranks = ranks_of(run)
    errors = pd.DataFrame({n: f.groupby("user")["se"].sum() / f.groupby("user")["n"].sum() for n, f in frames.items()})
    expected = pd.Series(rankdata(errors, axis=1).mean(axis=0), index=list(frames)).sort_values()
    assert ranks.labels == tuple(expected.index) and ranks.users == base["user"].nunique()
    np.testing.assert_allclose(ranks.mean_rank, expected, rtol=0, atol=1e-12)
    assert ranks.p_friedman == pytest.approx(friedmanchisquare(*errors.to_numpy().T).pvalue, rel=1e-9)
    assert ranks.critical_difference == pytest.approx(critical_difference(4, ranks.users))


def test_a_user_counts_once_whatever_the_number_of_episodes_and_seeds(new_run, scores_of):
    run = new_run()
    for seed in (0, 1):
        for name, noise in (("a", 1.0), ("b", 1.1), ("c", 1.2)):
            run.cell(name, scores_of(noise, seed=seed), seed=seed)
    users = pd.concat([scores_of(1.0, seed=0), scores_of(1.0, seed=1)])["user"].nunique()
    assert ranks_of(run).users == users


def test_groups_are_the_maximal_ranges_within_the_critical_difference():
    ranks = np.array([1.0, 1.5, 2.0, 2.6, 9.0])
    assert groups_within(ranks, 1.05) == ((0, 2), (2, 3), (4, 4))
    assert groups_within(ranks, 1.0) == ((0, 1), (1, 2), (2, 3), (4, 4))  # a difference of exactly so much is one
    assert groups_within(ranks, 100.0) == ((0, 4),)
    assert groups_within(ranks, 0.1) == tuple((i, i) for i in range(5))


def figures(groups, rows):
    labels = tuple(f"row-{i}" for i in range(rows))
    return RankFigures(labels, np.arange(1.0, rows + 1), 1.0, groups, 100, 0.5)


def test_rows_share_a_letter_exactly_where_a_group_holds_both():
    assert figures(((0, 2), (2, 3), (4, 4)), 5).letters == ("a", "a", "ab", "b", "c")
    many = figures(tuple((i, i + 1) for i in range(119)), 120).letters
    for one in range(120):
        for other in range(120):
            shared = set(tokens(many[one])) & set(tokens(many[other]))
            assert bool(shared) == (abs(one - other) <= 1)


def tokens(text):
    """Split letters that a number may follow: ``ab2`` is ``a`` and ``b2``."""
    out = []
    for character in text:
        if character.isdigit():
            out[-1] += character
        else:
            out.append(character)
    return out


def test_errors_that_differ_by_rounding_alone_share_their_rank(new_run, scores_of):
    run = new_run()
    base = scores_of(1.0)
    run.cell("a", base)
    run.cell("b", base.assign(se=base["se"] * (1 + 1e-13)))
    run.cell("c", scores_of(2.0))
    ranks = ranks_of(run)
    assert ranks.labels == ("a", "b", "c") and ranks.mean_rank.tolist() == [1.5, 1.5, 3.0]


def test_rows_that_are_all_the_same_have_one_group_and_no_evidence(new_run, scores_of):
    run = new_run()
    for name in ("a", "b", "c"):
        run.cell(name, scores_of(1.0))
    ranks = ranks_of(run)
    assert ranks.groups == ((0, 2),) and ranks.p_friedman == 1.0 and set(ranks.letters) == {"a"}


def test_rows_that_lack_episodes_or_figures_are_not_ranked(new_run, scores_of):
    run = new_run()
    for seed in (0, 1):
        for name, noise in (("a", 1.0), ("b", 1.1), ("c", 1.2)):
            run.cell(name, scores_of(noise, seed=seed), seed=seed)
    run.cell("one-seed", scores_of(0.1, seed=0), seed=0)
    run.cell("broken", status="failed", reason="NaN")
    assert ranks_of(run).labels == ("a", "b", "c")
    frame = leaderboard(load_results(run.path)).set_index("label")
    assert frame.loc[["one-seed", "broken"], "rank"].isna().all()
    assert frame.loc[["one-seed", "broken"], "rank_group"].tolist() == ["", ""]


def test_fewer_than_three_rows_or_two_users_have_no_ranks(new_run, scores_of):
    run = new_run()
    run.cell("a", scores_of(1.0))
    run.cell("b", scores_of(1.1))
    assert ranks_of(run) is None and leaderboard(load_results(run.path))["rank"].isna().all()
    lonely = new_run("lonely")
    for name, noise in (("a", 1.0), ("b", 1.1), ("c", 1.2)):
        lonely.cell(name, scores_of(noise, n_users=1, pool=1))
    assert ranks_of(lonely) is None
    failed = new_run("failed")
    failed.cell("a", status="failed", reason="NaN")
    assert ranks_of(failed) is None


def test_clicks_are_ranked_by_auc(new_run, scores_of):
    run = new_run()
    for name, noise in (("good", 0.3), ("middling", 1.0), ("bad", 4.0)):
        run.cell(name, scores_of(noise).drop(columns=["se", "ae", "ndcg5"]))
    ranks = ranks_of(run)
    assert ranks.labels == ("good", "middling", "bad") and ranks.groups == ((0, 0), (1, 1), (2, 2))


def test_users_without_an_auc_are_left_out_of_the_ranks_of_clicks(new_run, scores_of):
    run = new_run()
    frames = {
        name: scores_of(noise).drop(columns=["se", "ae", "ndcg5"])
        for name, noise in zip("abc", (0.3, 1, 4), strict=True)
    }
    gone = frames["a"]["user"].unique()[:3]
    for name, frame in frames.items():
        run.cell(name, frame.assign(auc=frame["auc"].where(~frame["user"].isin(gone))))
    assert ranks_of(run).users == frames["a"]["user"].nunique() - 3
