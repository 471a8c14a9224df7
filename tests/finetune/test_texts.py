"""What the encoder reads of a rating, and that no line is tokenised twice."""

import pytest
import torch

from fewrec.data.weights import find_weights
from fewrec.errors import DataError
from fewrec.finetune.batches import epoch_batches, epoch_generator, epoch_key, padded_tokens
from fewrec.finetune.model import load_regressor
from fewrec.finetune.options import FinetuneOptions
from fewrec.finetune.pairs import read_pairs
from fewrec.finetune.texts import inputs, item_texts, texts_of, tokenise


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return load_regressor(find_weights(tiny_bert), FinetuneOptions(), torch.Generator())[1]


def test_a_line_is_the_users_id_and_the_items_text(here):
    pairs = read_pairs("train.csv", "test.csv", items="titles.csv")
    items = item_texts(pairs, pairs.texts, "titles.csv")
    lines = inputs(pairs, items)
    first = lines.lines[lines.train[0]]
    item, user, _ = (here / "train.csv").read_text().splitlines()[1].split(",")
    assert first == f"user {user}: {items.texts[pairs.item_ids.index(item)]}"
    assert items.without == 0 and not items.warnings
    assert "quiet Drama, War." in items.texts


def test_without_texts_the_items_id_is_the_text_and_that_is_said_loudly(here):
    pairs = read_pairs("train.csv", "test.csv")
    items = item_texts(pairs, None, "")
    assert set(items.texts) == {f"item {i}" for i in pairs.item_ids}
    assert "no item texts" in items.warnings[0] and "knows nothing of an item" in items.warnings[0]
    assert "--items FILE or --dataset NAME" in items.warnings[0]


def test_items_without_a_text_are_counted_and_named_and_none_at_all_is_refused(here):
    pairs = read_pairs("train.csv", "test.csv")
    items = item_texts(pairs, {"100": "Garden", "101": " "}, "titles.csv")
    assert items.texts[:2] == ["Garden", "item 101"]
    assert (
        "titles.csv: 14 of 15 rated items have no text there and are read as 'item <id>': 101, 102" in items.warnings[0]
    )
    with pytest.raises(
        DataError, match="titles.csv: not one of the rated items has a text there .ids such as 100, there a"
    ):
        item_texts(pairs, {"a": "Garden"}, "titles.csv")


def test_a_data_sets_texts_are_known_by_its_ids(ml_100k):
    texts = texts_of(ml_100k)
    assert len(texts) == 1682 and texts["50"].startswith("Star Wars (1977).")


def test_an_id_with_line_breaks_stays_one_line(here):
    (here / "odd.csv").write_text('item,user,score\n1,"a\nb",2\n2,c,5\n')
    pairs = read_pairs("odd.csv", "odd.csv")
    assert "user a b: item 1" in inputs(pairs, item_texts(pairs, None, "")).lines


def test_each_distinct_line_is_tokenised_once(here, tokenizer):
    pairs = read_pairs("train.csv", "train.csv", items="titles.csv")
    lines = inputs(pairs, item_texts(pairs, pairs.texts, "titles.csv"))
    assert len(lines.lines) == len(set(lines.lines)) <= 120 and torch.equal(lines.train, lines.test)
    seen = []

    class Counting:
        pad_token_id = 0

        def __call__(self, texts, **options):
            seen.extend(texts)
            return tokenizer(texts, **options)

    tokenise(Counting(), lines.lines, 16)
    assert seen == lines.lines


def test_padding_is_that_of_the_tokenizer(tokenizer):
    lines = ["user 1: quiet", "user 12: the second storm of winter, drama", "user 7: item 5"]
    tokens = tokenise(tokenizer, lines, 12)
    expected = tokenizer(lines, truncation=True, max_length=12, padding=True, return_tensors="pt")
    ids, length = tokens.padded(torch.tensor([0, 1, 2]))
    assert torch.equal(ids, expected["input_ids"]) and torch.equal(length, expected["attention_mask"].sum(1))
    assert tokens.padded(torch.tensor([0, 2]), multiple=8)[0].shape == (2, 8)


def test_an_epoch_has_each_rating_once_and_little_padding():
    lengths = torch.randint(8, 37, (10_000,), generator=torch.Generator().manual_seed(0))
    batches = epoch_batches(lengths, 256, epoch_generator(0, "order", 1))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(10_000))
    assert all(len(batch) <= 256 for batch in batches) and len(batches) == 40
    assert padded_tokens(lengths, batches) < 1.1 * int(lengths.sum()), "a tenth for padding at most"
    longest = [int(lengths[batch].max()) for batch in batches[:16]]
    assert longest != sorted(longest), "short texts must not always come first"


def test_an_epochs_order_depends_on_seed_and_number_alone():
    lengths = torch.arange(40) % 7

    def order(seed, epoch):
        return torch.cat(epoch_batches(lengths, 4, epoch_generator(seed, "order", epoch))).tolist()

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}) == 4
    keys = {epoch_key(seed, what, epoch) for seed in (0, 1) for what in ("order", "dropout") for epoch in range(50)}
    assert len(keys) == 200, "no epoch, purpose or seed shares another's random numbers"
