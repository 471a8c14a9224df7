"""``fewrec.finetune.api.finetune``: from two files of ratings to a table; the command line calls this."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fewrec.data.load import load_dataset
from fewrec.data.weights import Weights, check_option, find_weights
from fewrec.errors import SuiteError
from fewrec.finetune.batches import epoch_generator
from fewrec.finetune.folder import SCHEMA, FinetuneFolder
from fewrec.finetune.model import check_backbone, load_regressor, save_regressor
from fewrec.finetune.options import FinetuneOptions
from fewrec.finetune.pairs import Pairs, read_pairs
from fewrec.finetune.progress import Reporter
from fewrec.finetune.rows import Row, scored, trivial_rows
from fewrec.finetune.show import as_markdown
from fewrec.finetune.texts import Inputs, ItemTexts, Tokens, inputs, item_texts, texts_of, tokenise
from fewrec.finetune.train import Trainer, timed
from fewrec.report.numbers import guarded
from fewrec.runner.environment import choose_device, describe
from fewrec.runner.timing import Stopwatch


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What a run found: ``results.json`` and ``timings.json`` of ``out``, as JSON values (keys: docs/finetune.md)."""

    results: dict[str, Any]
    timings: dict[str, Any]
    out: Path

    @property
    def frame(self) -> pd.DataFrame:
        """One row a method: label, errors with intervals, seconds."""
        rows = [{**row, **self.timings["rows"][row["label"]]} for row in self.results["rows"]]
        return pd.DataFrame(rows)


def finetune(
    train: str | Path,
    test: str | Path,
    out: str | Path,
    *,
    options: FinetuneOptions | None = None,
    items: str | Path | None = None,
    dataset: str | None = None,
    scale: tuple[float, float] | None = None,
    columns: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    offline: bool | None = None,
    reporter: Reporter | None = None,
) -> Finetuned:
    """Fine-tune a pretrained encoder with a regression head on ``train`` and report its errors on ``test``.

    ``train`` and ``test`` are files of ``item,user,score``. Item texts are from ``items`` (a file) or, by item id, of
    the data set ``dataset``, whose scale is taken too; without both, the encoder reads item ids. ``scale`` is what
    predictions are clipped to; guessed from train otherwise. ``columns`` are those options of ``load_own`` that say how
    the files are to be read. ``out`` is the run's folder: an interrupted run goes on there after its last whole epoch,
    with the bytes of an undisturbed one (CPU, same machine), and a finished one is read from there.

    Raises ``FewrecError``, in one line and before weights are loaded, for files, texts, options or a folder that can't
    be used.
    """
    reporter, options = reporter or Reporter(), options or FinetuneOptions.of()
    if threads is not None and threads < 1:
        raise SuiteError(f"--threads {threads}: at least one thread is needed")
    if items is not None and dataset is not None:
        raise SuiteError("--items and --dataset exclude one another: item texts come from one of them")
    chosen = choose_device(device)
    check_option(options.backbone)
    known, source = None, Path(items).name if items is not None else ""
    if dataset is not None:
        data = load_dataset(dataset, offline=offline, notify=reporter.say)
        known, source = texts_of(data), f"--dataset {dataset}"
        scale = scale or (data.scale.low, data.scale.high)
    pairs = read_pairs(train, test, items=items, scale=scale, columns=columns)
    texts = item_texts(pairs, pairs.texts if known is None else known, source)
    lines = inputs(pairs, texts)
    for note in pairs.notes:
        reporter.say(note)
    for warning in (*pairs.warnings, *texts.warnings):
        reporter.warn(warning)
    weights = find_weights(options.backbone, offline=offline, notify=reporter.say)
    check_backbone(weights, options)
    if threads is not None:
        torch.set_num_threads(threads)
    identity = _identity(options, pairs, lines, weights)
    environment = describe(chosen, torch.get_num_threads())
    with FinetuneFolder(out).open(identity, environment) as folder:
        done = folder.finished()
        if done is None:
            done = _run(folder, options, pairs, texts, lines, weights, chosen, reporter)
        return Finetuned(*done, folder.path)


def _identity(options: FinetuneOptions, pairs: Pairs, lines: Inputs, weights: Weights) -> dict[str, Any]:
    """Return what decides the results, flat: a folder belongs to it."""
    text = hashlib.sha256("\x1e".join(lines.lines).encode()).hexdigest()
    return {
        **options.model_dump(mode="json", exclude={"backbone"}),  # the name may be a folder of one machine
        "train_sha256": pairs.sources["train"],
        "test_sha256": pairs.sources["test"],
        "texts_sha256": text,
        "backbone": weights.name,
        "backbone_sha256": weights.sha256,
        "scale": [pairs.scale.low, pairs.scale.high],
    }


def _run(
    folder: FinetuneFolder,
    options: FinetuneOptions,
    pairs: Pairs,
    texts: ItemTexts,
    lines: Inputs,
    weights: Weights,
    device: torch.device,
    reporter: Reporter,
) -> tuple[dict[str, Any], dict[str, Any]]:
    rows = trivial_rows(pairs, options.seed)
    with Stopwatch(device) as load:
        model, tokenizer = load_regressor(weights, options, epoch_generator(options.seed, "head", 0))
    with Stopwatch(torch.device("cpu")) as tokenising:
        tokens = tokenise(tokenizer, lines.lines, options.max_length)
    _say_cut(tokens, options, reporter)
    scores = torch.from_numpy(pairs.train.rating.copy())
    trainer = Trainer(model, tokens, lines.train, scores, options, device)
    epochs = _train(trainer, folder, options, device, reporter)
    with Stopwatch(device) as predict:
        found = trainer.predict(lines.test).numpy()
    label = f"fine-tuned {weights.name}"
    rows.append(Row(label, found, sum(epoch["seconds"] for epoch in epochs), predict.seconds))
    if np.ptp(found) < 1e-3 * (pairs.scale.high - pairs.scale.low):
        reporter.warn("the fine-tuned model predicts the same for all: more --epochs, or a larger --learning-rate")
    results = {
        "schema": SCHEMA,
        "options": {**options.model_dump(mode="json"), "backbone": weights.name},
        "backbone_sha256": weights.sha256,
        "data": _describe(pairs, texts),
        "target": {"mean": trainer.mean, "std": trainer.spread},
        "train_mse": [epoch["train_mse"] for epoch in epochs],
        "predictions_off_scale": int((found != pairs.scale.clip(found)).sum()),
        "rows": scored(rows, pairs.test, pairs.scale),
    }
    timings = {
        "load_s": load.seconds,
        "tokenise_s": tokenising.seconds,
        "epoch_s": [epoch["seconds"] for epoch in epochs],
        "rows": {row.label: {"fit_s": row.fit_s, "predict_s": row.predict_s} for row in rows},
    }
    files = {
        "predictions.csv": _predictions(pairs, found),
        "results.md": as_markdown(results, timings).encode(),
    }
    folder.finish(
        lambda path: save_regressor(model, tokenizer, trainer.mean, trainer.spread, path), files, results, timings
    )
    return results, timings


def _train(
    trainer: Trainer, folder: FinetuneFolder, options: FinetuneOptions, device: torch.device, reporter: Reporter
) -> list[dict[str, float]]:
    """Train what is left of the epochs, keep the state after each, and return (loss, seconds) of all."""
    epochs: list[dict[str, float]] = []
    if (kept := folder.kept()) is not None:
        epochs, state = kept
        trainer.load(state)
        reporter.say(f"{folder.path}: goes on after epoch {len(epochs)} of {options.epochs}")
    threads = torch.get_num_threads()
    where = device.type if device.type != "cpu" else f"cpu with {threads} thread{'s' * (threads > 1)}"
    begun = len(epochs)
    reporter.start(options.epochs, begun, options.batch_size, where)
    try:
        for number in range(begun + 1, options.epochs + 1):
            mse, seconds = timed(trainer, number, reporter, measure=number == begun + 1)
            epochs.append({"train_mse": mse, "seconds": seconds})
            folder.keep(epochs, trainer.state())
            reporter.epoch_done(mse, seconds)
    finally:
        reporter.stop()
    return epochs


def _say_cut(tokens: Tokens, options: FinetuneOptions, reporter: Reporter) -> None:
    cut = int((tokens.lengths >= options.max_length).sum())
    if cut:
        reporter.say(
            f"{cut:,} of {len(tokens.lengths):,} texts reach {options.max_length} tokens, where they are cut "
            "(--max-length allows more)"
        )


def _describe(pairs: Pairs, texts: ItemTexts) -> dict[str, Any]:
    return {
        "train_sha256": pairs.sources["train"],
        "test_sha256": pairs.sources["test"],
        "train_ratings": len(pairs.train),
        "test_ratings": len(pairs.test),
        "train_users": len(np.unique(pairs.train.user)),
        "test_users": len(np.unique(pairs.test.user)),
        "train_items": len(np.unique(pairs.train.item)),
        "test_items": len(np.unique(pairs.test.item)),
        "scale": [pairs.scale.low, pairs.scale.high],
        "item_texts": "ids" if texts.source == "ids" else "file" if pairs.texts is not None else "data set",
        "items_without_text": texts.without,
        "warnings": [*pairs.warnings, *texts.warnings],
    }


def _predictions(pairs: Pairs, found: np.ndarray) -> bytes:
    """Return the clipped predictions, in the order of the test file; no scores, whose licence may forbid copies.

    An id that a spreadsheet would take for a formula has an apostrophe in front (``fewrec.report.numbers.guarded``).
    """
    item, user = (np.array([guarded(one) for one in ids], object) for ids in (pairs.item_ids, pairs.user_ids))
    columns = {
        "item": item[pairs.test.item], "user": user[pairs.test.user], "prediction": pairs.scale.clip(found).round(6),
    }  # fmt: skip
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode()
