"""Checks of a learner's life: saving, loading, updating, moving to a device, and doing its work when it is timed."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewrec.conformance.bench import K_MAX, Bench, rows
from fewrec.conformance.check import Broken, Skipped, check
from fewrec.conformance.compare import must_agree
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.base import Learner


@check("save-load", after=("state-methods", "learner-kept"), hint=(
    "load_state, on a fresh learner that was prepared but not meta-fitted, must restore everything that adapt uses."
))  # fmt: skip
def state_survives_saving_and_loading(bench: Bench) -> None:
    """state() returns (tensors, JSON values); a fresh learner, prepared and given these by load_state instead of
    meta_fit, predicts the same bytes."""
    if not bench.learner.has_meta_fit():
        raise Skipped("it has no meta_fit, so there is nothing to save")
    again = bench.make()
    tensors, values = _stored(bench)
    bench.call("load_state", lambda: again.load_state(tensors, values, bench.ctx))
    support = bench.ordinary
    must_agree(
        support, bench.everything(support), bench.predictions(support, again), bench.predictions(support),
        names=("loaded", "fitted"), tolerance=0, seen="The learner that was saved and loaded predicts differently",
        cause="Something that meta_fit computes is missing in state(), loses precision there (float64 stays float64), "
        "or load_state puts it back in another form.",
    )  # fmt: skip


def _stored(bench: Bench) -> tuple[dict[str, Tensor], dict]:
    """Return the state as it comes back from safetensors and JSON."""
    found = bench.fitted.state()
    if not (isinstance(found, tuple) and len(found) == 2):
        raise Broken(f"state() returned a {type(found).__name__}.", "Return ({name: tensor}, {name: JSON value}).")
    tensors, values = found
    wrong = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong:
        raise Broken(
            f"{', '.join(wrong)} of state()'s tensors are none.", "Put numbers and strings into the second dict."
        )
    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"The second dict of state() is no JSON: {error}.", "Use float(x), int(x), list(x) and strings; "
                     "tensors belong into the first dict.") from None  # fmt: skip
    if json.loads(text) != values:
        raise Broken("The second dict of state() comes back from JSON as another one.",
                     "Keys must be strings, and tuples come back as lists.")  # fmt: skip
    if not tensors:
        return {}, json.loads(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.safetensors")
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
        return load_file(path), json.loads(text)


@check(
    "update",
    after=("batch", "inputs"),
    hint="update(support, ctx) gets more ratings of the same users, numbered alike.",
)
def updating_equals_adapting_to_all_ratings_at_once(bench: Bench) -> None:
    """predictor.update(more, ctx) returns a new predictor that knows the earlier ratings and the new ones, as if it had
    been adapted to all of them; the earlier predictor stays as it is."""
    cause = (
        "Your update forgets the earlier ratings, weighs them otherwise, or takes another seed than the first's. "
        "Without an update of your own, the default adapts again to all of them."
    )

    def body(support: Support) -> None:
        k_shot = len(support.item) // support.n_users
        whole = bench.support(support.n_users, min(K_MAX, k_shot + 2))
        early = torch.arange(len(whole.user)) % min(K_MAX, k_shot + 2) < k_shot
        first, more = rows(whole, early), rows(whole, ~early)
        pairs = bench.everything(whole)
        predictor = bench.adapt(first)
        before = bench.ask(predictor, *pairs)
        updated = bench.call("update", lambda: predictor.update(more, bench.ctx))
        batch = bench.adapt_batch([first])
        grown = bench.call("update", lambda: batch.update(SupportBatch.of([more]), bench.ctx))
        wanted = bench.predictions(first.joined(more))
        names = ("updated", "adapted to all")
        for found, seen in (
            (bench.ask(updated, *pairs), f"After update with {len(more.item)} more ratings, it predicts otherwise"),
            (bench.ask_batch(grown, 0, *pairs), "After update of a batch of one episode, it predicts otherwise"),
        ):
            must_agree(first.joined(more), pairs, found, wanted, names=names, tolerance=bench.rounding, seen=seen,
                       cause=cause)  # fmt: skip
        must_agree(
            first, pairs, bench.ask(predictor, *pairs), before, names=("after", "before"), tolerance=0,
            seen="update changed the predictor that it was called on", cause="Return a new predictor.",
        )  # fmt: skip

    bench.smallest(body)


@check("parameters", after=("fits",))
def it_counts_its_parameters(bench: Bench) -> None:
    """trainable_parameters() is how many numbers the learner fits, in meta-fit and in adapting; the table shows it."""
    count = bench.fitted.trainable_parameters()
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise Broken(f"trainable_parameters() returned {count!r}.", "Return an int from 0 on.")
    overridden = bench.learner.trainable_parameters is not Learner.trainable_parameters
    if bench.learner.has_meta_fit() and not overridden:
        raise Broken(
            "It has meta_fit, but says that it fits 0 numbers, which is the default.",
            "Override trainable_parameters and return, for instance, the size of the tensors in state().",
        )


@check("constructor", after=("fits",))
def making_it_does_no_heavy_work(bench: Bench) -> None:
    """Prepare, meta-fit, adapt and predict are timed; the constructor is not, so it does nothing but keep its
    configuration."""
    seconds = min(_seconds(lambda: bench.learner(bench.learner.Config(**bench.config))) for _ in range(3))
    if seconds > 0.25:
        raise Broken(
            f"Making the learner takes {seconds:.2f} s of processor time, outside of every timed phase.",
            "Load weights and compile in prepare(ctx); learn in meta_fit.",
        )


@check("work-is-timed", after=("learner-kept",))
def adapting_again_is_not_served_from_a_cache(bench: Bench) -> None:
    """The time of adapt is measured on episodes that come more than once (warm-up, latency, throughput): a learner that
    keeps what it computed for a support would look faster than it is."""

    def seconds(support: Support) -> float:
        batch = SupportBatch.of([support])
        return _seconds(lambda: bench.call("adapt_batch", lambda: learner.adapt_batch(batch, bench.ctx)))

    learner = bench.copy()
    seconds(bench.support(3, 4, 1000))  # warm-up
    fresh = min(seconds(bench.support(3, 4, episode)) for episode in range(1001, 1004))  # that no check has used
    if fresh < 0.02:
        return  # a difference could not be told from noise
    again = max(seconds(bench.support(3, 4, episode)) for episode in range(1001, 1004))
    if again < fresh / 10:
        raise Broken(
            f"Adapting takes {1000 * fresh:.0f} ms to a new support and {1000 * again:.1f} ms to one that it has seen.",
            "adapt keeps results (functools.cache, a dict by seed or items). Compute what depends on no rating in "
            "prepare or meta_fit, and adapt afresh.",
        )


def _seconds(function) -> float:
    """Return the processor time of a call, which other processes don't lengthen."""
    start = time.process_time()
    function()
    return time.process_time() - start


def accelerator() -> str | None:
    """Return the name of this machine's accelerator, if torch finds one."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None


@check("device", after=("save-load",), hint=(
    "Tensors of two devices meet: supports come on the CPU; move what you compute with to ctx.device, in meta_fit "
    "and in load_state too."
))  # fmt: skip
def an_accelerator_predicts_what_the_processor_does(bench: Bench) -> None:
    """With ctx.device on an accelerator a learner runs there, and predicts what it predicts on the CPU to 2e-3 RMSE."""
    name = accelerator()
    if name is None:
        raise Skipped("there is no accelerator here (CUDA or MPS)")
    ctx = replace(bench.ctx, device=torch.device(name))
    there = bench.make(ctx)
    if bench.learner.has_meta_fit():
        tensors, values = _stored(bench)
        bench.call("load_state", lambda: there.load_state(tensors, values, ctx))
    support = bench.ordinary
    found, wanted = bench.predictions(support, there, ctx), bench.predictions(support)
    off = float((found - wanted).square().mean().sqrt())
    if not off < 2e-3:
        must_agree(support, bench.everything(support), found, wanted, names=(name, "cpu"), tolerance=2e-3,
                   seen=f"On {name} it predicts otherwise (RMSE {off:.4g})",
                   cause="Draw random numbers on the CPU, with ctx.generator(seed), and move them; use float64 where "
                   "sums cancel.")  # fmt: skip
        raise Broken(f"On {name} its predictions differ by {off:.4g} RMSE.", "Use float64 where sums cancel.")
