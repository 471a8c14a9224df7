"""What runs leave: results folders, states of meta-fits, parsed copies of data, saved learners, fine-tuning folders."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save

from fewrec.data import parsed as parsed_module
from fewrec.data.cards import load_card
from fewrec.data.parsed import parsed
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.finetune.folder import FinetuneFolder
from fewrec.finetune.show import as_markdown
from fewrec.learners.base import Context
from fewrec.learners.registry import learner_class
from fewrec.learners.saved import differences, load_learner, read_record, save_learner
from fewrec.learners.saved_record import TrainedOn
from fewrec.report.beside import PAIRS, STEPS, rows_beside
from fewrec.report.comparison.integrity import check_integrity
from fewrec.report.export import export_reference
from fewrec.report.published import published_rows
from fewrec.report.results import load_results
from fewrec.runner.cell import CellSpec
from fewrec.runner.store import RunFolder
from tests.data.test_parsed import made
from tests.fuzz.harness import Target
from tests.fuzz.inputs import changed, changed_tree, folders, inside_known
from tests.fuzz.test_frozen import files_of
from tests.report.conftest import RunWriter, drawn_scores


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[dict[str, bytes]]:
    """Return the files of a small run with a failed cell, and of the reference that it exports."""
    folder = tmp_path_factory.mktemp("runs")
    run = RunWriter(folder / "run")
    for learner, noise in (("bias", 1.0), ("better", 0.9)):
        run.cell(learner, drawn_scores(noise, episodes=4, n_users=3, pool=12), blocks=2, n_users=3)
    run.cell("broken", status="failed", reason="ValueError: a | b", n_users=3)
    manifest = json.loads((folder / "run/manifest.json").read_text())
    manifest["suite"]["published"] = [{"label": "x", "figures": {"MAE@5": 0.7, "MAE@10": 1}, "source": "table 2"}]
    (folder / "run/manifest.json").write_text(json.dumps(manifest))
    small = files_of(folder / "run")
    export_reference(folder / "run", folder / "reference")
    return [small, files_of(folder / "reference")]


def test_a_folder_of_results(fuzz, runs):
    def read(folder):
        results = load_results(folder)
        assert set(results.scores["cell"]) <= set(results.cells["cell"]) and len(results.metadata) == len(results.cells)
        published_rows(results)
        for kind in (PAIRS, STEPS):
            rows_beside(folder, kind)

    fuzz(Target("results", "`fewrec.report.results.load_results`", read), runs, folders(runs, inside=inside_known))


def test_the_tables_of_a_folder_of_results(fuzz, runs, monkeypatch):
    """Whatever is loaded can be shown, or is refused: tables, and what ``fewrec verify`` says of the folder."""
    monkeypatch.setattr("fewrec.report.figures.REPLICATES", 20)  # intervals are not what is tested here
    monkeypatch.setattr("fewrec.report.figures._REPLICATES_A_ROW", 2)

    def read(folder):
        check_integrity(load_results(folder))  # which makes all tables, to compare them with those that are there

    target = Target("results-tables", "`fewrec.report`: leaderboard, files, integrity", read)
    fuzz(target, runs, folders(runs, inside=inside_known))


SPEC = CellSpec("toy", Protocol(state="user-cold", k_max=3), 2, 3, 4, 10, 5, 5, 0, "knn", "knn", {"neighbours": 20})
MANIFEST = {
    "environment": {"python": "3", "versions": {}},
    "datasets": {"toy": {"sha256": "a", "scale": [1, 5], "kind": "ratings"}},
    "splits": {},
}


def test_a_run_goes_on_in_a_folder_whatever_lies_in_it(fuzz):
    record = {"schema": 1, "spec": SPEC.canonical(), "spec_hash": SPEC.spec_hash, "code_hash": "c0de", "status": "ok"}
    begun = {"schema": 1, "code_hash": "c0de", "row": SPEC.row_key()}
    meta = {"schema": 1, "values": {"a": [1]}, "loaded": {}, "prepare_s": 1.0, "curve": []}
    files = {
        "manifest.json": json.dumps(MANIFEST), f"cells/{SPEC.spec_hash}/cell.json": json.dumps(record),
        f"cells/{SPEC.spec_hash}/begun.json": json.dumps(begun), "meta/key/meta.json": json.dumps(meta),
    }  # fmt: skip
    seed = {name: text.encode() for name, text in files.items()}
    seed["meta/key/state.safetensors"] = save({"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)})

    def read(folder):
        run = RunFolder(folder)
        run.open(json.loads(json.dumps(MANIFEST)))
        try:
            run.set_aside_replaced([SPEC])
            found = run.finished(SPEC, "c0de")
            assert found is None or (found["status"], found["code_hash"]) == ("ok", "c0de")
            if found is None:
                assert run.begin_cell(SPEC, "c0de").is_dir()
            state = run.meta_fits.read("key")
            assert state is None or (
                isinstance(state[1], dict) and all(isinstance(t, torch.Tensor) for t in state[0].values())
            )
        finally:
            run.close()

    target = Target("run-folder", "`fewrec.runner.store.RunFolder`", read, names=("--out",))
    fuzz(target, [seed], folders([seed], inside=inside_state))


def inside_state(r, name, content):
    """Change the header of safetensors as the JSON that it is; JSON and Parquet as ever."""
    if not name.endswith(".safetensors"):
        return inside_known(r, name, content)
    size = int.from_bytes(content[:8], "little")
    try:
        header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    except (ValueError, RecursionError):
        return None
    how = r.randint(0, 3)
    text = json.dumps(changed_tree(r, header)).encode() if how else changed(r, content[8 : 8 + size])
    length = len(text) if r.randint(0, 9) else r.choice([0, 1, 2**20, 2**40, 2**63, len(text) + 1])
    return length.to_bytes(8, "little") + text + body


def facts(data) -> list:
    """Return what tells one data set from another."""
    ids = [data.user_ids.tolist(), data.catalog.item_ids.tolist(), data.user_set.tolist()]
    return [data.table.sha256, data.catalog.text_sha256, data.features_sha256, data.notes, *ids]


def test_what_was_parsed_before_is_the_data_set_or_is_read_again(fuzz, tmp_path, monkeypatch):
    monkeypatch.setattr(parsed_module, "LEAST_RATINGS", 1)
    card, sums = load_card("ml-1m"), {"ratings": "a" * 64}
    seeds = []
    for n, data in enumerate((made(True), made(False, 0.1, False))):
        parsed(card, tmp_path / str(n), sums, lambda data=data: data)
        seeds.append((data, files_of(tmp_path / str(n))))

    class Again(Exception):
        pass

    def again():
        raise Again

    def read(folder):
        try:
            found = parsed(card, folder, sums, again)
        except Again:
            return
        assert facts(found) in [facts(data) for data, _ in seeds], "another data set"

    files = [files for _, files in seeds]
    fuzz(Target("parsed-copy", "`fewrec.data.parsed.parsed`", read), files, folders(files, inside=inside_known))


def test_a_saved_learner(fuzz, tmp_path):
    data = make_synthetic(n_users=40, n_items=20, ratings_per_user=12, seed=3)
    split = split_dataset(data, Protocol(state="user-cold", k_max=2), 0)
    ctx = Context(torch.device("cpu"), split.catalog, data.scale, tmp_path / "cache")
    from fewrec.episodes.meta import MetaTrainSet

    seeds = []
    for name in ("bias", "mf-foldin"):
        learner = learner_class(name)()
        learner.prepare(ctx)
        learner.meta_fit(MetaTrainSet(split, data.scale), ctx)
        save_learner(learner, tmp_path / name, TrainedOn.of(data, split), code_hash="abc", seconds=1.0)
        seeds.append(files_of(tmp_path / name))

    def read(folder):
        record = read_record(folder)
        if record.trained_on.n_items == len(data.catalog):  # of another data set it is never asked
            record.trained_on.seen()
        differences(record, data, "abc")
        learner = load_learner(folder, ctx, record=record)
        assert learner.name == record.learner

    def crafted(files):
        import hashlib

        try:
            record = json.loads(files["learner.json"])
            record["state_sha256"] = hashlib.sha256(files["state.safetensors"]).hexdigest()
            return {**files, "learner.json": json.dumps(record).encode()}
        except (ValueError, TypeError, KeyError, RecursionError):
            return files

    target = Target("saved-learner", "`fewrec.learners.saved.load_learner`", read)
    strategy = folders(seeds, inside=inside_state)
    fuzz(target, seeds, strategy | strategy.map(crafted))


ROW = {
    "label": "bias",
    "trivial": True,
    **{f"{name}{end}": 0.5 for name in ("mse", "mae", "rmse", "diff_bias") for end in ("", "_low", "_high")},
}


def test_a_folder_of_fine_tuning(fuzz):
    identity, environment = {"train": "a" * 64, "epochs": 3}, {"python": "3", "threads": 1, "versions": {}}
    manifest = {"kind": "fewrec finetune", "schema": 1, "run": identity, "environment": environment}
    state = save({"model.w": torch.ones(2, 2), "step": torch.tensor(3)})
    checkpoint = {"schema": 1, "state": "state-00002.safetensors", "epochs": [{"train_mse": 1.0}, {"train_mse": 0.5}]}
    results = {"data": {"test_ratings": 3, "test_users": 2}, "rows": [ROW], "train_mse": [1.0]}
    timings = {"rows": {"bias": {"fit_s": 1.0, "predict_s": 0.1}}}
    first = {"manifest.json": json.dumps(manifest).encode(), "checkpoint.json": json.dumps(checkpoint).encode(),
             "state-00002.safetensors": state}  # fmt: skip
    second = {"manifest.json": first["manifest.json"], "results.json": json.dumps(results).encode(),
              "timings.json": json.dumps(timings).encode()}  # fmt: skip

    def read(folder):
        with FinetuneFolder(folder).open(identity, environment) as held:
            kept = held.kept()
            if kept is not None:
                epochs, tensors = kept
                assert isinstance(epochs, list) and all(isinstance(one, dict) for one in epochs)
                assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
            done = held.finished()
            if done is not None:
                assert as_markdown(*done)

    target = Target("finetune-folder", "`fewrec.finetune.folder.FinetuneFolder`", read, names=("--out",))
    seeds = [first, second]
    fuzz(target, seeds, folders(seeds, inside=inside_state))
