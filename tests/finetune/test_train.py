"""Training is what a plain loop in double precision does, and depends on (seed, epoch) and the state alone."""

import copy

import pytest
import torch

from fewrec.data.weights import find_weights
from fewrec.errors import DataError, FewrecError, SuiteError
from fewrec.finetune.batches import epoch_batches, epoch_generator
from fewrec.finetune.model import check_backbone, load_regressor, save_regressor
from fewrec.finetune.options import FinetuneOptions
from fewrec.finetune.pairs import read_pairs
from fewrec.finetune.progress import Reporter
from fewrec.finetune.texts import inputs, item_texts, tokenise
from fewrec.finetune.train import Trainer

OPTIONS = FinetuneOptions(dropout=0, batch_size=16, learning_rate=1e-4, epochs=2)
CPU = torch.device("cpu")


@pytest.fixture
def lines(here):
    pairs = read_pairs("train.csv", "test.csv", items="titles.csv")
    return inputs(pairs, item_texts(pairs, pairs.texts, "titles.csv")), torch.from_numpy(pairs.train.rating.copy())


@pytest.fixture
def begin(tiny_bert, lines):
    """Return a function that makes a trainer on the files, new each time."""

    def make(options=OPTIONS, device=CPU):
        model, tokenizer = load_regressor(find_weights(tiny_bert), options, epoch_generator(options.seed, "head", 0))
        tokens = tokenise(tokenizer, lines[0].lines, options.max_length)
        return Trainer(model, tokens, lines[0].train, lines[1], options, device), tokenizer

    return make


def run(trainer, *epochs):
    reporter = Reporter()
    reporter.start(trainer.options.epochs, 0, trainer.options.batch_size, "cpu")
    return [trainer.epoch(number, reporter, measure=number == 1) for number in epochs]


def plain_loop(trainer, tokenizer, lines, epochs):
    """Train in float64 with transformers' own padding, mask and loss; return the errors met and the trained model."""
    text, scores = lines
    model = copy.deepcopy(trainer.model).double().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    mean, std = scores.mean(), scores.std(correction=0)
    length = torch.tensor([len(tokenizer(line)["input_ids"]) for line in text.lines])
    met = []
    for epoch in epochs:
        total = 0.0
        for rows in epoch_batches(length[text.train], 16, epoch_generator(0, "order", epoch)):
            batch = tokenizer([text.lines[i] for i in text.train[rows]], padding=True, return_tensors="pt")
            out = model(**batch, labels=(scores[rows] - mean) / std)  # problem_type regression: mean squared error
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            total += out.loss.item() * len(rows) * float(std) ** 2
        met.append(total / len(scores))
    model.eval()
    with torch.no_grad():
        every = [model(**tokenizer(text.lines[i], return_tensors="pt")).logits.squeeze() for i in text.test]
    return met, mean + std * torch.stack(every)


def test_it_is_a_plain_loop_in_double_precision(begin, lines):
    trainer, tokenizer = begin()
    met, predicted = plain_loop(trainer, tokenizer, lines, (1, 2))
    assert run(trainer, 1, 2) == pytest.approx(met, abs=1e-5)
    found = trainer.predict(lines[0].test)
    assert torch.allclose(found, predicted, rtol=0, atol=1e-5)
    assert found.std() > 1e-3, "a constant would agree with anything"


def test_training_learns(begin):
    trainer, _ = begin(OPTIONS.model_copy(update={"learning_rate": 3e-3}))
    errors = run(trainer, *range(1, 13))
    assert errors[-1] < 0.6 * trainer.spread**2 < errors[0]


def test_a_new_head_begins_at_the_mean_score_and_the_encoder_as_it_was(begin, lines, tiny_bert):
    from safetensors.torch import load_file

    trainer, _ = begin()
    found = trainer.predict(lines[0].test)
    assert (found - trainer.mean).abs().max() < 0.5 * trainer.spread
    state = trainer.model.state_dict()
    pretrained = load_file(find_weights(tiny_bert).folder / "model.safetensors")
    assert all(torch.equal(state[f"bert.{name}"], tensor) for name, tensor in pretrained.items())
    head = state["classifier.weight"]
    assert 0.01 < head.std() < 0.3 and not state["classifier.bias"].any()
    torch.manual_seed(1234)
    again = begin()[0].model.state_dict()["classifier.weight"]
    assert torch.equal(head, again), "the head must not depend on the global generator"
    other = begin(OPTIONS.model_copy(update={"seed": 1}))[0].model.state_dict()["classifier.weight"]
    assert not torch.equal(head, other)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_bytes_and_a_state_goes_on_from_where_it_was(begin, lines, dropout):
    options = OPTIONS.model_copy(update={"dropout": dropout})
    whole, _ = begin(options)
    before = torch.random.get_rng_state()
    errors = run(whole, 1, 2)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is not ours"
    first, _ = begin(options)
    assert run(first, 1) == errors[:1]
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    torch.manual_seed(99)
    second, _ = begin(options)
    second.load(state)
    assert run(second, 2) == errors[1:]
    assert torch.equal(second.predict(lines[0].test), whole.predict(lines[0].test))
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in whole.state().items())
    if dropout:
        assert errors != run(begin()[0], 1, 2), "dropout must do something"


def test_predictions_do_not_depend_on_what_else_is_asked(begin, lines):
    trainer, _ = begin()
    run(trainer, 1)
    together = trainer.predict(lines[0].test)
    alone = torch.cat([trainer.predict(lines[0].test[i : i + 1]) for i in range(len(lines[0].test))])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_saved_model_outputs_the_score_itself(begin, lines, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    trainer, tokenizer = begin()
    run(trainer, 1)
    expected = trainer.predict(lines[0].test)
    save_regressor(trainer.model, tokenizer, trainer.mean, trainer.spread, tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", local_files_only=True).eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "model")(
        [lines[0].lines[i] for i in lines[0].test], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits.squeeze(1).double(), expected, atol=1e-5)


def test_a_training_that_diverges_says_so(begin):
    trainer, _ = begin(OPTIONS.model_copy(update={"learning_rate": 1e30}))
    with pytest.raises(FewrecError, match="diverged in epoch [12]; give a smaller --learning-rate"):
        run(trainer, 1, 2)


def test_equal_scores_are_learnt_as_what_they_are(begin, lines):
    trainer, _ = begin()
    same = Trainer(trainer.model, trainer.tokens, lines[0].train, torch.full((120,), 4.0).double(), OPTIONS, CPU)
    assert same.spread == 1.0 and same.mean == 4.0


def test_roberta_works_as_well(tmp_path, lines):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    text, scores = lines
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(text.lines, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe.save_model(str(tmp_path))
    tokenizer = RobertaTokenizer(vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt"))
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    tokenizer.save_pretrained(tmp_path / "roberta")
    weights = find_weights(tmp_path / "roberta")
    check_backbone(weights, OPTIONS)
    with pytest.raises(SuiteError, match="--max-length 65: .* reads at most 64 tokens"):
        check_backbone(weights, OPTIONS.model_copy(update={"max_length": 65}))
    model, loaded = load_regressor(weights, OPTIONS, epoch_generator(0, "head", 0))
    trainer = Trainer(model, tokenise(loaded, text.lines, 64), text.train, scores, OPTIONS, CPU)
    met, predicted = plain_loop(trainer, loaded, lines, (1,))
    assert run(trainer, 1) == pytest.approx(met, abs=1e-5)
    assert torch.allclose(trainer.predict(text.test), predicted, rtol=0, atol=1e-5)


def test_backbones_that_are_no_encoders_or_lack_weights_are_refused(tiny_bert, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    folder.mkdir()
    for path in find_weights(tiny_bert).folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="its weights lack bert.encoder.layer.1.output.dense.weight"):
        load_regressor(find_weights(folder), OPTIONS, torch.Generator())
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(DataError, match="a 'gpt2' model; give an encoder of bert, "):
        check_backbone(find_weights(folder), OPTIONS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_no_step_waits_for_the_host_and_the_figures_are_those_of_the_cpu(begin, lines):
    device = torch.device("cuda")
    slow, _ = begin()
    quick, _ = begin(device=device)
    errors: list = []
    batches = epoch_batches(quick.lengths, 16, epoch_generator(0, "order", 1))
    list(quick._steps(batches[:1], errors))  # the first step allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(quick._steps(batches[1:], errors))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run(slow, 1)
    assert torch.allclose(quick.predict(lines[0].test), slow.predict(lines[0].test), atol=0.03)  # bf16 has 8 bits
    again, _ = begin(device=device)
    again.load(quick.state())
    assert torch.allclose(again.predict(lines[0].test), quick.predict(lines[0].test), atol=1e-6)
