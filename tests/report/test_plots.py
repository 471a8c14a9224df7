"""Plots: the same bytes each time, findings in words, and no text, name or gap in the data that breaks one."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fewrec.errors import DataError
from fewrec.metrics.statistics import resampled_sums
from fewrec.report import load_results
from fewrec.report.measure import AUC, RMSE, measure_of
from fewrec.report.numbers import interval
from fewrec.report.plots import all_plots, render
from fewrec.report.plots.figure import Plot, file_name, task_scope
from fewrec.report.plots.heat_map import diverging, luminance, text_on
from fewrec.report.plots.meta_training import change, mean_curve, meta_training_plots
from fewrec.report.plots.speed import front
from fewrec.report.plots.style import INK, OKABE_ITO, Look, looks, shown, told_apart
from fewrec.report.steps import error_by_step
from tests.report.conftest import TIMING

SVG = "{http://www.w3.org/2000/svg}"


def plots_of(run):
    results = load_results(run.path)
    return all_plots(results, results.leaderboard)


def of_kind(plots, kind):
    return [plot for plot in plots if plot.kind == kind]


def texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture
def several_shots(new_run, scores_of):
    """A run of five learners at K = 1, 5 and rest, written in another order."""
    run = new_run()
    for k in ("rest", 5, 1):
        for learner, noise in (("bias", 1.0), ("user-mean", 1.3), ("gp", 0.8), ("knn", 0.9), ("maml", 1.1)):
            run.cell(learner, scores_of(noise), k_shot=k)
    return run


def test_rendering_again_gives_the_same_bytes_whatever_the_users_own_style_is(several_shots):
    plots = plots_of(several_shots)
    first = render(plots)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path", "text.parse_math": True}):
        second = render(plots_of(several_shots))
    assert len(first) > 8
    assert [(one.name, one.svg, one.png) for one in first] == [(one.name, one.svg, one.png) for one in second]


def test_drawing_leaves_the_users_own_style_as_it_was(several_shots):
    before = dict(matplotlib.rcParams)
    render(plots_of(several_shots)[:1])
    assert dict(matplotlib.rcParams) == before


def test_each_kind_of_plot_is_there_and_its_words_hold_the_figures_of_the_leaderboard(several_shots):
    frame = load_results(several_shots.path).leaderboard
    plots = plots_of(several_shots)
    assert {plot.kind for plot in plots} == {
        "shots", "shots-difference", "speed-episode", "speed-meta-fit", "heat-map", "ranks", "costs",
    }  # fmt: skip
    gp = frame[(frame["label"] == "gp") & (frame["k_shot"] == 1)].iloc[0]
    (shots,) = of_kind(plots, "shots")
    assert f"gp at K=1, {gp['rmse']:.4f} [" in shots.alt and "gp at K=rest" in shots.alt
    assert shots.head == ("learner", "K=1", "K=5", "K=rest")
    assert [row[0] for row in shots.rows] == ["gp", "knn", "bias", "maml", "user-mean"]
    speed = of_kind(plots, "speed-episode")[0]
    assert f"gp (2.60 ms, {gp['rmse']:.4f})" in speed.alt  # adapt 2 ms + predict 0.6 ms
    ranks = of_kind(plots, "ranks")[0]
    assert f"gp is first with {gp['rank']:.2f}" in ranks.alt and "user-mean is last" in ranks.alt
    (heat,) = of_kind(plots, "heat-map")
    assert "gp (3 of 3 tasks)" in heat.alt
    assert all(plot.alt and plot.caption and plot.rows and plot.title for plot in plots)
    assert all(len(row) == len(plot.head) for plot in plots for row in plot.rows)


def test_what_a_plot_shows_can_be_read_in_its_svg(several_shots):
    shots, difference = render([*of_kind(plots_of(several_shots), "shots"),
                                *of_kind(plots_of(several_shots), "shots-difference")])  # fmt: skip
    found = texts(shots.svg)
    assert {"gp", "knn", "maml", "bias", "user-mean", "1", "5", "rest", "RMSE"} <= set(found)
    assert "user-mean" not in texts(difference.svg)  # its distance to bias would flatten all others
    root = ElementTree.fromstring(shots.svg)
    assert root.get("role") == "img" and root.get("aria-label") == shots.plot.alt
    assert shots.png.startswith(b"\x89PNG")


def test_an_inline_svg_has_no_style_of_its_own_and_ids_that_no_other_has(several_shots):
    ids = []
    for one in render(plots_of(several_shots)):
        root = ElementTree.fromstring(one.svg)
        own = [element.get("id") for element in root.iter() if element.get("id")]
        used = re.findall(r"url\(#([^)]+)\)", one.svg) + re.findall(r'href="#([^"]+)"', one.svg)
        assert set(used) == set(own)
        assert not [e for e in root.iter() if e.get("style") or e.tag in (f"{SVG}style", f"{SVG}script", f"{SVG}image")]
        assert "http" not in one.svg.replace("http://www.w3.org/2000/svg", "")
        ids += own
    assert len(ids) > 20 and len(set(ids)) == len(ids)


def test_text_stays_large_enough_where_a_narrow_screen_shrinks_the_plot(several_shots):
    smallest = 480 / 560  # page.css: how far a plot of half a page's width shrinks before it scrolls
    for one in render(plots_of(several_shots)):
        sizes = [float(e.get("font-size")) for e in ElementTree.fromstring(one.svg).iter(f"{SVG}text")]
        assert sizes and min(sizes) * smallest >= 9, one.name


@pytest.mark.parametrize("label", ["$x^2$", "_hidden", "100% & <b>", "a\\frac{", "漢字 ☃", "'\"", "two\nlines"])
def test_a_label_is_shown_as_it_is(new_run, scores_of, label):
    run = new_run()
    for k in (1, 5):
        run.cell("bias", scores_of(1.0), k_shot=k)
        run.cell("mine", scores_of(0.5), label=label, k_shot=k)
        run.cell("other", scores_of(0.7), k_shot=k)
    plots = plots_of(run)
    for kind in ("shots", "shots-difference", "speed-episode", "heat-map", "ranks", "costs"):
        (one,) = render(of_kind(plots, kind)[:1])
        assert any(" ".join(label.split()) in text for text in texts(one.svg)), kind


def clicks(run, scores_of):
    for k in (1, 5):
        for learner, noise in (("item-popularity", 2.0), ("mine", 0.5), ("random", 4.0)):
            run.cell(learner, scores_of(noise).drop(columns=["se", "ae", "ndcg5"]), k_shot=k)


def one_row(run, scores_of):
    run.cell("mine", scores_of(1.0))


def one_user(run, scores_of):
    for k in (1, 5):
        for learner in ("bias", "mine", "other"):
            run.cell(learner, scores_of(1.0, episodes=2, n_users=1, pool=1), k_shot=k)


def only_failed(run, scores_of):
    run.cell("broken", status="failed", reason="ValueError")


def no_cell(run, scores_of):
    (run.path / "cells").mkdir()


def perfect_and_untimed(run, scores_of):
    for learner in ("bias", "mine", "other"):
        run.cell(learner, scores_of(0.0), timing={})


@pytest.mark.parametrize(
    ("write", "kinds"),
    [
        (clicks, {"shots", "shots-difference", "speed-episode", "speed-meta-fit", "heat-map", "ranks", "costs"}),
        (one_row, {"speed-episode", "speed-meta-fit", "costs"}),
        (one_user, {"shots", "speed-episode", "speed-meta-fit", "heat-map", "costs"}),
        (only_failed, set()),
        (no_cell, set()),
        (perfect_and_untimed, {"ranks"}),
    ],
)
def test_plots_that_the_data_can_fill_are_drawn_and_no_others(new_run, scores_of, write, kinds):
    run = new_run()
    write(run, scores_of)
    drawn = render(plots_of(run))
    assert {one.plot.kind for one in drawn} == kinds
    assert all("nan" not in text.lower() for one in drawn for text in [*texts(one.svg), one.plot.alt])


def test_clicks_are_judged_by_auc_where_more_is_better(new_run, scores_of):
    run = new_run()
    clicks(run, scores_of)
    frame = load_results(run.path).leaderboard
    assert measure_of(frame) is AUC and AUC.best(frame[frame["k_shot"] == 1]) == "mine"
    plots = plots_of(run)
    (shots,), (difference,) = (of_kind(plots, kind) for kind in ("shots", "shots-difference"))
    assert "Difference to item-popularity against K" in difference.title and "lies above zero" in difference.caption
    row = frame[(frame["label"] == "mine") & (frame["k_shot"] == 1)].iloc[0]
    said = interval(*(row[f"diff_popularity{end}"] for end in ("", "_low", "_high")), sign=True)
    assert f"Highest AUC: mine at K=1, {said}" in difference.alt and said.startswith("+")
    assert dict((name, at_1) for name, at_1, _ in difference.rows)["mine"] == said
    (drawn,) = render([difference])
    assert {"AUC − AUC of item-popularity", "item-popularity"} <= set(texts(drawn.svg))
    assert "AUC against K" in shots.title and "Best: mine at K=1" in shots.alt and "higher is better" in shots.caption


def test_the_best_row_covers_all_episodes(new_run, scores_of):
    run = new_run()
    for seed in (0, 1):
        run.cell("bias", scores_of(1.0, seed=seed), seed=seed)
        run.cell("better", scores_of(0.9, seed=seed), seed=seed)
    run.cell("half", scores_of(0.1), seed=0)
    assert RMSE.best(load_results(run.path).leaderboard) == "better"


def test_the_pareto_front_holds_what_nothing_else_beats_in_time_and_error():
    time, error = [1.0, 2.0, 2.0, 3.0, 4.0, 0.5], [0.9, 0.8, 0.7, 0.75, 0.7, 1.5]
    assert front(time, error) == [5, 0, 2]
    assert front([1.0, 1.0], [0.5, 0.5]) == [0]


def test_names_of_files_are_safe_short_and_unique():
    taken = set()
    for parts in (
        ["../../etc/passwd"],
        ["..\\a:b"],
        ["A"],
        ["a"],
        ["<script>"],
        ["☃"],
        ["☃☃"],
        ["x" * 500],
        ["a", "b"],
    ):
        name = file_name(parts, taken)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) and ".." not in name and len(name) < 100
        assert name not in taken
        taken.add(name)
    assert {"etc-passwd", "a", "a-2", "plot", "plot-2", "a-b"} <= taken


def test_every_row_has_a_look_of_its_own(new_run, scores_of):
    run = new_run()
    for i in range(24):
        run.cell(f"learner-{i}", scores_of(0.5 + i / 20, episodes=3))
    found = looks(load_results(run.path).leaderboard)
    assert len(found) == 24 == len({(look.color, look.marker) for look in found.values()})
    assert [found[f"learner-{i}"].color for i in range(6)] == list(OKABE_ITO)  # the best ones are told apart by colour


def test_rows_that_share_a_plot_get_different_colours():
    own = {"a": Look(OKABE_ITO[0], "o"), "b": Look(OKABE_ITO[0], "s"), "bias": Look(INK, "^", dashed=True)}
    given = told_apart(["a", "b", "bias"], own)
    assert given["a"] == own["a"] and given["bias"] == own["bias"]
    assert given["b"].marker == "s" and given["b"].color not in (OKABE_ITO[0], INK)


def test_numbers_on_the_heat_map_contrast_with_their_cell():
    for share in np.linspace(0, 1, 101):
        cell, text = luminance(diverging(share)), {"black": 0.0, "white": 1.0}[text_on(diverging(share))]
        assert (max(cell, text) + 0.05) / (min(cell, text) + 0.05) >= 4.5, share  # WCAG 2, level AA
    assert diverging(0.5) == pytest.approx((0xF7 / 255,) * 3)
    assert diverging(1.0)[2] > diverging(1.0)[0] and diverging(0.0)[0] > diverging(0.0)[2]  # blue is better


def test_many_tasks_have_a_heat_map_a_data_set(new_run, scores_of):
    run = new_run()
    for dataset in ("one", "two"):
        for k in range(9):
            run.cell("bias", scores_of(1.0, episodes=2), dataset=dataset, k_shot=k)
    maps = of_kind(plots_of(run), "heat-map")
    assert [plot.scope for plot in maps] == [{"dataset": "one"}, {"dataset": "two"}]
    assert maps[0].head == ("learner", *(f"K={k}" for k in range(9)))


def test_the_mean_of_learning_curves_ends_where_the_first_seed_stops():
    wide = pd.DataFrame({0: [1.0, 0.9, 0.8], 1: [2.0, 1.8, np.nan]}, index=[0, 50, 100])
    assert change(wide)[1].tolist()[:2] == pytest.approx([0.0, -0.2])
    assert mean_curve(change(wide)).tolist() == pytest.approx([0.0, -0.15])


def test_learning_curves_say_which_learner_gains_most(tmp_path):
    rows = [
        ("toy", "warm", seed, learner, "c0", step, 1.0 + seed / 10 - gain * step)
        for seed in (0, 1) for learner, gain in (("slow", 0.001), ("fast", 0.002), ("worse", -0.001))
        for step in (0, 10, 20)
    ]  # fmt: skip
    names = ["dataset", "state", "seed", "learner", "configuration", "step", "validation_rmse"]
    (plot,) = meta_training_plots(pd.DataFrame(rows, columns=names))
    assert "fast (-0.0400), slow (-0.0200) and worse (0.0000)" in plot.alt and "2 of 3 learners go below" in plot.alt
    assert [row[0] for row in plot.rows] == ["fast", "slow", "worse"]
    assert plot.rows[0] == ("fast", "2", "20", "1.0500", "1.0100", "20", "1.0100")
    (drawn,) = render([plot])
    assert {"fast", "slow", "worse", "step"} <= set(texts(drawn.svg))


@pytest.fixture
def online(new_run, scores_of):
    """A run of the online protocol: an episode has three of twelve users, five steps, two seeds; and its step rows."""
    rng, run, made = np.random.default_rng(4), new_run(), {}
    timing = {**TIMING, "update_ms": [1.0, 2.0, 6.0]}
    for learner, noise in (("bias", 1.0), ("gp", 0.7), ("user-mean", 1.5), ("half", 0.9)):
        for seed in (0, 1)[: 1 if learner == "half" else 2]:
            drawn = np.random.default_rng(seed)
            users = np.stack([drawn.permutation(12)[:3] for _ in range(8)])
            folder = run.cell(learner, scores_of(noise, seed=seed), seed=seed, timing=timing, protocol={"online": True})
            steps = pd.DataFrame({
                "episode": np.repeat(np.arange(8), 15), "user": np.repeat(users.ravel(), 5),
                "step": np.tile(np.arange(1, 6), 24), "n": 1.0, "se": noise * rng.random(120), "ae": 0.5,
            })  # fmt: skip
            steps.to_parquet(folder / "steps-0000.parquet", index=False)
            made[learner, seed] = steps
    return run, made


def test_errors_by_step_have_intervals_over_users_and_paired_differences(online):
    run, made = online
    found = error_by_step(load_results(run.path)).set_index(["label", "step"])
    assert len(found) == 20 and found.loc["half", ["diff_bias", "diff_bias_low"]].isna().all(axis=None)
    sums = {name: pd.concat([made[name, seed] for seed in (0, 1)]).groupby(["step", "user"])[["se", "n"]].sum()
            for name in ("bias", "gp")}  # fmt: skip
    for step in range(1, 6):
        gp, bias = (sums[name].loc[step].reindex(range(12), fill_value=0.0).to_numpy() for name in ("gp", "bias"))
        draws = resampled_sums(np.hstack([gp, bias]))
        rmse = np.sqrt(draws[:, 0] / draws[:, 1]), np.sqrt(draws[:, 2] / draws[:, 3])
        row = found.loc[("gp", step)]
        assert row["n"] == 48 and row["rmse"] == pytest.approx(np.sqrt(gp[:, 0].sum() / 48))
        assert row["diff_bias"] == pytest.approx(row["rmse"] - np.sqrt(bias[:, 0].sum() / 48))
        for name, of_name in (("rmse", rmse[0]), ("diff_bias", rmse[0] - rmse[1])):
            assert [row[f"{name}_low"], row[f"{name}_high"]] == pytest.approx(np.quantile(of_name, [0.025, 0.975]))


def test_the_online_plot_says_where_it_ends_and_what_an_update_takes(online):
    (plot,) = of_kind(plots_of(online[0]), "online")
    assert "after 0 ratings" in plot.alt and "after 4 ratings" in plot.alt and "gp 2" in plot.caption
    assert plot.head == ("learner", "after 0", "after 2", "after 4", "update ms") and len(plot.rows) == 4
    (drawn,) = render([plot])
    assert {"RMSE − RMSE of bias", "ratings learnt since the support", "gp", "user-mean"} <= set(texts(drawn.svg))
    old = next((online[0].path / "cells").glob("*/steps-0000.parquet"))
    pd.read_parquet(old).drop(columns="user").to_parquet(old, index=False)
    with pytest.raises(DataError, match="its columns are not cell, episode, user, step"):
        plots_of(online[0])


def test_long_names_are_cut_in_plots_alone():
    assert shown("x" * 26) == "x" * 26 and shown("x" * 27) == "x" * 25 + "…"


def test_a_scope_leaves_out_the_state_that_the_protocol_names():
    task = ("toy", "user-cold", "user-cold", 5, "rest", 10)
    assert task_scope(task) == {"dataset": "toy", "protocol": "user-cold", "n": "5", "k": "rest", "q": "10"}
    assert "k" not in task_scope(task, without=("k_shot",))


def test_a_plot_is_not_drawn_before_it_is_rendered():
    def refuse():
        raise AssertionError("drawn")

    assert Plot("kind", "title", {}, "alt", "caption", ("a",), (("b",),), refuse).title == "title"
