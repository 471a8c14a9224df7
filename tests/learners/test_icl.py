"""In-context learning, against a plain loop over (user, query) with the whole model on each full prompt."""

import shutil
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from fewrec.data.table import Scale
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable, SuiteError
from fewrec.learners.icl import InContextConfig, InContextLM, _batches
from fewrec.learners.text.backbone import load_backbone
from fewrec.testing import LearnerConformance

MODELS = ("tiny_gpt2", "tiny_llama", "tiny_t5")


class TestADecoderKeepsTheContract(LearnerConformance):
    learner = InContextLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_gpt2):
        cls.config = {"backbone": tiny_gpt2, "precision": "float32"}


class TestAnEncoderDecoderKeepsTheContract(LearnerConformance):
    learner = InContextLM

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_t5):
        cls.config = {"backbone": tiny_t5, "max_shots": 2, "precision": "float32"}

    # A model of random weights needn't like what it likes more of, and leans to any side of the scale.
    test_higher_ratings_do_not_lower_the_mean_prediction = None
    test_on_another_rating_scale_its_predictions_are_on_that_scale = None


@pytest.fixture
def make(text_ctx, request):
    def prepared(model: str, **options) -> InContextLM:
        learner = InContextLM(InContextConfig(backbone=request.getfixturevalue(model), **options))
        learner.prepare(text_ctx)
        return learner

    return prepared


@pytest.fixture
def episodes(text_split):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    return lambda k_shot, count=2: sampler.sample(0, count, n_users=3, k_shot=k_shot, n_query=5)


def predictions(learner, drawn, ctx) -> torch.Tensor:
    query = drawn.query
    return learner.adapt_batch(drawn.support, ctx).predict(query.episode, query.user, query.item)


def one_by_one(learner: InContextLM, drawn, catalog, scale: Scale, content_free: bool) -> torch.Tensor:
    """Return the predictions of a loop that writes each prompt out and runs the whole model on it."""
    config, backbone = learner.config, learner.backbone
    words, n_words = config.words, len(config.words)
    stars = [scale.low + (scale.high - scale.low) * w / (n_words - 1) for w in range(n_words)]
    found = []
    for e, u, i in zip(
        *(column.tolist() for column in (drawn.query.episode, drawn.query.user, drawn.query.item)), strict=True
    ):
        support = drawn.support[e]
        prompt = config.instruction.format(low=words[0], high=words[-1])
        for item, rating in zip(
            support.item[support.user == u].tolist(), support.rating[support.user == u].tolist(), strict=True
        ):
            nearest = min(range(n_words), key=lambda w: abs(stars[w] - rating))
            prompt += config.template.format(text=catalog.texts()[item]) + " " + words[nearest] + config.separator
        logits = []
        for text in (catalog.texts()[i], "N/A")[: 1 + content_free]:
            given = backbone.tokenizer(prompt + config.template.format(text=text), return_tensors="pt")["input_ids"]
            start = {"decoder_input_ids": torch.tensor([[0]])} if backbone.kind == "encoder-decoder" else {}
            ids = backbone.tokenizer.convert_tokens_to_ids(list(words))
            with torch.no_grad():
                logits.append(backbone.whole(input_ids=given, **start).logits[0, -1, ids].double().log_softmax(0))
        chances = (logits[0] - (logits[1] if content_free else 0)).softmax(0)
        found.append(float(chances @ torch.tensor(stars, dtype=torch.float64)))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("k_shot", [0, 1, 4])
@pytest.mark.parametrize("model", MODELS)
def test_predictions_are_those_of_the_whole_model_on_each_prompt(model, k_shot, make, episodes, text_split, text_ctx):
    learner, drawn = make(model, calibrate="never"), episodes(k_shot)
    wanted = one_by_one(learner, drawn, text_split.catalog, text_ctx.scale, content_free=False)
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(predictions(learner, drawn, text_ctx), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("calibrate", "k_shot"), [("always", 3), ("zero-shot", 0)])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_calibration_divides_by_what_follows_a_content_free_item(
    model, calibrate, k_shot, make, episodes, text_split, text_ctx
):
    learner, drawn = make(model, calibrate=calibrate), episodes(k_shot)
    wanted = one_by_one(learner, drawn, text_split.catalog, text_ctx.scale, content_free=True)
    torch.testing.assert_close(predictions(learner, drawn, text_ctx), wanted, rtol=0, atol=1e-5)
    plain = predictions(make(model, calibrate="never"), drawn, text_ctx)
    assert float((plain - wanted).abs().max()) > 0.01


def test_users_with_and_without_ratings_are_calibrated_each_for_themselves(make, episodes, text_ctx):
    drawn, learner = episodes(4, 1), make("tiny_gpt2")
    support = drawn.support[0]
    rated = support.user != 1  # the second user has no ratings
    mixed = replace(
        support, user=support.user[rated], item=support.item[rated], rating=support.rating[rated], timestamp=None
    )
    found = learner.adapt(mixed, text_ctx).predict(drawn.query.user, drawn.query.item)
    with_ratings = predictions(make("tiny_gpt2", calibrate="never"), drawn, text_ctx)
    without = predictions(learner, episodes(0, 1), text_ctx)
    wanted = torch.where(drawn.query.user == 1, without, with_ratings)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_words_stand_for_any_scale(make, episodes, text_split, text_ctx):
    drawn, ctx = episodes(4), replace(text_ctx, scale=Scale(0, 10, 1))
    tenfold = replace(drawn, support=replace(drawn.support, rating=2.5 * (drawn.support.rating - 1)))
    learner = InContextLM(make("tiny_gpt2", words=("1", "3", "5"), instruction="from {low} to {high}:").config)
    learner.prepare(ctx)
    wanted = one_by_one(learner, tenfold, text_split.catalog, ctx.scale, content_free=False)
    torch.testing.assert_close(predictions(learner, tenfold, ctx), wanted, rtol=0, atol=1e-5)


def forwards(learner: InContextLM) -> list[torch.Tensor]:
    """Return the list to which each forward pass adds the ids of its rows."""
    seen: list[torch.Tensor] = []
    encode = learner.backbone.encode
    learner.backbone.encode = lambda layout, ids, *rest: (seen.append(ids), encode(layout, ids, *rest))[1]
    return seen


def test_a_users_ratings_are_read_once_for_all_queries(make, episodes, text_ctx):
    learner, drawn = make("tiny_gpt2"), episodes(4)
    seen = forwards(learner)
    predictor = learner.adapt_batch(drawn.support, text_ctx)
    predictor.predict(drawn.query.episode, drawn.query.user, drawn.query.item)
    rows = [row.tolist() for ids in seen for row in ids]
    contexts = [context for context in predictor.contexts if any(row[: len(context)] == context for row in rows)]
    assert len(rows) == drawn.support.total_users == len(contexts)
    tokens = sum(map(len, contexts)) + int(learner.lengths[drawn.query.item].sum())
    assert sum(len(row) for row in rows) < tokens / (1 - 0.15)


def test_a_zero_shot_item_is_read_once_for_all_users(make, episodes, text_ctx):
    learner, drawn = make("tiny_gpt2"), episodes(0)
    seen = forwards(learner)
    found = predictions(learner, drawn, text_ctx)
    items, place = torch.unique(drawn.query.item, return_inverse=True)
    assert len(items) < len(found)
    assert (
        sum(ids.numel() for ids in seen)
        < (len(learner.beginning) * len(seen) + int(learner.lengths[items].sum()) + 9) / 0.85
    )
    assert all(len(set(found[place == i].tolist())) == 1 for i in range(len(items)))


def test_the_latest_ratings_are_kept_where_there_is_no_room_for_all(make, episodes, text_ctx):
    drawn = episodes(6, 1)
    support, learner = drawn.support[0], make("tiny_gpt2", max_shots=2)
    last = torch.cat([(support.user == u).nonzero().squeeze(1)[-2:] for u in range(support.n_users)])
    kept = replace(
        support, user=support.user[last], item=support.item[last], rating=support.rating[last], timestamp=None
    )
    two = replace(drawn, support=SupportBatch.of([kept]))
    wanted = predictions(make("tiny_gpt2"), two, text_ctx)
    assert torch.equal(predictions(learner, drawn, text_ctx), wanted)
    every = make("tiny_gpt2").adapt_batch(drawn.support, text_ctx).contexts
    short = make("tiny_gpt2", max_context=60).adapt_batch(drawn.support, text_ctx).contexts
    beginning = len(learner.beginning)
    assert max(map(len, short)) <= 60 < max(map(len, every))
    for some, full in zip(short, every, strict=True):
        assert some[:beginning] == full[:beginning] and some[beginning:] == full[len(full) - len(some) + beginning :]


def test_rows_of_one_pass_are_limited_and_hardly_padded(make, episodes, text_ctx):
    totals = torch.randint(50, 400, (300,), generator=torch.Generator().manual_seed(0))
    batches = list(_batches(totals, 2000))
    assert sorted(number for batch in batches for number in batch) == list(range(300))
    for batch in batches:
        places = len(batch) * int(totals[batch].max())
        assert places <= 2000 and int(totals[batch].sum()) >= 0.85 * places
    assert list(_batches(torch.tensor([5000]), 2000)) == [[0]]
    drawn = episodes(4)
    seen = forwards(narrow := make("tiny_gpt2", batch_tokens=300))
    wanted = predictions(make("tiny_gpt2"), drawn, text_ctx)
    torch.testing.assert_close(predictions(narrow, drawn, text_ctx), wanted, rtol=0, atol=1e-5)
    assert len(seen) >= 3 and max(ids.numel() for ids in seen if len(ids) > 1) <= 300


def test_a_whole_catalog_is_asked_in_rows_of_bounded_length(make, episodes, text_split, text_ctx):
    learner, support = make("tiny_gpt2"), episodes(2).support[0]
    items = torch.arange(len(text_split.catalog))
    seen = forwards(learner)
    found = learner.adapt(support, text_ctx).predict(torch.zeros_like(items), items)
    assert max(ids.shape[1] for ids in seen) <= 512 < int(learner.lengths[:-1].sum())
    alone = torch.cat([learner.adapt(support, text_ctx).predict(items[:1] * 0, items[i : i + 1]) for i in (0, 7, 49)])
    torch.testing.assert_close(found[[0, 7, 49]], alone, rtol=0, atol=1e-5)


CHAT = (
    "{% for message in messages %}({{ message['role'] }}) {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}(assistant) {% endif %}"
)


def test_a_chat_models_items_are_messages_and_ratings_are_answers(
    make, tiny_llama, tmp_path, episodes, text_split, text_ctx
):
    with pytest.raises(NotApplicable, match="no chat template; give chat=false"):
        make("tiny_gpt2", chat=True)
    tokenizer = load_backbone(tiny_llama).tokenizer
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(shutil.copytree(tiny_llama, tmp_path / "chat"))
    config = {"chat": True, "instruction": "Rating: ", "template": "title {text}"}
    learner, drawn = InContextLM(InContextConfig(backbone=str(tmp_path / "chat"), **config)), episodes(1)
    learner.prepare(text_ctx)

    support, texts = drawn.support[0], text_split.catalog.texts()
    shot, query = (texts[int(item)] for item in (support.item[0], drawn.query.item[0]))
    messages = [
        {"role": "user", "content": f"Rating: title {shot}"},
        {"role": "assistant", "content": f"{support.rating[0]:.0f}"},
        {"role": "user", "content": f"title {query}"},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    chances = learner.backbone.whole(input_ids=ids).logits[0, -1, learner.words.ids].double().softmax(0)
    wanted = chances @ torch.arange(1, 6, dtype=torch.float64)
    torch.testing.assert_close(predictions(learner, drawn, text_ctx)[0], wanted, rtol=0, atol=1e-5)


def test_it_says_why_it_cannot_be_used(make, text_ctx, tiny_gpt2):
    bare = replace(text_ctx, catalog=replace(text_ctx.catalog, text=None))
    with pytest.raises(NotApplicable, match="needs item text"):
        InContextLM(InContextConfig(backbone=tiny_gpt2)).prepare(bare)
    with pytest.raises(NotApplicable, match="needs a decoder or an encoder-decoder"):
        make("tiny_bert")
    with pytest.raises(SuiteError, match="the instruction is .* tokens, and there is room for 3"):
        make("tiny_gpt2", max_context=3)
    for wrong in (
        {"template": "Rating:"},
        {"instruction": "{text}"},
        {"instruction": "{title}"},
        {"template": "{text} {x}"},
    ):
        with pytest.raises(ValidationError):
            InContextConfig(**wrong)


def test_it_names_the_weights_that_it_loaded(make, tiny_t5):
    learner = make("tiny_t5")
    assert learner.loaded() == {tiny_t5: learner.backbone.sha256} and learner.trainable_parameters() == 0
