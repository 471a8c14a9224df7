"""Nothing is unpickled, evaluated or handed to a shell: by the sources, and by files that try."""

from __future__ import annotations

import ast
import gzip
import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewrec.data.own import load_own
from fewrec.data.parquet import read_flat
from fewrec.errors import DataError
from tests.security.test_remote_code import Trap

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fewrec", "scripts", "benchmarks", "examples")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle", "imp"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save", "np.save",
         "np.load", "numpy.load", "pd.read_pickle", "pd.eval", "subprocess.getoutput", "torch.hub.load"}  # fmt: skip
METHODS = {"read_pickle", "to_pickle", "exec_module", "import_module", "unsafe_load"}
ALLOWED = {
    ("fewrec/__init__.py", "import_module"): "its own modules, when they are first asked for",
    ("fewrec/cli/group.py", "import_module"): "the module of a command, from a table in the sources",
    ("fewrec/conformance/examine.py", "import_module"): "its own modules of checks",
    ("fewrec/data/pretrained.py", "import_module"): "torchvision, to see whether it can be imported",
    ("fewrec/tracking/base.py", "import_module"): "the tracker that --track names, one of three",
    ("fewrec/learners/registry.py", "import_module"): "plugins: code that the user asks for",
    ("fewrec/learners/registry.py", "exec_module"): "plugins: code that the user asks for",
    ("fewrec/data/parsed.py", "np.save"): "with allow_pickle=False",
    ("fewrec/data/parsed.py", "np.load"): "with allow_pickle=False",
    ("fewrec/runner/executors/shared.py", "pickle"): "data sets from a run to its own workers, in nameless memory",
    ("benchmarks/perf/test_meta_training.py", "exec_module"): "a peer's loop, which lies beside it",
}


def offences(source: str) -> list[tuple[int, str]]:
    """Return (line, name) of what reads pickles, evaluates text or opens a shell in a source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, node.module)] * (node.module.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rsplit(".", 1)[-1]
            if name in CALLS or last in METHODS:
                found.append((node.lineno, name if name in CALLS else last))
            for keyword in node.keywords:
                is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in ("allow_pickle", "shell") and not is_off:
                    found.append((node.lineno, keyword.arg))
                if keyword.arg == "weights_only" and is_off:
                    found.append((node.lineno, keyword.arg))
    return found


def test_no_source_unpickles_evaluates_or_opens_a_shell():
    used = set()
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            source = file.read_text(encoding="utf-8")
            for line, what in offences(source):
                assert (name, what) in ALLOWED, f"{name}:{line}: {what}"
                used.add((name, what))
                if what in ("np.load", "np.save"):
                    assert "allow_pickle=False" in source.splitlines()[line - 1]
    assert used == set(ALLOWED), f"no longer needed: {set(ALLOWED) - used}"


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "import yaml", "torch.load(f)", "np.load(f)", "f(allow_pickle=True)",
     "x.read_pickle(f)", "eval('1')", "exec(code)", "subprocess.run('ls', shell=True)", "run(x, shell=y)",
     "os.system('ls')", "m.spec.loader.exec_module(m)"],
)  # fmt: skip
def test_the_test_above_would_notice(source):
    assert offences(source)


@pytest.mark.parametrize("ending", [".pkl", ".pickle", ".npy", ".npz", ".csv", ".csv.gz", ".parquet", ".data"])
def test_a_pickle_given_as_data_is_refused_and_not_opened(ending, tmp_path):
    trap, out = tmp_path / "trap", io.BytesIO()
    content = pickle.dumps(Trap(trap))
    if ending == ".npy":
        np.save(out, np.array([Trap(trap)], object), allow_pickle=True)
    elif ending == ".npz":
        np.savez(out, user=np.array([Trap(trap)], object))
    else:
        out.write(gzip.compress(content) if ending.endswith("gz") else content)
    (tmp_path / f"my{ending}").write_bytes(out.getvalue())
    with pytest.raises(DataError) as caught:
        load_own(tmp_path / f"my{ending}")
    assert "\n" not in str(caught.value) and not trap.exists()


def test_what_pandas_notes_in_a_parquet_file_and_types_of_an_extension_stay_data(tmp_path):
    trap = tmp_path / "trap"
    content = pickle.dumps(Trap(trap))
    frame = pd.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "rating": [1, 2, 3, 4]})
    table = pa.Table.from_pandas(frame)
    evil = pa.field("evil", pa.binary(), metadata={
        "ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": content,
    })  # fmt: skip
    table = table.append_column(evil, pa.array([content] * 4, pa.binary()))
    notes = {b"pandas": content, b"evil": content}
    pq.write_table(table.replace_schema_metadata(notes), tmp_path / "my.parquet")
    found = read_flat(tmp_path / "my.parquet")
    assert found["rating"].tolist() == [1, 2, 3, 4] and len(load_own(tmp_path / "my.parquet").table) == 4
    assert not trap.exists()


def test_a_pickle_in_a_kept_table_is_not_opened(tmp_path, monkeypatch):
    from fewrec.data import parsed
    from fewrec.data.cards import load_card
    from tests.data.test_parsed import FILES, made

    monkeypatch.setattr(parsed, "LEAST_RATINGS", 1)
    card, first = load_card("ml-1m"), made(True)
    parsed.parsed(card, tmp_path, FILES, lambda: first)
    (folder,) = tmp_path.glob("parsed-*")
    for file in [*folder.glob("*.npy"), *folder.glob("*.parquet")]:
        kept = file.read_bytes()
        out = io.BytesIO()
        np.save(out, np.array([Trap(tmp_path / "trap")] * 10, object), allow_pickle=True)
        file.write_bytes(out.getvalue())
        assert parsed.parsed(card, tmp_path, FILES, lambda: first) is first  # read again
        lying = io.BytesIO()
        np.lib.format.write_array_header_1_0(lying, {"descr": "<i8", "fortran_order": False, "shape": (1 << 61,)})
        file.write_bytes(lying.getvalue())
        assert parsed.parsed(card, tmp_path, FILES, lambda: first) is first
        assert not (tmp_path / "trap").exists()
        (folder,) = tmp_path.glob("parsed-*")
        if not file.exists() or file.read_bytes() != kept:
            file.write_bytes(kept)
