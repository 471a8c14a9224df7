"""The order of units: never a block before its fit, everything done in the end, whatever is lost on the way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fewrec.runner.schedule import TIMINGS, Schedule, Unit, Work


@st.composite
def runs(draw):
    """Works of cells that share fits and meta-fits, some of them with nothing left to score."""
    works = []
    for cell in range(draw(st.integers(1, 8))):
        key = draw(st.integers(0, 3))
        starts = draw(st.lists(st.sampled_from([0, 10, 20, 30]), unique=True).map(sorted))
        instance = f"{key}.{draw(st.integers(0, 1))}"
        works.append(Work(f"c{cell}", f"k{key}", instance, tuple(starts), draw(st.floats(0, 100)), 1.0))
    return works


@settings(max_examples=300, deadline=None)
@given(runs(), st.integers(1, 4), st.integers(1, 5), st.data())
def test_everything_is_done_once_and_no_block_before_its_fit_whatever_ends_first_or_is_lost(works, slots, opened, data):
    schedule = Schedule(works, slots, open_fits=opened)
    key = {work.instance: work.key for work in works}
    running, fitted, scored, losses = [], [], [], 0
    while not schedule.finished:
        near = data.draw(st.lists(st.sampled_from(sorted(key)), max_size=2))
        for unit in schedule.ready(near):
            if unit.kind == "block":
                assert unit.instance in fitted
            else:
                assert unit.instance not in fitted
                assert all(key[other.instance] != key[unit.instance] for other in running if other.kind == "fit")
            schedule.started(unit)
            running.append(unit)
        assert 0 < len(running) <= slots, "it stands still, or more is under way than there are workers"
        assert len(set(running)) == len(running)
        unit = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if losses < 20 and data.draw(st.booleans()):
            losses += 1
            schedule.lost(unit)
            continue
        (fitted if unit.kind == "fit" else scored).append(unit.instance if unit.kind == "fit" else unit)
        schedule.done(unit)
    assert sorted(fitted) == sorted(key)
    assert len(scored) == len(set(scored))
    assert {(u.cell, u.start) for u in scored} == {(work.cell, start) for work in works for start in work.starts}


@settings(max_examples=200, deadline=None)
@given(runs(), st.integers(1, 3), st.data())
def test_of_a_dropped_cell_nothing_begins_and_the_others_are_done(works, slots, data):
    schedule = Schedule(works, slots)
    dropped = data.draw(st.sets(st.sampled_from([work.cell for work in works])))
    at = data.draw(st.integers(0, 10))
    scored, running, steps = set(), [], 0
    while True:
        if steps == at:
            for cell in dropped:
                schedule.drop(cell)
        if schedule.finished:
            break
        for unit in schedule.ready():
            assert steps < at or unit.cell not in dropped
            schedule.started(unit)
            running.append(unit)
        unit = running.pop(0)
        if unit.kind == "block":
            scored.add((unit.cell, unit.start))
        schedule.done(unit)
        steps += 1
    assert {(work.cell, s) for work in works if work.cell not in dropped for s in work.starts} <= scored


def names(units):
    return [(unit.kind, unit.instance, unit.start) for unit in units]


def test_long_fits_come_first_and_blocks_of_the_learner_that_a_worker_holds_before_others():
    works = [Work("a", "a", "a", (0, 10), fit_s=1), Work("b", "b", "b", (0, 10), fit_s=9), Work("c", "c", "c", (0,), 5)]
    schedule = Schedule(works, 2)
    first = schedule.ready()
    assert names(first) == [("fit", "b", TIMINGS), ("fit", "c", TIMINGS)]
    for unit in first:
        schedule.started(unit)
    schedule.done(first[0])
    assert names(schedule.ready()) == [("fit", "a", TIMINGS)], "two learners are open, four may be"
    schedule.started(schedule.ready()[0])
    schedule.done(first[1])
    assert names(schedule.ready()) == [("block", "b", 0)]
    assert names(schedule.ready(near=["c"])) == [("block", "c", 0)]


def test_no_more_fits_are_begun_than_states_may_be_open():
    works = [Work(str(i), str(i), str(i), (0,)) for i in range(6)]
    schedule = Schedule(works, 2, open_fits=2)
    for unit in schedule.ready():
        schedule.started(unit)
        schedule.done(unit)
    assert [unit.kind for unit in schedule.ready()] == ["block", "block"]


def test_a_lost_block_is_the_first_to_come_again():
    schedule = Schedule([Work("a", "a", "a", (0, 10, 20))], 1)
    fit = schedule.ready()[0]
    schedule.started(fit)
    schedule.done(fit)
    block = schedule.ready()[0]
    schedule.started(block)
    schedule.lost(block)
    assert schedule.ready() == [Unit("block", "a", "a", 0)] == [block]


def test_a_hundred_thousand_units_for_256_workers_take_seconds():
    works = [Work(f"c{i}", f"k{i // 5}", f"k{i // 5}", tuple(range(0, 1000, 25)), i % 30, 1.0) for i in range(2500)]
    schedule, running, count = Schedule(works, 256), [], 0
    while not schedule.finished:
        for unit in schedule.ready():
            schedule.started(unit)
            running.append(unit)
        schedule.done(running.pop(0))
        count += 1
    assert count == 2500 * 40 + 500
