"""The LaTeX tables: what is in them, that no text can break or command them, and that pdflatex takes them."""

import re
import shutil
import subprocess

import pytest

from fewrec.report import leaderboard, load_results
from fewrec.report.latex import latex, latex_text

HOSTILE = [
    r"\input{x}", "50% of #1", "a_b", "~tilde^hat", "R&D {x} }{", "$x$ & \\\\", '<"quoted"> | `tick\'',
    "100 %\nnext line",
    "--- '' ,, \\", "Žižek Łódź naïve ß", "ε=0.1, λ≥2", "名前 🙂", "\\end{table*}\\write18{rm}", "%",
    "\x1b[31m", "[3cm]", "*x",
]  # fmt: skip


def text_of(run, interval="percentile"):
    results = load_results(run.path)
    return latex(results, leaderboard(results, interval))


def rows_of(text):
    """Return the cells of each line of the first table that holds a row."""
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    return [[cell.strip() for cell in line.removesuffix(" \\\\").split(" & ")] for line in body.strip().splitlines()]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("50%", r"50\%"),
        ("#_&$", r"\#\_\&\$"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("a\n b\t", "a b"),
        ("user-cold", "user-cold"),
        ("a---b", "a-{}-{}-b"),
        ("naïve Ž", r"na\"{i}ve \v{Z}"),
        ("Łß", r"\L{}\ss{}"),
        ("ε λ", r"$\epsilon$ $\lambda$"),
        ("名", "[U+540D]"),
        (None, "None"),
        (5, "5"),
    ],
)
def test_texts_are_printed_literally(text, written):
    assert latex_text(text) == written


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_a_special_character_or_an_open_brace(text):
    written = latex_text(text)
    known = r"\\(?:text[a-z]+|char\d+|ss|[lLoO]|ae|AE|oe|OE|dots|[v\"'`^~=.]|[uHcrv])(?=\{)|\\[{}&%$#_]"
    bare = re.sub(known, "", re.sub(r"\$\\[a-z]+\$", "", written))
    assert not set(bare) & set('\\&%$#_~^<>|"`\n'), bare
    braces = re.sub(r"\\[{}]", "", written)
    assert braces.count("{") == braces.count("}") and written.isascii()


def test_best_ties_and_trivial_rows_are_marked(new_run, scores_of):
    run = new_run()
    base = scores_of(0.9)
    run.cell("bias", scores_of(1.3))
    run.cell("mine", base)
    run.cell("same", base)
    text = text_of(run)
    best, tie, trivial = rows_of(text)
    assert best[0] == "\\textbf{mine}" and re.fullmatch(r"\\textbf\{0\.\d{4} \[0\.\d{3}, 0\.\d{3}\]\}", best[1])
    assert tie[0] == "same" and tie[1].endswith("]\\,$\\approx$")
    assert trivial[0] == "\\textit{bias}" and "phantom" in trivial[1]
    assert "Holm-corrected" in text and "Italics: trivial baselines." in text and "percentile bootstrap" in text


def test_a_table_has_a_caption_a_label_a_note_and_the_figures_of_the_frame(small_run):
    text = text_of(small_run)
    frame = leaderboard(load_results(small_run.path))
    assert text.count("\\begin{table*}") == text.count("\\end{table*}") == text.count("\\toprule") == 2
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:toy-user-cold-n5-k5-q10", "tab:toy-user-cold-n5-k10-q10"]
    assert (
        f"\\caption{{toy, user-cold: N = 5, K = 5, Q = 10. 2 seeds, 60 episodes, {frame['users'][0]} users.}}" in text
    )
    assert "Worse than bias: worse." in text and "needs-text: not applicable: toy has no item text." in text
    assert "broken: failed: ValueError: a \\textbar{} b second line." in text
    first = rows_of(text)[0]
    assert f"{frame['ndcg5'][0]:.4f}" == first[3] and f"{frame['auc'][0]:.4f}" == first[4]
    assert first[2] == (
        f"${frame['diff_bias'][0]:.4f}$ [${frame['diff_bias_low'][0]:.4f}$, ${frame['diff_bias_high'][0]:.4f}$]"
    )
    assert first[6:] == ["1.00 a", "2.00", "2.00", "0.60"]


def test_every_row_has_as_many_cells_as_the_head(small_run):
    text = text_of(small_run)
    columns = re.search(r"\\begin\{tabular\}\{(lr+)\}", text)[1]
    lines = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(lines) == 8 and {line.count(" & ") for line in lines} == {len(columns) - 1}


def test_columns_without_figures_are_left_out_and_tuning_is_shown_where_there_is_some(new_run, scores_of):
    run = new_run()
    run.cell("item-popularity", scores_of(2.0).drop(columns=["se", "ae", "ndcg5"]))
    run.cell("mine", scores_of(0.5).drop(columns=["se", "ae", "ndcg5"]), tuning={"kind": "set"})
    text = text_of(run)
    head = next(line for line in text.splitlines() if line.startswith("learner &"))
    assert "RMSE" not in text and "nDCG" not in head and head.endswith("& tuning \\\\")
    assert head.startswith("learner & AUC [95\\,\\%] & AUC $-$ item-popularity [95\\,\\%] & skill")
    assert rows_of(text)[0][-1] == "set" and "Bold: the highest AUC." in text


def test_labels_of_tables_are_unique(new_run, scores_of):
    run = new_run()
    for dataset in ("Toy!", "toy?", "toy"):
        run.cell("bias", scores_of(1.0), dataset=dataset)
    labels = re.findall(r"\\label\{(.*)\}", text_of(run))
    assert len(set(labels)) == 3 and all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)


def test_nothing_of_the_manifest_ends_the_comment_at_the_top(new_run, scores_of):
    run = new_run("x")
    run.cell("bias", scores_of(1.0))
    manifest = (run.path / "manifest.json").read_text()
    (run.path / "manifest.json").write_text(manifest.replace("fewrec run tiny", "fewrec\\n\\\\input{evil}"))
    first, second, _ = text_of(run).split("\n", 2)
    assert first.startswith("% ") and "input{evil}" in first and second.startswith("% ")


def has_booktabs():
    if not shutil.which("pdflatex") or not shutil.which("kpsewhich"):
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, text=True)
    return found.returncode == 0


@pytest.mark.skipif(not has_booktabs(), reason="pdflatex with the package booktabs is not installed")
def test_pdflatex_takes_the_tables_whatever_the_names(new_run, scores_of, tmp_path):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    for text in HOSTILE:
        run.cell("mine", scores_of(0.9), label=text)
    run.cell("broken", status="failed", reason=" ".join(HOSTILE))
    (tmp_path / "leaderboard.tex").write_text(text_of(run), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n\\input{leaderboard}\n\\end{document}\n"
    )
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000
