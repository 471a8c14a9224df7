"""Layouts of packed texts, against what they promise: each token once, texts apart from each other, little padding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewrec.learners.text.packing import Layout, pack

DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA here")])]  # fmt: skip
MIXED = torch.tensor([[3, 5, 2, 4], [1, 0, 7, 0], [0, 0, 0, 0]])


def random_texts(lengths: torch.Tensor) -> list[list[int]]:
    """Texts whose tokens are all different, from 1."""
    numbers = iter(range(1, int(lengths.sum()) + 1))
    return [[next(numbers) for _ in range(int(n))] for n in lengths.reshape(-1)]


def tokens_of(layout: Layout, values: torch.Tensor, group: int, text: int) -> torch.Tensor:
    start = int(layout.start[group, text])
    return values[layout.row[group, text], start : start + int(layout.length[group, text])]


@st.composite
def packings(draw):
    groups, texts = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    lengths = torch.tensor(draw(st.lists(st.integers(0, 9), min_size=groups * texts, max_size=groups * texts)))
    own = draw(st.integers(0, 3))
    shared = 0 if own else torch.tensor(draw(st.lists(st.integers(0, 4), min_size=groups, max_size=groups)))
    return lengths.reshape(groups, texts), {"capacity": draw(st.integers(1, 40)), "own": own, "shared": shared}


@settings(max_examples=60, deadline=None)
@given(packings())
def test_every_token_is_placed_once_and_nothing_else_is(packing):
    lengths, options = packing
    own, shared = options["own"], torch.as_tensor(options["shared"]).expand(len(lengths))
    layout, texts = pack(lengths, **options), random_texts(lengths)
    ids = layout.fill(texts)
    assert sorted(ids[ids > 0].tolist()) == list(range(1, int(lengths.sum()) + 1))
    assert layout.rows % layout.groups == 0
    for i, text in enumerate(texts):
        group, slot = divmod(i, lengths.shape[1])
        assert tokens_of(layout, ids, group, slot).tolist() == text
        if text:  # each group in rows of its own
            assert int(layout.row[group, slot]) // (layout.rows // layout.groups) == group
    n_rows = layout.rows // layout.groups
    assert int((layout.segment == 0).sum()) == int(shared.sum()) * n_rows
    assert int((layout.segment > 0).sum()) == int(lengths.sum()) + own * int((lengths > 0).sum())
    assert int((layout.prompt >= 0).sum()) == own * int((lengths > 0).sum()) + int(shared.sum()) * n_rows


@settings(max_examples=60, deadline=None)
@given(packings())
def test_positions_count_each_text_alone_behind_what_all_share(packing):
    lengths, options = packing
    shared = torch.as_tensor(options["shared"]).expand(len(lengths)).tolist()
    layout = pack(lengths, **options)
    for (group, slot), n in np.ndenumerate(lengths.numpy()):
        assert tokens_of(layout, layout.positions, group, slot).tolist() == list(
            range(shared[group], shared[group] + n)
        )
        if n and options["own"]:
            before = slice(int(layout.start[group, slot]) - options["own"], int(layout.start[group, slot]))
            assert layout.prompt[layout.row[group, slot], before].tolist() == list(range(options["own"]))
    for row in range(layout.rows):
        n = shared[row // (layout.rows // layout.groups)]
        assert layout.positions[row, :n].tolist() == layout.prompt[row, :n].tolist() == list(range(n))


@pytest.mark.parametrize("causal", [False, True])
@settings(max_examples=30, deadline=None)
@given(packings())
def test_a_token_sees_its_own_text_and_the_shared_beginning_alone(causal, packing):
    lengths, options = packing
    layout = pack(lengths, **options)
    mask = layout.mask(causal)
    assert mask.shape == (layout.rows, 1, layout.width, layout.width) and mask.any(-1).all()
    for row, segments in enumerate(layout.segment.tolist()):
        for query, q in enumerate(segments):
            for key, k in enumerate(segments):
                wanted = q == k or (k == 0 and q > 0)  # the shared beginning sees itself, padding sees padding
                assert bool(mask[row, 0, query, key]) == (wanted and (key <= query or not causal))


@pytest.mark.parametrize("pooling", ["mean", "kept", "last"])
@settings(max_examples=40, deadline=None)
@given(packings(), st.integers(0, 2**16))
def test_pooling_equals_a_loop_over_texts(pooling, packing, seed):
    lengths, options = packing
    generator = torch.Generator().manual_seed(seed)
    layout = pack(lengths, **options)
    states = torch.randn(layout.rows, layout.width, 5, generator=generator)
    kept = torch.rand(layout.rows, layout.width, generator=generator) < 0.6
    weights, place = layout.lasts() if pooling == "last" else layout.means(kept if pooling == "kept" else None)
    pooled = (weights @ states).flatten(0, 1)[place]
    assert pooled.shape == (*lengths.shape, 5)
    for (group, slot), n in np.ndenumerate(lengths.numpy()):
        own, own_kept = tokens_of(layout, states, group, slot), tokens_of(layout, kept, group, slot)
        chosen = own[-1:] if pooling == "last" else own[own_kept] if pooling == "kept" else own
        if n:  # of a text with no token kept the average is of nothing
            wanted = chosen.mean(0) if len(chosen) else torch.zeros(5)
            torch.testing.assert_close(pooled[group, slot], wanted, rtol=0, atol=1e-6)


def test_an_absent_text_takes_no_place_and_may_be_pooled():
    layout = pack(MIXED, own=2)
    assert layout.groups == 3 and int((layout.segment > 0).sum()) == int(MIXED.sum()) + 2 * 6
    assert (layout.segment[layout.row[2, 0]] == -1).all()
    for weights, place in (layout.means(), layout.lasts()):
        assert torch.isfinite((weights @ torch.randn(layout.rows, layout.width, 2)).flatten(0, 1)[place]).all()


def test_no_text_at_all_is_one_row_of_padding():
    layout = pack(torch.zeros(1, 3, dtype=torch.int64))
    assert layout.segment.tolist() == [[-1]] and layout.waste == 1 and layout.mask(True).all()


def test_groups_of_different_totals_get_as_many_rows_each():
    layout = pack(torch.tensor([[30, 30, 30, 30], [5, 5, 5, 5]]), capacity=64)
    assert layout.rows == 4 and layout.width == 60
    assert layout.row.tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]]
    assert layout.waste == pytest.approx(1 - 140 / 240)


def test_a_text_longer_than_the_capacity_is_a_row_of_its_own():
    layout = pack(torch.tensor([[50, 4, 4, 4]]), capacity=16)
    assert layout.width == 50 and sorted(layout.row[0].tolist()) == [0, 1, 1, 1]


def test_the_index_tells_which_of_all_tokens_is_where():
    lengths = torch.tensor([[2, 3], [1, 2]])
    offsets = torch.tensor([[10, 20], [20, 30]])  # two groups may hold the same text
    index = pack(lengths, capacity=8).index(offsets)
    assert sorted(index[index >= 0].tolist()) == [10, 11, 20, 20, 21, 22, 30, 31]
    assert int((index >= 0).sum()) == int(lengths.sum())


def test_the_same_lengths_give_the_same_layout():
    first, second = pack(MIXED, capacity=8, own=1), pack(MIXED.clone(), capacity=8, own=1)
    for name in ("row", "start", "segment", "positions", "prompt"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("device", DEVICES)
def test_a_layout_works_where_it_is_moved_to(device):
    here = pack(MIXED, capacity=8, shared=torch.tensor([2, 0, 1]))
    there = here.to(torch.device(device))
    texts = random_texts(MIXED)
    assert there.segment.device.type == device and there.groups == 3
    torch.testing.assert_close(there.fill(texts).cpu(), here.fill(texts))
    torch.testing.assert_close(there.mask(True).cpu(), here.mask(True))
    for ours, theirs in zip((*there.means(), *there.lasts()), (*here.means(), *here.lasts()), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


@pytest.fixture(scope="module")
def title_lengths(ml_100k) -> torch.Tensor:
    """Words and marks of every item text of MovieLens-100K, and two special tokens: about what a tokenizer gives."""
    texts = ml_100k.catalog.texts()
    return torch.tensor([2 + len("".join(c if c.isalnum() else f" {c} " for c in text).split()) for text in texts])


def test_padding_is_under_15_percent_for_real_titles(title_lengths):
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(len(title_lengths)), (400, 1)), axis=1)[:, :25]
    episodes = title_lengths[torch.from_numpy(draws)]
    by_total = episodes[episodes.sum(1).argsort()]
    wastes = [pack(group).waste for group in by_total.split(20)]
    padded = 1 - episodes.sum() / (episodes.max() * episodes.numel())
    assert np.mean(wastes) < 0.15 < float(padded)
    assert pack(title_lengths.unsqueeze(0)).waste < 0.05
    assert pack(title_lengths.sort().values[:100].unsqueeze(0), own=8).waste < 0.15
