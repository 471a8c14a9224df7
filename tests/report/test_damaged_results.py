"""Results that somebody edited or a disk damaged: one line that names the file and the entry, before any table."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewrec.errors import DataError
from fewrec.report import load_results
from fewrec.report.published import published_rows


@pytest.fixture
def run(new_run, scores_of):
    made = new_run("small")
    made.folder = made.cell("bias", scores_of(1.0, episodes=2))
    return made


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("spec", "seed"), "x", r"broken at 'spec\.seed'"),
        (("spec", "k_shot"), "all", r"broken at 'spec\.k_shot"),
        (("spec", "n_users"), 2**63, r"broken at 'spec\.n_users'"),
        (("spec", "protocol"), [], r"its protocol is not a table"),
        (("spec", "protocol", "state"), 3, r"broken at 'spec\.protocol\.state'"),
        (("spec", "protocol", "k_max"), [10], r"broken at 'spec\.protocol\.k_max'"),
        (("spec", "ndcg_at"), "5", r"broken at 'spec\.ndcg_at"),
        (("spec", "config"), 7, r"broken at 'spec\.config'"),
        (("spec",), 7, r"its spec is not a table"),
        (("dataset_sha256",), 7, r"broken at 'dataset_sha256'"),
        (("trainable_params",), {}, r"broken at 'trainable_params'"),
        (("scale",), ["a", "b"], r"broken at 'scale"),
    ],
)
def test_a_wrong_entry_of_a_cell_is_named(run, path, value, message):
    file = run.folder / "cell.json"
    record = json.loads(file.read_text())
    at = record
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    file.write_text(json.dumps(record))
    with pytest.raises(DataError, match=rf"cell\.json: {message}"):
        load_results(run.path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("datasets", {"toy": 3}), ("datasets", {"toy": {"scale": ["low", 5]}}), ("environment", 3), ("command", 7),
     ("environment", {"threads": [1]}), ("nodes", [3]),
     ("suite", {"published": [{"label": "x"}]})],
)  # fmt: skip
def test_a_wrong_entry_of_the_manifest_is_named(run, name, value):
    file = run.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(DataError, match=rf"manifest\.json: broken at '{name}"):
        load_results(run.path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"x": NaN}', '{"x": "\\ud800"}', '{"x": 1' + "0" * 5_000 + "}"])
def test_json_that_fewrec_never_writes_is_refused(run, text):
    (run.folder / "timing.json").write_text(text)
    with pytest.raises(DataError, match=r"timing\.json: not readable as JSON"):
        load_results(run.path)


def test_a_timing_that_is_no_number_is_named(run):
    (run.folder / "timing.json").write_text('{"adapt_ms": ["fast"]}')
    with pytest.raises(DataError, match=r"timing\.json: broken at 'adapt_ms\.0'"):
        load_results(run.path)
    (run.folder / "timing.json").write_text('{"nodes": [{"threads": [1]}]}')
    with pytest.raises(DataError, match=r"timing\.json: broken at 'nodes\.0\.threads'"):
        load_results(run.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.assign(n="x"), "its column 'n' is not as fewrec writes it"),
        (lambda frame: frame.assign(user=None), "its column 'user' has empty places"),
        (lambda frame: frame.assign(episode=0.5), "its column 'episode' is double, not whole numbers"),
        (lambda frame: frame.assign(cell="x"), "it has a column 'cell', which is a reference's"),
        (lambda frame: frame.assign(auc=pd.Timestamp(0)), "its column 'auc' is not as fewrec writes it"),
        (lambda frame: frame.assign(se=-1.5e300), r"its column 'se' has 1.5e\+300, which no score is"),
        (lambda frame: frame.assign(se=-frame["se"] - 1), "its column 'se' is below 0 somewhere"),
        (lambda frame: frame.assign(ae=-1), "its column 'ae' is below 0 somewhere"),
        (lambda frame: frame.assign(auc=np.float16("-inf")), "its column 'auc' has inf, which no score is"),
        (lambda frame: frame.assign(n=frame["n"].where(frame.index > 0, 0)), "its column 'n' has 0 ratings"),
        (lambda frame: frame.assign(ae=float("inf")), "its column 'ae' has inf, which no score is"),
    ],
)
def test_a_wrong_column_of_scores_is_named(run, change, message):
    file = run.folder / "block-0000.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    with pytest.raises(DataError, match=f"block-0000.parquet: {message}"):
        load_results(run.path)


def test_scores_of_few_bytes_and_a_million_rows_are_refused_before_they_take_memory(run):
    file = run.folder / "block-0000.parquet"
    frame = pd.read_parquet(file)
    frame.iloc[np.zeros(1_000_000, dtype=int)].to_parquet(file, index=False, compression="zstd")
    with pytest.raises(DataError, match=r"block-0000.parquet: can't be read \(it says that it holds 1,000,000 rows"):
        load_results(run.path)


def test_what_pandas_notes_in_a_file_of_scores_is_not_believed(run):
    file = run.folder / "block-0000.parquet"
    before = load_results(run.path).scores
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({b"pandas": b'{"index_columns": ["nowhere"], "columns": []}'}), file)
    pd.testing.assert_frame_equal(load_results(run.path).scores, before)
    pq.write_table(table.append_column("n", pa.array([1] * len(table))), file)
    with pytest.raises(DataError, match="it has several columns 'n'"):
        load_results(run.path)


def test_a_published_figure_of_digits_without_end_is_a_name_like_another(run):
    file = run.path / "manifest.json"
    manifest = json.loads(file.read_text())
    quoted = {"label": "x", "figures": {"MAE@" + "1" * 5_000: 0.5}, "source": "table"}
    file.write_text(json.dumps({**manifest, "suite": {"published": [quoted]}}))
    assert published_rows(load_results(run.path))[1] == [("x", ["0.5"], "table")]
