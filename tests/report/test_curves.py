"""Learning curves are found in a run and in a reference alike."""

import json

import pandas as pd

from fewrec.report import export_reference, load_results
from fewrec.report.curves import KEYS, curves_of


def with_curves(run, scores_of):
    for seed in (0, 1):
        cell = run.cell("better", scores_of(0.9, seed=seed), seed=seed)
        record = json.loads((cell / "cell.json").read_text())
        names = ("dataset", "meta_dataset", "protocol", "seed", "learner", "config")
        folder = run.path / "meta" / f"fit-{seed}"
        folder.mkdir(parents=True)
        curve = [{"step": step, "validation_rmse": 1.0 - step / 1000, "loss": 0.5} for step in (0, 50)]
        fields = {name: record["spec"][name] for name in names}
        (folder / "meta.json").write_text(json.dumps({"fields": fields, "code_hash": "c0de", "curve": curve}))


def test_a_run_and_the_reference_made_of_it_have_the_same_curves(new_run, scores_of, tmp_path):
    run = new_run()
    with_curves(run, scores_of)
    export_reference(run.path, tmp_path / "reference")
    own, exported = curves_of(load_results(run.path)), curves_of(load_results(tmp_path / "reference"))
    assert own["step"].tolist() == [0, 50, 0, 50] and own["seed"].tolist() == [0, 0, 1, 1]
    pd.testing.assert_frame_equal(own[[*KEYS, "validation_rmse"]], exported[[*KEYS, "validation_rmse"]])


def test_a_learner_called_nan_or_of_digits_keeps_its_name(new_run, scores_of, tmp_path):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    export_reference(run.path, tmp_path / "reference")
    text = "dataset,state,seed,learner,configuration,step,validation_rmse\ntoy,warm,0,nan,00012345,0,1.5\n"
    (tmp_path / "reference" / "curves.csv").write_text(text)
    found = curves_of(load_results(tmp_path / "reference"))
    assert found["learner"].tolist() == ["nan"] and found["configuration"].tolist() == ["00012345"]


def test_without_curves_or_with_a_broken_file_there_is_no_row(new_run, scores_of, tmp_path):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    assert len(curves_of(load_results(run.path))) == 0
    export_reference(run.path, tmp_path / "reference")
    reference = load_results(tmp_path / "reference")
    assert len(curves_of(reference)) == 0
    for broken in (
        b"",
        b"\xff\xfe\x00",
        b"a,b\n1,2\n",
        b"dataset,state,seed,learner,configuration,step\n1,2,x,4,5,6\n",
    ):
        (tmp_path / "reference" / "curves.csv").write_bytes(broken)
        found = curves_of(reference)
        assert len(found) == 0 and {*KEYS, "validation_rmse"} <= set(found.columns)
