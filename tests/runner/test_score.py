"""Scoring predictions made elsewhere: the figures of a run to the last digit, and one line for what can't be scored."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fewrec
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.frozen import load
from fewrec.errors import DataError, FolderError, SuiteError
from fewrec.report.row_text import row_lines
from fewrec.runner.frozen import export_suite
from fewrec.runner.predictions import read_predictions
from fewrec.runner.score import BESIDE, score
from tests.runner.conftest import TINY

GRID = TINY.replace('["user-cold"]', '["user-cold", "warm"]').replace("[2, 3]", "[3]")
COSTS = ["meta_fit_s", "adapt_ms_p50", "adapt_ms_p95", "predict_ms", "episodes_per_s", "peak_mb", "trainable_params",
         "prepare_s", "device_peak_mb", "tuning"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run of the trivial rows and of one learner more, its episodes, and that learner's predictions."""
    here = tmp_path_factory.mktemp("made")
    data = make_synthetic(n_users=60, n_items=40, ratings_per_user=20, seed=3)
    object.__setattr__(data, "name", "tiny")
    (here / "tiny.toml").write_text(GRID)
    suite = str(here / "tiny.toml")
    learners = [*BESIDE, "knn"]
    run = fewrec.run(suite, data=data, learners=learners, out=here / "run", threads=1, device="cpu", progress=False)
    assert set(run.cells["status"]) == {"ok"}
    export_suite(suite, here / "episodes", data=data)
    parts = []
    for cell in run.cells[run.cells["learner"] == "knn"].itertuples():
        for file in sorted((here / "run/cells" / cell.cell).glob("predictions-*.parquet")):
            name = f"tiny/{cell.state}/seed-{cell.seed}/n{cell.n_users}-k{cell.k_shot}-q{cell.n_query}"
            parts.append(pd.read_parquet(file).assign(task=name))
    predictions = pd.concat(parts).sample(frac=1, random_state=0)  # rows may come in any order
    predictions.to_parquet(here / "elsewhere.parquet", index=False)
    return here, run, predictions


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_figures_of_a_learners_predictions_are_those_of_its_run_to_the_last_digit(made, tmp_path, form):
    here, run, predictions = made
    file = here / "elsewhere.parquet"
    if form == "csv":
        file = tmp_path / "elsewhere.csv"
        predictions.to_csv(file, index=False)
    found = score(file, here / "episodes", label="knn")
    for name in ("knn", *BESIDE):  # score rows, bit by bit: every figure is made of them
        mine, theirs = (of.cells[of.cells["label"] == name]["cell"].tolist() for of in (found, run))
        assert len(mine) == len(theirs) == 4
        for a, b in zip(mine, theirs, strict=True):
            rows = [of.scores[of.scores["cell"] == cell].drop(columns="cell") for of, cell in ((found, a), (run, b))]
            pd.testing.assert_frame_equal(*(one.reset_index(drop=True) for one in rows), check_exact=True)
    table, expected = (
        of.leaderboard.drop(columns=[*COSTS, "learner"]).set_index(["protocol", "k_shot", "label"]).sort_index()
        for of in (found, run)
    )
    pd.testing.assert_frame_equal(table, expected, check_exact=True)  # intervals, p-values and ranks too


def test_trivial_rows_are_the_cells_that_a_run_makes(made):
    here, run, _ = made
    found = score(here / "elsewhere.parquet", here / "episodes")
    own = run.cells[run.cells["learner"] != "knn"]
    assert set(own["cell"]) == set(found.cells["cell"][found.cells["learner"] != "external"])
    assert set(found.cells["label"]) == {*BESIDE, "elsewhere"}
    columns = ["dataset_sha256", "text_sha256", "split_hash", "code_hash", "eligible_users", "excluded_users",
               "trainable_params", "config"]  # fmt: skip
    both = own.set_index("cell")[columns], found.cells.set_index("cell").loc[own["cell"], columns]
    pd.testing.assert_frame_equal(*both)


def test_a_row_is_said_with_its_intervals_and_its_paired_difference_to_bias(made):
    here, run, _ = made
    task = here / "episodes/tiny/user-cold/seed-0/n2-k3-q6"
    one = load(task)["tiny/user-cold/seed-0/n2-k3-q6"]
    frame = pd.DataFrame(one.query_columns).assign(prediction=3.0 + np.arange(72) % 3)
    frame.to_parquet(here / "waves.parquet")  # one task: no column task is needed
    table = score(here / "waves.parquet", task).leaderboard
    row = table[table["label"] == "waves"].iloc[0]
    (line,) = row_lines(table, "waves")
    assert line.startswith(f"waves, tiny, user-cold, N=2, K=3, Q=6: RMSE {row['rmse']:.4f} [{row['rmse_low']:.3f}, ")
    for part in (f"MAE {row['mae']:.4f} [", f"nDCG@5 {row['ndcg5']:.4f} [", f"AUC {row['auc']:.4f} [",
                 f"RMSE − bias {row['diff_bias']:+.4f} [{row['diff_bias_low']:+.4f}, "):  # fmt: skip
        assert part in line
    bias = table[table["label"] == "bias"].iloc[0]
    assert row["diff_bias"] == pytest.approx(row["rmse"] - bias["rmse"])


def test_the_folder_that_it_writes_is_read_by_report_and_compare(made, tmp_path):
    here, run, _ = made
    found = score(here / "elsewhere.parquet", here / "episodes", out=tmp_path / "out")
    again = fewrec.load_results(tmp_path / "out")
    pd.testing.assert_frame_equal(again.leaderboard, found.leaderboard, check_exact=True)
    from fewrec.report.render import write_leaderboard

    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    write_leaderboard(tmp_path / "out")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    compared = fewrec.compare(tmp_path / "out", here / "run")
    assert set(compared.rows["label"]) == set(BESIDE) and set(compared.rows["verdict"]) == {"same bytes"}
    with pytest.raises(FolderError, match="--out .* there is something already"):
        score(here / "elsewhere.parquet", here / "episodes", out=tmp_path / "out")


def test_a_label_is_new_and_not_empty(made):
    here, *_ = made
    for label in ("bias", " \n"):
        with pytest.raises(SuiteError, match="--label"):
            score(here / "elsewhere.parquet", here / "episodes", label=label)


def test_answers_are_needed_to_score_and_not_to_read_predictions(made, tmp_path):
    export_suite(str(made[0] / "tiny.toml"), tmp_path / "x", data=_tiny(), states=["user-cold"], shots=[3], seeds=[0])
    (task,) = load(tmp_path / "x")
    pd.DataFrame(task.query_columns).assign(prediction=3.0).to_csv(tmp_path / "p.csv", index=False)
    (task.folder / "answers.parquet").unlink()
    assert read_predictions(tmp_path / "p.csv", [task])[0].prediction.tolist() == [3.0] * 72
    with pytest.raises(DataError, match=r"answers\.parquet: not there"):
        score(tmp_path / "p.csv", tmp_path / "x")


def _tiny():
    data = make_synthetic(n_users=60, n_items=40, ratings_per_user=20, seed=3)
    object.__setattr__(data, "name", "tiny")
    return data


# predictions that can't be scored


@pytest.fixture
def one(made):
    return load(made[0] / "episodes/tiny/user-cold/seed-0/n2-k3-q6")["tiny/user-cold/seed-0/n2-k3-q6"]


def refusal(path: Path, tasks) -> str:
    with pytest.raises(DataError) as caught:
        read_predictions(path, tasks)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def edit(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    changed = frame.astype({"prediction": float})
    if what == "missing":
        return changed.drop(index=[3, 40])
    if what == "doubled":
        return pd.concat([changed, changed.iloc[[5, 7]]])
    if what == "unknown item":
        free = next(i for i in range(40) if i not in set(frame["item"][(frame["episode"] == 0) & (frame["user"] == 0)]))
        changed.loc[0, "item"] = free
    elif what == "negative":
        changed.loc[2, "user"] = -1
    elif what == "beyond":
        changed.loc[2, "episode"] = 2**60
    elif what == "half":
        changed = changed.astype({"item": float})
        changed.loc[4, "item"] = 1.5
    elif what in ("nan", "infinite"):
        changed.loc[[6, 9], "prediction"] = float(what[:3])
    return changed


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "no prediction for episode 0, user 0, item {item[3]} of tiny/user-cold/seed-0/n2-k3-q6 (2 of 72 "),
        ("doubled", "row 73 (episode 0, user 0, item {item[5]}, prediction 3.5): a query rating that has a prediction "
                    "already; 2 such rows"),
        ("unknown item", "row 1 (episode 0, user 0, item "),
        ("negative", "row 3 (episode 0, user -1, item {item[2]}, prediction 3.5): no query rating of the episodes; 1 "),
        ("beyond", "row 3 (episode 1152921504606846976, user 0, item {item[2]}, prediction 3.5): no query rating"),
        ("half", "row 5 (episode 0, user 0, item 1.5, prediction 3.5): item is no whole number; 1 such row"),
        ("nan", "row 7 (episode 0, user 1, item {item[6]}, prediction nan): no finite number (NaN is a failure, never "
                "a score); 2 such rows"),
        ("infinite", "row 7 (episode 0, user 1, item {item[6]}, prediction inf): no finite number"),
    ],
)  # fmt: skip
def test_rows_that_are_not_one_for_each_query_row_are_named_and_counted(one, tmp_path, what, said, form):
    frame = pd.DataFrame(one.query_columns).assign(prediction=3.5)
    changed = edit(frame, what)
    path = tmp_path / f"p.{form}"
    changed.to_csv(path, index=False) if form == "csv" else changed.to_parquet(path, index=False)
    assert refusal(path, [one]).startswith(said.format(item=frame["item"].tolist()))


def test_several_tasks_are_told_apart_by_a_column(made, tmp_path):
    here, _, predictions = made
    tasks = list(load(here / "episodes"))
    path = tmp_path / "p.parquet"
    predictions.drop(columns="task").to_parquet(path, index=False)
    assert "no column 'task' among 'episode', 'user', 'item', 'prediction' (there are several" in refusal(path, tasks)
    predictions.replace({"task": {tasks[0].name: tasks[0].name.replace("tiny", "tony")}}).to_parquet(path, index=False)
    assert f"of no task of the episodes ('{tasks[0].name.replace('tiny', 'tony')}'; did you mean" in refusal(
        path, tasks
    )
    predictions[predictions["task"] != tasks[0].name].to_parquet(path, index=False)
    assert f"of {tasks[0].name} (72 of 72 are missing)" in refusal(path, tasks)
    predictions.to_parquet(path, index=False)
    assert f"not of the task {tasks[0].name}; 216 such rows" in refusal(path, tasks[:1])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item": pa.array(["1"] * 72)}, "column 'item' has to hold numbers"),
        ({"prediction": pa.array([b"\x80\x04."] * 72)}, "column 'prediction' has to hold numbers"),
        ({"prediction": pa.array([True] * 72)}, "column 'prediction' has to hold numbers"),
        ({"user": pa.array([[0]] * 72)}, "column 'user' has to hold numbers"),
        ({"episode": pa.array([None] * 72, pa.int64())}, "row 1 (episode nan, user 0, item "),
        ({"prediction": None}, "no column 'prediction' among 'episode', 'user', 'item'"),
        ({"task": pa.array([1] * 72)}, "column 'task' has to hold text"),
    ],
)
def test_columns_that_are_no_predictions_are_refused(one, tmp_path, columns, said):
    values = {name: pa.array(column) for name, column in one.query_columns.items()} | {
        "prediction": pa.array([3.5] * 72)
    }
    values = {name: column for name, column in (values | columns).items() if column is not None}
    pq.write_table(pa.table(values), tmp_path / "p.parquet", store_schema=False)
    assert refusal(tmp_path / "p.parquet", [one]).startswith(said)


def test_files_that_are_no_tables_are_refused(one, tmp_path):
    for name, content, said in [
        ("p.parquet", b"PAR1" + b"\xff" * 40 + b"PAR1", "not a readable Parquet file"),
        ("p.parquet", b"\x80\x04]\x94.", "not a readable Parquet file"),
        ("p.csv", b"", "not a readable CSV file"),
        ("p.csv", b"\xff\xfe\x00", "not a readable CSV file"),
        ("p.csv", b"episode,user,item,prediction\n0,0,x,3\n", "row 1 (episode 0, user 0, item x, prediction 3)"),
        ("p.csv", b"episode,user,item,prediction\n0,0,1,3,4,5\n", ""),
        ("p.csv", b"episode;user;item;prediction\n0;0;1;3\n", "no column 'episode' among 'episode;user;item;predict"),
        ("p.pkl", b"\x80\x04.", "predictions come as .parquet or .csv"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name, [one]).startswith(said), content
    assert refusal(tmp_path / "none.csv", [one]) == "no such file"


def test_what_pandas_is_told_in_a_file_is_not_believed(one, tmp_path):
    values = {name: pa.array(column) for name, column in one.query_columns.items()} | {
        "prediction": pa.array([3.5] * 72)
    }
    told = {"pandas": '{"index_columns": ["item"], "columns": [{"name": "item"}], "column_indexes": []}'}
    pq.write_table(pa.table(values).replace_schema_metadata(told), tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet", [one])[0].prediction.tolist() == [3.5] * 72


def test_a_file_of_many_more_rows_than_the_query_is_not_read(one, tmp_path):
    many = pa.table(
        {name: pa.array(np.zeros(2_000_000, np.int64)) for name in ("episode", "user", "item", "prediction")}
    )
    pq.write_table(many, tmp_path / "p.parquet")
    assert refusal(tmp_path / "p.parquet", [one]) == "2,000,000 rows, at least twice as many as the query has"
    content = (tmp_path / "p.parquet").read_bytes()
    lie = content.replace(b"\x80\x92\xf4\x01", b"\x90\x81\x80\x00")  # 2,000,000 and 1,032 as varints
    assert lie != content
    (tmp_path / "p.parquet").write_bytes(lie)
    refusal(tmp_path / "p.parquet", [one])
    (tmp_path / "p.csv").write_text("episode,user,item,prediction\n" + "0,0,0,1\n" * 5000)
    assert refusal(tmp_path / "p.csv", [one]).startswith("more than 1,144 rows")
