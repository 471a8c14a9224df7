"""Suites: validated TOML, overrides from the command line, and the grid of cells that they expand to."""

import pytest

from fewrec.errors import SuiteError
from fewrec.runner.suite import list_suites, load_suite, override, parse_suite
from tests.runner.conftest import TINY


def test_the_grid_has_every_combination_once():
    cells = parse_suite(TINY, "tiny").cells()
    assert len(cells) == len({cell.spec_hash for cell in cells}) == 2 * 2 * 3
    assert {(cell.k_shot, cell.seed, cell.label) for cell in cells} == {
        (k, s, name) for k in (2, 3) for s in (0, 1) for name in ("global-mean", "user-mean", "bias")
    }


def test_k_max_is_the_largest_numeric_k_unless_the_suite_says_otherwise():
    assert parse_suite(TINY, "t").protocol_of("user-cold").k_max == 3
    assert parse_suite("k_max = 8\n" + TINY, "t").protocol_of("user-cold").k_max == 8


@pytest.mark.parametrize("name", sorted(list_suites()))
def test_every_suite_that_comes_with_fewrec_is_valid_and_has_a_title_and_trivial_rows(name):
    _, suite = load_suite(name)
    assert suite.title and suite.cells()
    assert {"bias", "global-mean", "user-mean", "item-mean"} <= {row.learner for row in suite.learners}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TINY.replace("episodes = 6", "epizodes = 6"), r"tiny.toml: .*unknown key 'epizodes'; did you mean 'episodes'"),
        (TINY + "[protocol]\nordr = 'time'\n", r"unknown key 'protocol.ordr'; did you mean 'order'"),
        (TINY.replace('"bias"]', '"bais"]'), r"unknown learner 'bais'; did you mean 'bias'"),
        (TINY.replace('"bias"]', '"bias", "bias"]'), r"the label 'bias' stands twice"),
        (
            TINY.replace('"bias"]', '{learner = "bias", config = {user_rigde = 2}}]'),
            r"'bias': unknown key 'user_rigde'; did you",
        ),
        (
            TINY.replace('"bias"]', '{learner = "bias", config = {user_ridge = -2}}]'),
            r"'bias': user_ridge: .*greater than 0",
        ),
        (TINY.replace("shots = [2, 3]", "shots = [-1]"), r"shots: -1 is below 0"),
        (TINY.replace("shots = [2, 3]", "shots = ['all']"), r"shots"),
        (TINY.replace("n_query = 6", "n_query = 0"), r"n_query: 0 is below 1"),
        (TINY.replace('states = ["user-cold"]', 'states = ["lukewarm"]'), r"states"),
        ("k_max = 1\n" + TINY, r"k_max: 1 is below the largest K, 3"),
        (TINY + "[", r"not valid TOML"),
    ],
)
def test_a_wrong_suite_is_refused_in_one_line_that_names_the_key(text, message):
    with pytest.raises(SuiteError, match=message) as caught:
        parse_suite(text, "tiny.toml").cells()
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_names_the_nearest():
    with pytest.raises(SuiteError, match="unknown suite 'quik'; did you mean 'quick'"):
        load_suite("quik")


def test_only_some_learners_and_others_beside_the_suites():
    suite = override(parse_suite(TINY, "t"), "t", learners=["bias", "item-mean"])
    assert [row.shown for row in suite.learners] == ["bias", "item-mean"]
    with pytest.raises(SuiteError, match="unknown learner 'biass'"):
        override(suite, "t", learners=["biass"])


def test_a_setting_changes_the_option_and_the_label():
    suite = override(parse_suite(TINY, "t"), "t", settings={"bias": {"user_ridge": 2.0}})
    row = suite.learners[-1]
    assert row.shown == "bias[user_ridge=2.0]"
    assert suite.cells()[-1].config["user_ridge"] == 2.0
    with pytest.raises(SuiteError, match="--set mf: no such learner in suite t"):
        override(suite, "t", settings={"mf": {"rank": 2}})


def test_overrides_replace_data_sets_shots_and_seeds():
    suite = override(parse_suite(TINY, "t"), "t", shots=[1, "rest"], seeds=[7], datasets=["other"], episodes=3)
    assert (suite.shots, suite.seeds, suite.datasets, suite.episodes) == ((1, "rest"), (7,), ("other",), 3)
    with pytest.raises(SuiteError, match="shots: -3 is below 0"):
        override(suite, "t", shots=[-3])
