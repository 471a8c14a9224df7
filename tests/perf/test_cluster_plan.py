"""The cost plan's simulator against sums that can be done by hand, and its line through measured sizes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

PERF = Path(__file__).resolve().parents[2] / "benchmarks" / "perf"
SPEEDS = {"start_s": 7.0, "split_s": 0.0, "write_s": 0.01, "bytes_s": 1e9, "workers_a_node": 16}


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PERF))
        import cluster_plan

        yield cluster_plan


@pytest.fixture(scope="module")
def small(plan):
    costs = {
        "bias": plan.Costs(0.0, 0.0, 11.0, 2.0, 0.0),
        "item-mean": plan.Costs(0.0, 0.0, 3.0, 1.0, 0.0),
    }
    return *plan.works_of(plan.grid(tuple(costs)), costs), costs


def test_one_worker_takes_the_sum_of_all_units_and_of_what_the_driver_writes(plan, small):
    works, specs, costs = small
    got = plan.Cluster(works, specs, costs, 1, **SPEEDS).run()
    assert (got.blocks, got.fits) == (2 * 4 * 5 * 10 * 10, len({work.instance for work in works}))
    fits = sum(costs[specs[name].learner].meta_fit_s for name in {w.instance: w.cell for w in works}.values())
    blocks = sum(costs[spec.learner].block_s + SPEEDS["write_s"] for spec in specs.values()) * 10
    assert got.hours * 3600 == pytest.approx(SPEEDS["start_s"] + fits + blocks)
    assert got.fitting + got.scoring + got.splitting + got.loading + got.idle == pytest.approx(1)
    assert got.fitting == pytest.approx(fits / (got.hours * 3600))


@pytest.mark.parametrize("workers", [2, 16, 300])
def test_a_run_ends_no_earlier_than_its_work_shared_out_and_its_longest_fit_and_not_much_later(plan, small, workers):
    works, specs, costs = small
    got = plan.Cluster(works, specs, costs, workers, **SPEEDS).run()
    alone = plan.Cluster(works, specs, costs, 1, **SPEEDS).run()
    work = (alone.fitting + alone.scoring) * alone.hours * 3600
    driver = 4000 * SPEEDS["write_s"]
    least = max(SPEEDS["start_s"] + work / workers, 11 + 2, driver)
    assert least <= got.hours * 3600 <= SPEEDS["start_s"] + work / workers + driver + 11 + 10 * 2
    assert (got.blocks, got.fits) == (alone.blocks, alone.fits)


def test_every_worker_that_finds_no_texts_encodes_them_and_later_ones_of_the_node_do_not(plan, small):
    works, specs, _ = small
    costs = {name: plan.Costs(100.0, 1.0, 0.0, 0.0, 0.0) for name in ("bias", "item-mean")}
    cluster = plan.Cluster(works, specs, costs, 3, **{**SPEEDS, "workers_a_node": 2})
    assert cluster._prepare(0, "bias", 0.0) == 100
    assert cluster._prepare(0, "bias", 50.0) == 100, "the first worker is still at it"
    assert cluster._prepare(0, "bias", 100.0) == 1
    assert cluster._prepare(1, "bias", 100.0) == 100 and cluster._prepare(0, "item-mean", 100.0) == 100


def test_a_split_is_cut_again_only_by_workers_that_no_longer_hold_it(plan, small):
    works, specs, costs = small
    cluster = plan.Cluster(works, specs, costs, 1, **{**SPEEDS, "split_s": 5.0})
    units, seen = [], set()
    for work in works:
        if cluster.split_of[work.cell] not in seen:
            seen.add(cluster.split_of[work.cell])
            units.append(plan.Unit("fit", work.cell, work.instance))
    worker = cluster.pool[0]
    took = [cluster.seconds(worker, unit, 0.0) for unit in [*units[:5], units[4], units[1], units[0]]]
    assert [seconds - costs[specs[units[0].cell].learner].meta_fit_s for seconds in took] == [5] * 5 + [0, 0, 5]


def test_the_line_through_sizes_is_exact_on_a_plane_and_has_no_share_below_zero(plan):
    rng = np.random.default_rng(0)
    for a, b, c in rng.uniform(0, 3, (20, 3)):
        sizes = [(250_000, 1_000), (250_000, 3_000), (1_000_000, 3_000)]
        rows = [{"ratings": str(r), "items": str(i), "s": str(a + b * r / 1e6 + c * i / 1e3)} for r, i in sizes]
        assert plan.extrapolated(rows, "s", (32_000_000, 80_000)) == pytest.approx(a + 32 * b + 80 * c)
        along = [{**row, "items": "59000", "s": str(a + b * int(row["ratings"]) / 1e6)} for row in rows]
        assert plan.extrapolated(along, "s", (32_000_000, 80_000)) == pytest.approx(a + 32 * b)
    falling = [{"ratings": str(n), "items": "9", "s": str(s)} for n, s in ((1_000_000, 4), (2_000_000, 2))]
    assert 2 <= plan.extrapolated(falling, "s", (32_000_000, 9)) <= 4


def test_the_grid_is_the_one_that_the_plan_names(plan):
    cells = plan.grid(plan.LEARNERS)
    assert len(plan.LEARNERS) == 30
    per_learner = {name: len(list(group)) for name, group in itertools.groupby(sorted(s.learner for s in cells))}
    assert {n for name, n in per_learner.items() if name not in plan.NEEDS_ITEM_RATINGS} == {4 * 5 * 10}
    assert {per_learner[name] for name in plan.NEEDS_ITEM_RATINGS} == {2 * 5 * 10}
    assert {(s.episodes, s.n_users, s.block) for s in cells} == {(1000, 5, 100)}
