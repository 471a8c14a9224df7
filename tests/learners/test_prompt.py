"""Soft prompts and prefixes, many episodes or users at once, against transformers run on each text alone."""

from dataclasses import replace

import pytest
import torch

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.errors import DataError
from fewrec.learners.prompt import PromptLM, PromptLMMeta
from fewrec.testing import LearnerConformance

KINDS = ("tiny_bert", "tiny_gpt2", "tiny_llama", "tiny_t5")


@pytest.fixture
def make(request, text_ctx):
    def prepared(cls, kind="tiny_bert", **options):
        learner = cls(cls.Config(backbone=request.getfixturevalue(kind), **options))
        learner.prepare(text_ctx)
        return learner

    return prepared


@pytest.fixture(scope="module")
def support(text_split):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    return sampler.sample(0, 1, n_users=3, k_shot=6, n_query=5).support[0]


class TestPromptLMKeepsTheContract(LearnerConformance):
    learner = PromptLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "precision": "float32", "epochs": 2}


class TestAPrefixPerUserKeepsTheContract(LearnerConformance):
    learner = PromptLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        own = {"method": "prefix", "per": "user", "layers": 2}
        cls.config = {"backbone": tiny_bert, "precision": "float32", "epochs": 2} | own


class TestRatingWordsOfADecoderKeepTheContract(LearnerConformance):
    learner = PromptLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_llama):
        cls.config = {"backbone": tiny_llama, "precision": "float32", "epochs": 2, "readout": "words", "layers": 2}


class TestPromptLMMetaKeepsTheContract(LearnerConformance):
    learner = PromptLMMeta

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "precision": "float32", "epochs": 2, "meta_epochs": 2, "n_query": 5}


def states_of(learner, params, items):
    """Return the mean (or, of a decoder, the last) final state of each item, the model being run on it alone."""
    stack, activations, found = learner.features.stack, learner.features.activations, []
    backbone, tokens = stack.backbone, learner.features.prompt_tokens
    for item in items.tolist():
        hidden = activations.tokens[activations.offsets[item] : activations.offsets[item + 1]][None]
        if tokens:
            hidden = torch.cat([params["prompt"][None], hidden], 1)
        length = hidden.shape[1]
        # The layers below have read the text at positions of its own; rotary and relative ones know distances alone.
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        positions = torch.arange(length)[None]
        _, calls = backbone.calls(positions, mask.tril() if backbone.causal else mask)
        out = stack(hidden, calls)[-1][0, tokens:]
        found.append(out[-1] if backbone.causal else out.mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, -1])
def test_prompts_of_many_groups_in_packed_rows_equal_each_text_run_alone(make, kind, layers):
    learner = make(PromptLM, kind, layers=layers, tokens=3, states="last")
    features = learner.features
    items = torch.tensor([[0, 7, 3, 11], [5, 2, 9, -1]])
    drawn = [learner.initial(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    params = {"prompt": torch.stack([one["prompt"] for one in drawn])}
    with torch.no_grad():
        found = features.run(params, features.plan(items)) * features.spread + features.centre
        for group, row in enumerate(items):
            kept = row[row >= 0]
            expected = states_of(learner, drawn[group], kept)
            torch.testing.assert_close(found[group, : len(kept)], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_of_each_group_equals_the_group_alone_and_starts_at_keys_of_real_tokens(make, kind):
    learner = make(PromptLM, kind, method="prefix", layers=2, tokens=3)
    drawn = [learner.initial(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    assert len(drawn[0]) == 4 and all(len(value) == 3 for value in drawn[0].values())
    items = torch.tensor([[0, 7, 3], [5, 2, 9]])
    features = learner.features
    both = features.grouped({name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}, items)
    for group in range(2):
        alone = features.grouped(drawn[group], items[group : group + 1])[0]
        torch.testing.assert_close(both[group], alone, rtol=0, atol=2e-5)
    plain = features.frozen({}, items[0])
    assert float((both[0] - plain).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["tiny_gpt2", "tiny_llama", "tiny_t5"])
def test_without_training_the_words_say_the_models_own_rating_and_the_offset_is_shrunk(make, kind, support, text_ctx):
    learner = make(PromptLM, kind, readout="words", epochs=0, method="prefix", tokens=1, user_variance=0.5)
    learner.initial = lambda generator: {}  # no prompt at all: the model as it is
    words, features = learner.features.words, learner.features
    texts = words.prompts(text_ctx.catalog.texts(), learner.config.max_length)
    items = torch.arange(len(texts))
    own = []
    for ids in words.backbone.tokenise(texts, 64):
        given = {"input_ids": torch.tensor([ids])}
        if words.backbone.kind == "encoder-decoder":
            given["decoder_input_ids"] = torch.zeros(1, 1, dtype=torch.int64)
        logits = words.backbone.whole(**given).logits[0, -1, words.ids].double()
        own.append(float(logits.softmax(0) @ words.values))
    own = torch.tensor(own, dtype=torch.float64)
    found = learner.adapt(support, text_ctx).predict(torch.ones_like(items), items)
    mine = support.user == 1
    residual = support.rating[mine] - own[support.item[mine]]
    offset = residual.sum() / (mine.sum() + 1 / 0.5)
    torch.testing.assert_close(found, own + offset, rtol=0, atol=1e-4)
    assert features.size == 1


def test_words_need_a_language_model_head(make):
    with pytest.raises(DataError, match="no language-model head"):
        make(PromptLM, "tiny_bert", readout="words")


def test_only_the_prompt_and_the_heads_are_trained(make):
    learner = make(PromptLM, tokens=5, layers=2)
    initial = learner.initial(torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in initial.items()} == {"prompt": (5, 32)}
    assert not any(p.requires_grad for p in learner.features.stack.parameters())
    assert learner.trainable_parameters() == 5 * 32 + 2 * 3 * 32 + 1


def test_the_prompt_starts_at_real_tokens_drawn_from_the_generator(make):
    learner = make(PromptLM)
    first, again, other = (learner.initial(torch.Generator().manual_seed(s))["prompt"] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    tokens = learner.features.activations.tokens
    assert all((tokens == row).all(1).any() for row in first)
    before = tokens.clone()
    first += 1
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("learner", [PromptLM, PromptLMMeta])
@pytest.mark.parametrize("per", ["episode", "user"])
def test_training_the_prompt_on_the_support_changes_predictions(make, learner, per, text_split, text_ctx, support):
    items = torch.arange(len(text_split.catalog))
    found = []
    for rate in (0.0, 0.5):
        options = {"epochs": 3, "learning_rate": rate, "head_learning_rate": 0.0, "per": per}
        options |= {"meta_epochs": 0} if learner is PromptLMMeta else {}
        made = make(learner, **options)
        made.meta_fit(MetaTrainSet(text_split, text_ctx.scale), text_ctx)
        found.append(made.adapt(replace(support, seed=3), text_ctx).predict(torch.zeros_like(items), items))
    assert float((found[0] - found[1]).abs().max()) > 1e-3
