"""The documentation keeps what it says: its examples run as they stand, its links lead somewhere, the site builds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = {"sh", "python"}  # fences of these languages are executed, in order; bash, toml and text are shown only


def fences(page: Path) -> list[tuple[str, str]]:
    """Return (language, code) of a page's fenced blocks, those inside lists included."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [(token.info.strip(), token.content) for token in tokens if token.type == "fence"]


EXECUTED = [page for page in PAGES if page.parent.name == "docs" and RUN & {language for language, _ in fences(page)}]


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_in_order_in_an_empty_folder(page, tmp_path, ml_100k):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "results").symlink_to(ROOT / "results")
    for number, (language, code) in enumerate(fences(page)):
        if language not in RUN:
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-P", "-c", code]
        if language == "python" and code.startswith("# ") and (name := code.split()[1]).endswith(".py"):
            (tmp_path / name).write_text(code)  # a block that names a file is that file
            continue
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (
            f"{page.name}, block {number}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_that_is_shown_exists(page):
    import click

    from fewrec.cli import main

    for language, code in fences(page):
        if language not in {"sh", "bash"}:
            continue
        for line in code.replace("\\\n", " ").splitlines():
            found = re.match(r"^(?:\S*/)?fewrec (.*?)(?:#.*)?$", line.strip())
            if not found:
                continue
            words = found[1].split()
            command: click.Command = main
            with click.Context(main) as context:
                while words and isinstance(command, click.Group):
                    name = words.pop(0)
                    child = command.get_command(context, name)
                    assert child is not None, f"{page.name}: fewrec {name} is no command"
                    command = child
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert used <= known, f"{page.name}: {line}: unknown option {', '.join(sorted(used - known))}"


def test_links_to_files_and_headings_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)", text):
            file, _, anchor = target.partition("#")
            path = (page.parent / file) if file else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor and path.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page.name}: {target} has no such heading"


def test_external_links_are_secure_and_name_no_placeholder():
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for address in re.findall(r"https?://[^\s)>\"]+", prose):
            assert address.startswith("https://") and "example.org" not in address, f"{page.name}: {address}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="the documentation's build needs: pip install 'fewrec[docs]'")
    pytest.importorskip("material", reason="the documentation's build needs: pip install 'fewrec[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_every_page(site):
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= {page.stem for page in site.glob("*.html")}


@pytest.mark.slow
def test_the_site_asks_no_other_server_for_anything(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?://[^\"]+)", text)
        loaded += re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect|preload)\"[^>]+href=\"(https?://[^\"]+)", text)
        assert loaded == [], f"{page.name}: {loaded}"


@pytest.mark.slow
def test_every_learner_has_a_section_with_its_definition(site):
    from fewrec.learners.registry import BUILTIN

    text = (site / "learner_reference.html").read_text(encoding="utf-8")
    missing = [name for name in BUILTIN if f'id="{name}"' not in text]
    assert not missing
    assert "exact posterior mean given the support" in re.sub(r"<[^>]+>|\s+", " ", text)  # a sentence of gp's docstring


def test_every_column_of_the_leaderboard_is_explained():
    from fewrec.report.leaderboard import COLUMNS

    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []
