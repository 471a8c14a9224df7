"""Soft prompts before cached activations, against transformers run on the prompted input directly."""

from dataclasses import replace

import pytest
import torch

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.learners.prompt import PromptLM, PromptLMConfig, PromptLMMeta, SoftPrompt
from fewrec.learners.text_encoder import UpperLayers, item_activations, load_backbone
from fewrec.testing import LearnerConformance

CPU = torch.device("cpu")


class TestPromptLMKeepsTheContract(LearnerConformance):
    learner = PromptLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "epochs": 2}


class TestPromptLMMetaKeepsTheContract(LearnerConformance):
    learner = PromptLMMeta

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "epochs": 2, "meta_epochs": 2, "n_query": 5}


def test_a_prompt_below_all_layers_equals_a_prompt_prepended_to_the_input_embeddings(tiny_bert, text_split, tmp_path):
    backbone = load_backbone(tiny_bert)
    model = backbone.model.double()
    texts = [" ".join(text_split.catalog.texts()[i : i + 1 + i % 3]) for i in range(6)]  # of three lengths
    virtual = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # as word embeddings
    positions = torch.tensor([[40, 41, 42]])
    prompt = model.embeddings(inputs_embeds=virtual.unsqueeze(0), position_ids=positions)[0]

    activations = item_activations(backbone, texts, 0, 64, tmp_path, CPU)
    hidden, mask = activations.padded(torch.arange(6), CPU)
    found = UpperLayers(backbone, 0)(hidden, mask, prompt)[-1]

    encoded = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    length = encoded["input_ids"].shape[1]
    whole = model(
        inputs_embeds=torch.cat([virtual.expand(6, -1, -1), model.embeddings.word_embeddings(encoded["input_ids"])], 1),
        attention_mask=torch.cat([torch.ones(6, 3, dtype=torch.int64), encoded["attention_mask"]], 1),
        position_ids=torch.cat([positions, torch.arange(length).unsqueeze(0)], 1),
    ).last_hidden_state[:, 3:]
    assert found.dtype == torch.float64 and len(set(activations.lengths.tolist())) > 1
    torch.testing.assert_close(found[mask], whole[mask], rtol=0, atol=1e-10)


def test_a_prompt_between_layers_equals_the_layers_run_by_hand(tiny_bert, text_split, tmp_path):
    backbone = load_backbone(tiny_bert)
    model = backbone.model.double()
    text = text_split.catalog.texts()[:1]
    prompt = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lower = model(**backbone.tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[2]
    by_hand = model.encoder.layer[2](torch.cat([prompt.unsqueeze(0), lower], 1))[:, 2:]
    activations = item_activations(backbone, text, 2, 64, tmp_path, CPU)
    found = UpperLayers(backbone, 2)(*activations.padded(torch.tensor([0]), CPU), prompt)[-1]
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-10)


def test_only_the_prompt_and_the_heads_are_trained(tiny_bert, text_split, text_ctx):
    learner = PromptLM(PromptLMConfig(backbone=tiny_bert, tokens=5, layers=2))
    learner.prepare(text_ctx)
    assert isinstance(learner.features, SoftPrompt)
    initial = learner.features.initial(torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in initial.items()} == {"prompt": (5, 32)}
    assert not any(p.requires_grad for p in learner.features.upper.parameters())
    assert learner.trainable_parameters() == 5 * 32 + 2 * 3 * 32 + 1


def test_the_prompt_starts_at_real_tokens_drawn_from_the_generator(tiny_bert, text_ctx):
    learner = PromptLM(PromptLMConfig(backbone=tiny_bert))
    learner.prepare(text_ctx)
    first, again, other = (learner.features.initial(torch.Generator().manual_seed(s))["prompt"] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    tokens = learner.features.activations.tokens
    assert all((tokens == row).all(1).any() for row in first)
    before = tokens.clone()
    first += 1
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("learner", [PromptLM, PromptLMMeta])
def test_training_the_prompt_on_the_support_changes_predictions(learner, tiny_bert, text_split, text_ctx):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    support = sampler.sample(0, 1, n_users=3, k_shot=6, n_query=5).support[0]
    items = torch.arange(len(text_split.catalog))
    found = []
    for rate in (0.0, 0.5):
        options = {"epochs": 3, "learning_rate": rate, "head_learning_rate": 0.0}
        options |= {"meta_epochs": 0} if learner is PromptLMMeta else {}
        made = learner(learner.Config(backbone=tiny_bert, **options))
        made.prepare(text_ctx)
        made.meta_fit(MetaTrainSet(text_split, text_ctx.scale), text_ctx)
        found.append(made.adapt(replace(support, seed=3), text_ctx).predict(torch.zeros_like(items), items))
    assert float((found[0] - found[1]).abs().max()) > 1e-3
