"""The files of a leaderboard: byte identity, escaping, and what a reader of the page must find."""

import csv
import io
import json

import pandas as pd
import pytest
from rich.console import Console

from fewrec.errors import FolderError
from fewrec.learners.registry import BUILTIN
from fewrec.report import terminal_table, write_leaderboard
from fewrec.report.leaderboard import TRIVIAL
from fewrec.report.numbers import csv_field, fixed, interval, markdown_text, rounded, short

FILES = ("leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.tex")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_writing_again_gives_the_same_bytes(small_run):
    write_leaderboard(small_run.path)
    first = contents(small_run.path)
    for name in FILES:
        (small_run.path / name).unlink()
    write_leaderboard(small_run.path)
    assert contents(small_run.path) == first
    assert not [p for p in small_run.path.iterdir() if p.name.endswith(".part")]


def test_csv_and_json_hold_the_frame(small_run):
    frame = write_leaderboard(small_run.path)
    read = pd.read_csv(small_run.path / "leaderboard.csv")
    assert list(read.columns) == list(frame.columns)
    assert read["rmse"].to_numpy() == pytest.approx(frame["rmse"].to_numpy(), abs=5e-7, nan_ok=True)
    value = json.loads((small_run.path / "leaderboard.json").read_text())
    assert value["suite"] == "tiny" and len(value["rows"]) == len(frame)
    assert value["rows"][3]["status"] == "failed" and value["rows"][3]["rmse"] is None
    assert value["rows"][0]["rmse"] == pytest.approx(frame["rmse"][0], abs=5e-7)


def test_every_row_of_the_page_has_as_many_cells_as_its_head(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    run.cell("a|b\nc", scores_of(0.9), label="=x | y <b>*bold*</b>")
    run.cell("broken", status="failed", reason="ValueError: one | two\nthree `four`")
    write_leaderboard(run.path)
    lines = (run.path / "leaderboard.md").read_text().splitlines()
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {15, 4}
    assert sum(line.count("|") == 15 for line in tables) == 4
    assert "one \\| two three" in "\n".join(lines)


def test_the_page_marks_best_ties_trivial_rows_and_says_what_it_was_made_of(small_run):
    write_leaderboard(small_run.path)
    page = (small_run.path / "leaderboard.md").read_text()
    best = next(line for line in page.splitlines() if line.startswith("| **better**"))
    assert "** |" in best and "bias *(trivial)*" in page
    for said in ("fewrec run tiny", "a" * 64, "b" * 64, "5p1it0", "150 eligible", "3 excluded", "torch 2.0", "Doe 2020",
                 "| failed | ValueError: a \\| b second line |", "| not applicable | toy has no item text |",
                 "2 seeds, 60 episodes"):  # fmt: skip
        assert said in page, said


def test_a_tie_with_the_best_row_is_marked(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    run.cell("same", scores_of(1.0))
    write_leaderboard(run.path)
    page = (run.path / "leaderboard.md").read_text()
    assert page.count(" ≈ |") == 1 and "| **bias *(trivial)*** |" in page


def test_the_page_says_where_options_come_from_only_where_a_row_has_some_of_its_own(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0), tuning={"kind": "default"})
    write_leaderboard(run.path)
    assert "| tuning |" not in (run.path / "leaderboard.md").read_text()
    run.cell("mine", scores_of(0.9), tuning={"kind": "tuned", "budget": 20, "trials": 20, "seeds": [0]})
    write_leaderboard(run.path)
    head, _, mine, bias = (run.path / "leaderboard.md").read_text().splitlines()[6:10]
    assert head.endswith("| parameters | tuning |") and mine.endswith("| tuned, 20 trials |") and bias.endswith("|  |")
    assert {line.count("|") for line in (head, mine, bias)} == {16}


def test_the_page_has_ranks_with_their_groups_and_the_critical_difference(small_run):
    frame = write_leaderboard(small_run.path)
    page = (small_run.path / "leaderboard.md").read_text()
    assert f"| {frame['rank'][0]:.2f} {frame['rank_group'][0]} |" in page
    users = int(frame["users"][0])
    assert f"Ranks over {users} users: the critical difference is {2.343 * (12 / (6 * users)) ** 0.5:.2f}," in page


def test_warnings_that_rows_share_are_said_once_a_table(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    for name in ("one", "two"):
        run.cell(name, scores_of(1.5, seed=0).assign(pred_min=1.5, pred_max=4.0), label=f"{name}|row")
    write_leaderboard(run.path)
    page = (run.path / "leaderboard.md").read_text()
    assert "- **worse than bias**: one\\|row, two\\|row\n" in page


def test_the_notes_name_the_kind_of_interval(small_run, tmp_path):
    write_leaderboard(small_run.path, tmp_path / "bca", interval="bca")
    write_leaderboard(small_run.path)
    assert "95 % BCa\n" in (tmp_path / "bca" / "leaderboard.md").read_text()
    assert "95 % percentile\n" in (small_run.path / "leaderboard.md").read_text()
    assert "95\\,\\% BCa bootstrap" in (tmp_path / "bca" / "leaderboard.tex").read_text()
    assert json.loads((tmp_path / "bca" / "leaderboard.json").read_text())["interval"] == "bca"


def test_the_json_has_the_ranks_of_every_task(small_run):
    frame = write_leaderboard(small_run.path)
    ranks = json.loads((small_run.path / "leaderboard.json").read_text())["ranks"]
    assert [(one["k_shot"], one["dataset"], one["state"]) for one in ranks] == [
        (5, "toy", "user-cold"),
        (10, "toy", "user-cold"),
    ]
    assert ranks[0]["labels"] == ["better", "bias", "worse"] and ranks[0]["users"] == frame["users"][0]
    assert ranks[0]["groups"] == [[0, 0], [1, 1], [2, 2]] and ranks[0]["mean_rank"] == [1, 2, 3]


def test_texts_in_the_csv_start_no_formula_and_keep_the_table(new_run, scores_of):
    run = new_run()
    run.cell("=1+1", scores_of(1.0), label='@a, "b"\nc')
    write_leaderboard(run.path)
    rows = list(csv.DictReader(io.StringIO((run.path / "leaderboard.csv").read_text())))
    assert len(rows) == 1 and rows[0]["learner"] == "'=1+1" and rows[0]["label"] == '\'@a, "b" c'
    assert float(rows[0]["rmse"]) > 0


def printed(frame, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(frame))
    return console.file.getvalue()


def test_the_terminal_shows_every_row(small_run):
    text = printed(write_leaderboard(small_run.path), 220)
    for said in ("better", "! worse than bias: worse", "broken: failed: ValueError: a | b second line",
                 "needs-text: not applicable: toy has no item text", "K=10"):  # fmt: skip
        assert said in text
    assert "No room for" not in text


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_narrow_terminal_gets_fewer_columns_and_whole_numbers(new_run, scores_of, width):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    run.cell("a-learner-of-a-long-name", scores_of(0.9), label="a-learner-of-a-long-name[option=value, other=12345]")
    frame = write_leaderboard(run.path)
    text = printed(frame, width)
    assert all(len(line) <= width for line in text.splitlines()) and "…" not in text
    for row in frame.to_dict("records"):
        difference = f"{row['diff_bias']:+.4f}" if row["label"] != "bias" else "0.0000"
        assert f"{row['rmse']:.4f}" in text and difference in text
    assert ("No room for" in text) == (width < 200)
    assert ("MAE " in text.split("No room for")[0]) == (width == 200)
    assert text.replace("\n", "").replace(" ", "").count("other=12345]") >= 1  # a label is folded, never cut


def test_marks_and_texts_of_rows_are_printed_literally(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0), label="[red]bias[/red]\x1b[31m")
    run.cell("same", scores_of(1.0))
    text = printed(write_leaderboard(run.path), 200)
    assert "[red]bias[/red] [31m" in text and "\x1b" not in text and " ≈ " in text


def test_a_run_without_finished_cells_has_an_empty_leaderboard(new_run):
    run = new_run()
    (run.path / "cells").mkdir()
    assert len(write_leaderboard(run.path)) == 0
    assert (run.path / "leaderboard.csv").read_text().startswith("dataset,protocol,")
    assert "no finished cell" in (run.path / "leaderboard.md").read_text()


def test_a_table_that_cannot_be_written_is_named(small_run):
    (small_run.path / "leaderboard.csv").unlink(missing_ok=True)
    (small_run.path / "leaderboard.csv").mkdir()  # in the way of anybody, root too
    with pytest.raises(FolderError, match="leaderboard.csv: can't be written"):
        write_leaderboard(small_run.path)


def test_a_folder_in_the_way_of_a_file_is_named(small_run):
    (small_run.path / "leaderboard.csv").mkdir()
    with pytest.raises(FolderError, match="leaderboard.csv: can't be written"):
        write_leaderboard(small_run.path)
    assert not [p for p in small_run.path.iterdir() if p.name.endswith(".part")]


def test_numbers_are_written_the_same_whatever_the_last_digits():
    assert csv_field("rmse", 0.98765432109) == csv_field("rmse", 0.98765432111) == "0.987654"
    assert csv_field("diff_bias", -1e-17) == "0.000000" and rounded("diff_bias", -1e-17) == 0.0
    assert csv_field("peak_mb", 1234567.89) == "1234570" and csv_field("adapt_ms_p50", 0.000012345678) == "0.0000123457"
    assert csv_field("users", pd.NA) == "" and csv_field("rmse", float("nan")) == "" and csv_field("k_shot", 5) == "5"
    assert fixed(-0.00001, 3, sign=True) == "0.000" and interval(0.5, 0.25, float("nan")) == "0.5000"
    assert short(12345.6) == "12,346" and short(0.0123) == "0.012" and short(float("nan")) == ""


def test_markdown_text_is_shown_literally():
    assert markdown_text("a|b\n<i>*c*`d`[e]") == "a\\|b &lt;i&gt;\\*c\\*\\`d\\`\\[e\\]"


def test_the_trivial_rows_are_learners_of_the_registry():
    assert set(BUILTIN) >= TRIVIAL
