"""Timings of unlike machines never stand in one column, in any form of the table."""

import json
import shutil

import pandas as pd
import pytest

import fewrec
from fewrec.checksums import unsealed
from fewrec.data.synthetic import make_synthetic
from fewrec.report.page import page
from fewrec.report.render import leaderboard_files, terminal_table, write_leaderboard
from fewrec.report.results import load_results

COLUMNS = ["prepare_s", "meta_fit_s", "adapt_ms_p50", "adapt_ms_p95", "predict_ms", "episodes_per_s"]
NOTE = "left out, timed on"
SUITE = """
title = "s"
datasets = ["synthetic"]
states = ["user-cold"]
n_users = 2
shots = [3]
n_query = 6
seeds = [0]
episodes = 6
block = 3
learners = ["bias", "user-mean", "knn"]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    suite = folder / "s.toml"
    suite.write_text(SUITE)
    data = make_synthetic(n_users=60, n_items=40, ratings_per_user=20, seed=3)
    fewrec.run(str(suite), data=data, out=folder / "out", threads=1, device="cpu", progress=False)
    return folder / "out"


@pytest.fixture
def run_folder(ran, tmp_path):
    return shutil.copytree(ran, tmp_path / "out")


def timings(folder):
    for file in sorted(folder.glob("cells/*/cell.json")):
        yield json.loads(file.read_text())["spec"]["label"], file.with_name("timing.json")


def change(folder, label, edit):
    for name, file in timings(folder):
        if name == label:
            timing = unsealed(json.loads(file.read_text()))
            edit(timing)
            file.write_text(json.dumps(timing))


def test_rows_of_one_machine_keep_their_timings_and_carry_no_note(run_folder):
    table = load_results(run_folder).leaderboard
    assert table[COLUMNS].notna().all().all()
    assert not table["warning"].str.contains(NOTE).any()


def test_a_row_of_another_kind_of_node_is_left_empty_with_a_note_in_every_form(run_folder, capsys):
    change(run_folder, "knn", lambda timing: timing["nodes"][0].update(processor="Other", workers=4))
    results = load_results(run_folder)
    table = results.leaderboard.set_index("label")
    assert table.loc["knn", COLUMNS].isna().all() and table.loc[["bias", "user-mean"], COLUMNS].notna().all().all()
    assert table.loc["knn", "peak_mb"] > 0 and table.loc["knn", "rmse"] > 0
    assert "Other (cpu, 1 thread, 4 at once)" in table.loc["knn", "warning"]
    assert table.loc["knn", "warning"].count(NOTE) == 1 and NOTE not in table.loc["bias", "warning"]
    from rich.console import Console

    console = Console(width=400, record=True, file=open("/dev/null", "w"))
    console.print(terminal_table(results.leaderboard))
    files = leaderboard_files(results, results.leaderboard)
    assert set(files) == {f"leaderboard.{ending}" for ending in ("csv", "json", "md", "tex")}
    for text in (console.export_text(), *(content.decode() for content in files.values()), html(run_folder)):
        assert NOTE in text and "Other" in text and "4 at once" in text


def test_where_every_row_was_timed_on_unlike_nodes_no_row_has_a_timing(run_folder):
    def second(timing):
        other = {**timing["nodes"][0], "name": "node-2", "processor": "Other"}
        timing["nodes"].append(other)

    for label in ("knn", "bias", "user-mean"):
        change(run_folder, label, second)
    table = load_results(run_folder).leaderboard
    assert table[COLUMNS].isna().all().all() and table["rmse"].notna().all()
    assert table["warning"].str.contains(NOTE).all() and not table["warning"].str.contains("most rows").any()


def html(folder):
    from fewrec.report.render import leaderboard

    results = load_results(folder)
    return page(results, leaderboard(results), [])


def test_one_kind_of_timing_alone_can_be_of_another_node(run_folder):
    def elsewhere(timing):
        other = {**timing["nodes"][0], "name": "node-2", "threads": 2, "timed": ["fit"]}
        timing["nodes"] = [{**timing["nodes"][0], "timed": ["latency", "throughput"]}, other]

    change(run_folder, "bias", elsewhere)
    row = load_results(run_folder).leaderboard.set_index("label").loc["bias"]
    assert row[["prepare_s", "meta_fit_s"]].isna().all() and row[COLUMNS[2:]].notna().all()


def test_results_from_before_nodes_were_recorded_are_of_the_machine_of_their_manifest(run_folder):
    for label in ("bias", "knn"):
        change(run_folder, label, lambda timing: timing.pop("nodes"))
    table = load_results(run_folder).leaderboard
    assert table[COLUMNS].notna().all().all() and not table["warning"].str.contains(NOTE).any()
    change(run_folder, "user-mean", lambda timing: timing["nodes"][0].update(workers=2))
    table = load_results(run_folder).leaderboard.set_index("label")
    assert table.loc["user-mean", COLUMNS].isna().all() and table.loc["bias", COLUMNS].notna().all()


def test_no_host_name_is_written(run_folder):
    import os

    write_leaderboard(run_folder)
    host = os.uname().nodename
    for file in run_folder.rglob("*.json"):
        assert host not in file.read_text()
    assert pd.notna(host)
