"""Suites: validated TOML, overrides from the command line, and the grid of cells that they expand to."""

import pytest

from fewrec.errors import SuiteError
from fewrec.runner.override import override
from fewrec.runner.suite import list_suites, load_suite, parse_suite
from fewrec.runner.tuned_rows import load_tuned
from fewrec.seeding import digest
from tests.runner.conftest import TINY


def test_the_grid_has_every_combination_once():
    cells = parse_suite(TINY, "tiny").cells()
    assert len(cells) == len({cell.spec_hash for cell in cells}) == 2 * 2 * 3
    assert {(cell.k_shot, cell.seed, cell.label) for cell in cells} == {
        (k, s, name) for k in (2, 3) for s in (0, 1) for name in ("global-mean", "user-mean", "bias")
    }


def test_k_max_is_the_largest_numeric_k_unless_the_suite_says_otherwise():
    assert [protocol.k_max for protocol in parse_suite(TINY, "t").protocols_of("user-cold")] == [3]
    assert [protocol.k_max for protocol in parse_suite("k_max = 8\n" + TINY, "t").protocols_of("user-cold")] == [8]


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
            r"'bias': user_ridge: -2 is not above 0",
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


def test_a_backbone_is_set_and_said_in_every_row_that_has_one(tmp_path):
    suite = parse_suite(TINY, "t")
    with pytest.raises(SuiteError, match=r"--backbone x/y: no learner in suite t reads texts with one"):
        override(suite, "t", backbone="x/y")
    more = ["bias", "bert-finetune", "prompt-lm"]
    changed = override(suite, "t", learners=more, backbone="x/y", settings={"prompt-lm": {"epochs": 2}})
    labels = ["bias", "bert-finetune[backbone=x/y]", "prompt-lm[backbone=x/y][epochs=2]"]
    assert [row.shown for row in changed.learners] == labels
    backbones = {cell.label: cell.config.get("backbone") for cell in changed.cells()}
    assert backbones == dict(zip(labels, (None, "x/y", "x/y"), strict=True))
    chosen = override(suite, "t", learners=more, backbone="x/y", settings={"prompt-lm": {"backbone": "a/b"}})
    assert chosen.learners[-1].shown == "prompt-lm[backbone=a/b]"
    (tmp_path / "mine").mkdir()
    local = override(suite, "t", learners=["prompt-lm"], backbone=str(tmp_path / "mine"))
    assert local.learners[0].shown == "prompt-lm[backbone=mine]"
    assert local.learners[0].config["backbone"] == str(tmp_path / "mine")


def test_overrides_replace_data_sets_shots_and_seeds():
    suite = override(parse_suite(TINY, "t"), "t", shots=[1, "rest"], seeds=[7], datasets=["other"], episodes=3)
    assert (suite.shots, suite.seeds, suite.datasets, suite.episodes) == ((1, "rest"), (7,), ("other",), 3)
    with pytest.raises(SuiteError, match="shots: -3 is below 0"):
        override(suite, "t", shots=[-3])


TUNED = """
[[learners]]
learner = "bias"
label = "bias (tuned)"
[learners.config]
item_ridge = 5.0
meta_user_ridge = 10.0
user_ridge = 2.5
[learners.tuned]
budget = 20
trials = 19
method = "tpe"
seeds = [0, 1]
dataset = "tiny"
suite = "t"
study = "abc"
config_hash = "HASH"
validation_rmse = 0.9
default_rmse = 1.0
""".replace("HASH", digest({"item_ridge": 5.0, "meta_user_ridge": 10.0, "user_ridge": 2.5}))


def tuned_file(tmp_path, text=TUNED, name="bias.toml"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_tuned_rows_stand_behind_those_of_their_learner(tmp_path):
    rows = load_tuned([tuned_file(tmp_path)])
    suite = override(parse_suite(TINY, "t"), "t", learners=["bias", "user-mean"], tuned=rows)
    assert [row.shown for row in suite.learners] == ["bias", "bias (tuned)", "user-mean"]
    assert suite.tuning()["bias"] == {"kind": "default"}
    told = suite.tuning()["bias (tuned)"]
    assert (told["kind"], told["budget"], told["trials"], told["seeds"]) == ("tuned", 20, 19, [0, 1])
    alone = override(parse_suite(TINY, "t"), "t", learners=["user-mean"], tuned=rows)
    assert [row.shown for row in alone.learners] == ["user-mean", "bias (tuned)"]


def test_a_tuned_row_can_be_written_into_a_suite_and_its_specification_does_not_know_of_it():
    suite = TINY.replace('learners = ["global-mean", "user-mean", "bias"]', "") + TUNED
    cells = parse_suite(suite, "t").cells()
    by_hand = parse_suite(suite[: suite.index("[learners.tuned]")], "t").cells()
    assert [cell.spec_hash for cell in cells] == [cell.spec_hash for cell in by_hand]
    assert parse_suite(suite, "t").tuning()["bias (tuned)"]["kind"] == "tuned"


def test_an_option_changed_after_tuning_makes_the_row_one_that_is_set_by_hand(tmp_path):
    edited = load_tuned([tuned_file(tmp_path, TUNED.replace("user_ridge = 2.5", "user_ridge = 2.6"))])
    assert override(parse_suite(TINY, "t"), "t", tuned=edited).tuning()["bias (tuned)"] == {"kind": "set"}
    rows = load_tuned([tuned_file(tmp_path)])
    suite = override(parse_suite(TINY, "t"), "t", learners=["user-mean"], tuned=rows,
                     settings={"bias (tuned)": {"user_ridge": 3.0}})  # fmt: skip
    assert suite.tuning()["bias (tuned)[user_ridge=3.0]"] == {"kind": "set"}


def test_a_suite_without_tuned_rows_is_dumped_as_before():
    assert parse_suite(TINY, "t").model_dump()["learners"][0] == {"learner": "global-mean", "label": "", "config": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("budget = 20", "budgte = 20"), "bias.toml: .*, row 1: unknown key 'tuned.budgte'; did you mean 'budget'"),
        (("budget = 20", "budget = 0"), "bias.toml: .*learners, row 1: tuned.budget: 0 is below 1"),
        (("[learners.tuned]", "[learners.made]"), "learners, row 1: unknown key 'made'"),
        ((TUNED[TUNED.index("[learners.tuned]") :], ""), r"row 'bias \(tuned\)' has no table \[learners.tuned\]"),
        (("[[learners]]", "[[learners"), "bias.toml: can't be read"),
        ((TUNED, "title = 'x'"), "bias.toml: "),
    ],
)
def test_a_wrong_file_of_tuned_rows_is_refused_in_one_line(change, message, tmp_path):
    with pytest.raises(SuiteError, match=message) as caught:
        load_tuned([tuned_file(tmp_path, TUNED.replace(*change))])
    assert "\n" not in str(caught.value)


def test_two_files_with_one_label_are_refused_and_the_same_row_twice_is_one(tmp_path):
    first = tuned_file(tmp_path)
    other = tuned_file(tmp_path, TUNED.replace("user_ridge = 2.5", "user_ridge = 3.5"), "other.toml")
    with pytest.raises(SuiteError, match=r"the label 'bias \(tuned\)' stands in .*bias.toml too"):
        load_tuned([first, other])
    assert len(load_tuned([first, tuned_file(tmp_path, name="copy.toml")])) == 1
    with pytest.raises(SuiteError, match="none.toml: no such file; write it with: fewrec tune"):
        load_tuned([tmp_path / "none.toml"])


def test_a_list_of_conditions_makes_a_table_of_each_and_those_that_share_a_meta_fit_are_neighbours():
    text = TINY + '[protocol]\nsupport_noise = [0, 0.5]\norder = ["random", "time"]\nquery_strata = 1\n'
    _, suite = "tiny", parse_suite(text, "tiny").model_copy(update={"states": ("user-cold", "both-cold")})
    cells = suite.cells()
    assert len(cells) == len({cell.spec_hash for cell in cells}) == 2 * 2 * 2 * len(parse_suite(TINY, "t").cells())
    seen = []
    for cell in cells:
        of_fit = (cell.protocol.state, cell.protocol.order, cell.seed, cell.label)
        assert of_fit == seen[-1] if of_fit in seen else True
        seen.append(of_fit)
    assert {cell.protocol.support_noise for cell in cells} == {0.0, 0.5}
    plain = [cell.spec_hash for cell in parse_suite(TINY, "t").cells()]
    assert set(plain) <= {cell.spec_hash for cell in cells}  # other values of a condition leave its cells alone


def test_conditions_of_unseen_items_multiply_only_the_states_that_have_them():
    suite = parse_suite(TINY + "[protocol]\nitem_shots = [0, 3]\n", "tiny")
    assert [p.item_shots for p in suite.protocols_of("user-cold")] == [0]
    assert [p.item_shots for p in suite.protocols_of("both-cold")] == [0, 3]


@pytest.mark.parametrize(
    "table, message",
    [
        ("support_noise = []", "at least one value"),
        ('order = ["random", "time"]\nquery_strata = 2', "query_strata needs order"),
        ("support_noise = [0.1, 2]", "protocol.support_noise: 2 is above 1"),
        ("user_ratings = [9, 3]", "not 9 and 3"),
    ],
)
def test_a_wrong_condition_is_refused_before_anything_is_loaded(table, message):
    with pytest.raises(SuiteError, match=message):
        parse_suite(TINY + f"[protocol]\n{table}\n", "tiny")


def test_conditions_of_a_run_replace_those_of_the_suite():
    suite = parse_suite(TINY + "[protocol]\nsupport_noise = 0.1\nitem_shots = 2\n", "tiny")
    changed = override(suite, "tiny", order="time", conditions={"support_noise": [0.0, 0.5], "item_shots": [1]})
    assert changed.protocol.support_noise == (0.0, 0.5) and changed.protocol.order == ("time",)
    assert changed.protocol.item_shots == (1,)
    assert changed.model_dump()["protocol"]["item_shots"] == 1
    with pytest.raises(SuiteError, match="--condition support_nois: there is no such condition; did you mean"):
        override(suite, "tiny", conditions={"support_nois": [1]})


def test_ndcg_at_several_k_is_a_list_in_ascending_order_and_one_k_a_number_as_before():
    plain, one = parse_suite(TINY, "t").cells()[0], parse_suite("ndcg_at = [5]\n" + TINY, "t").cells()[0]
    assert one == plain and one.canonical()["ndcg_at"] == 5
    cell = parse_suite("ndcg_at = [3, 1]\n" + TINY, "t").cells()[0]
    assert cell.canonical() == plain.canonical() | {"ndcg_at": [1, 3]} and cell.spec_hash != plain.spec_hash
    assert cell.row_key() == plain.row_key() and type(cell).from_canonical(cell.canonical()) == cell
    for wrong in ("0", "[]", "[0, 3]"):
        with pytest.raises(SuiteError, match="ndcg_at: give a k of 1 or more"):
            parse_suite(f"ndcg_at = {wrong}\n" + TINY, "t")


def test_figures_of_the_highest_rated_items_are_asked_for_by_k_and_change_no_other_hash():
    plain, top = parse_suite(TINY, "t").cells(), parse_suite("top_at = 3\n" + TINY, "t").cells()
    assert "top_at" not in plain[0].canonical() and top[0].canonical() == plain[0].canonical() | {"top_at": 3}
    assert top[0].row_key() == plain[0].row_key()
    for cell in (plain[0], top[0]):
        assert type(cell).from_canonical(cell.canonical()) == cell
