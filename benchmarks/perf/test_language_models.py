"""Adapting language models beside the Hugging Face Trainer and peft, episode after episode.

What both sides run with (learning rates, ours also the number of epochs) was chosen on meta-validation: choose.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import flops
import lm
import pytest
import torch
from choose import PEFT, TRAINER, opponent
from torch import Tensor

from fewrec.episodes.support import Episodes
from fewrec.learners.text.precision import has_fast_bfloat16

PROMPTED = 8
"""How many episodes peft adapts to for its error: one takes it three quarters of a minute on two cores."""
BFLOAT16 = "this processor multiplies bfloat16 no faster than float32"
SHAPE = f"{lm.SHAPE['n_users']} users, {lm.SHAPE['k_shot']} + {lm.SHAPE['n_query']}"


@dataclass
class Sides:
    """What both sides predicted at first, and how many floating-point operations an episode of each takes."""

    episodes: Episodes
    ours: dict[int, Tensor] = field(default_factory=dict)
    other: dict[int, Tensor] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)

    def count(self, side: str, e: int, work: Callable[[], Tensor]) -> Tensor:
        """Run the work of an episode, and count its operations the first time, which nobody times."""
        kept: dict[int, Tensor] = getattr(self, side)
        if side not in self.operations:
            self.operations[side] = flops.counted(lambda: kept.setdefault(e, work()))
            return kept[e]
        return kept.setdefault(e, work())


@pytest.fixture(scope="module")
def brief(device_ctx) -> bool:
    """Whether to measure less of it: both opponents spend seconds on each episode whatever the device, and a GPU's
    minutes cost more than a processor's."""
    return device_ctx.device.type == "cuda"


@pytest.fixture(scope="module")
def episodes(user_cold, brief) -> Episodes:
    return lm.episodes_of(user_cold, "test", PROMPTED if brief else lm.EPISODES)


@pytest.fixture(scope="module")
def trainers(device_ctx, episodes) -> dict[int, Tensor]:
    """What the Trainer predicts for every episode: shared by the rows that it is timed beside."""
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install 'fewrec[perf]'")
    peer, rate = opponent(TRAINER, device_ctx), lm.chosen(TRAINER)["options"]["learning_rate"]
    return {e: peer.predict(episodes, e, rate) for e in range(len(episodes))}


@pytest.fixture(scope="module")
def prompted(device_ctx, episodes) -> dict[int, Tensor]:
    """What peft predicts for the first episodes, in float32."""
    pytest.importorskip("peft", reason="the opponent is peft: pip install 'fewrec[perf]'")
    peer, rate = opponent(PEFT, device_ctx), lm.chosen(PEFT)["options"]["learning_rate"]
    return {e: peer.predict(episodes, e, rate) for e in range(PROMPTED)}


def throughput(row: str, episodes: Episodes, ctx, **options) -> str:
    """Say how long an episode takes where all of them are adapted as one batch."""
    learner = lm.learner_of(row, ctx, **options)
    seconds = lm.seconds(lambda: lm.all_of(learner, episodes, ctx), ctx.device)
    return f"as one batch {seconds / len(episodes):.2g} s an episode"


ENCODER_ROWS = {
    "full": "full fine-tune of MiniLM, equal arithmetic; wanted: at least 1.4 times",
    "last layer": "last layer of MiniLM; wanted: at least 8 times",
    "last two layers": "last two layers of MiniLM; wanted: at least 4 times",
    "LoRA, last two layers": "LoRA in the last two layers of MiniLM; wanted: at least 4 times",
    "soft prompts, last two layers": "soft prompts in MiniLM's last two layers; wanted: below 0.5 s",
}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("row", ENCODER_ROWS)
def test_an_encoder_beside_the_trainer(compare, device_ctx, episodes, trainers, brief, row, half):
    ctx = device_ctx
    if half and not has_fast_bfloat16(ctx.device):
        pytest.skip(BFLOAT16)
    precision = "bfloat16" if half else "float32"
    other_half = half and row == "full"  # equal arithmetic; the others are beside what people do
    learner = lm.learner_of(row, ctx, at_once=1, precision=precision)
    peer, rate = opponent(TRAINER, ctx), lm.chosen(TRAINER)["options"]["learning_rate"]
    sides = Sides(episodes, other=dict(trainers))

    def ours(e: int) -> None:
        sides.count("ours", e, lambda: lm.one_of(learner, episodes, e, ctx))

    def theirs(e: int) -> None:
        sides.count("other", e, lambda: peer.predict(episodes, e, rate, half=other_half))

    def note(ours_s: float, other_s: float) -> str:
        for e in range(len(episodes)):
            if e not in sides.ours:
                ours(e)
        errors = [lm.rmse(episodes, side, ctx.scale) for side in (sides.ours, sides.other)]
        what, _, wanted = ENCODER_ROWS[row].partition("; ")
        options = ", ".join(f"{name} {value:g}" for name, value in lm.chosen(row)["options"].items())
        return "; ".join(
            [
                f"{what} ({options}), RMSE {errors[0]:.3f} against {errors[1]:.3f} on {len(episodes)} episodes of "
                f"MovieLens-100K user-cold ({SHAPE}), one at a time",
                throughput(row, episodes, ctx, precision=precision),
                shares(sides, (ours_s, other_s), ctx.device, half, other_half),
                f"theirs: {lm.EPOCHS} epochs, batch {lm.BATCH}, standardised targets, learning rate {rate:g}",
                wanted,
            ]
        )

    compare(
        f"{row}, {precision}, an episode",
        ours,
        theirs,
        other_name=f"Hugging Face Trainer, full fine-tune of MiniLM, {'bfloat16' if other_half else 'float32'}",
        note=note,
        rounds=2 if brief else 5,
    )


DECODER_ROWS = {
    "soft prompts at the input, SmolLM2": "equal arithmetic; wanted: at least 1.4 times in float32, 1.8 in bfloat16",
    "soft prompts, last third, SmolLM2": "prompts where the last third of the layers begins; wanted: at least 5 times",
}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("row", DECODER_ROWS)
def test_a_decoder_beside_peft(compare, device_ctx, episodes, prompted, row, half):
    ctx = device_ctx
    if half and not has_fast_bfloat16(ctx.device):
        pytest.skip(BFLOAT16)
    precision = "bfloat16" if half else "float32"
    learner = lm.learner_of(row, ctx, at_once=1, precision=precision)
    peer, rate = opponent(PEFT, ctx), lm.chosen(PEFT)["options"]["learning_rate"]
    sides = Sides(episodes, other=dict(prompted))

    def ours(e: int) -> None:
        sides.count("ours", e, lambda: lm.one_of(learner, episodes, e, ctx))

    def theirs(e: int) -> None:
        sides.count("other", e, lambda: peer.predict(episodes, e, rate, half=half))

    def note(ours_s: float, other_s: float) -> str:
        for e in prompted:
            if e not in sides.ours:
                ours(e)
        errors = [lm.rmse(episodes, side, ctx.scale) for side in (sides.ours, sides.other)]
        what, _, wanted = DECODER_ROWS[row].partition("; ")
        options = ", ".join(f"{name} {value:g}" for name, value in lm.chosen(row)["options"].items())
        return "; ".join(
            [
                f"{what} ({options}), RMSE {errors[0]:.3f} against {errors[1]:.3f} on {len(sides.other)} episodes "
                f"({SHAPE})",
                shares(sides, (ours_s, other_s), ctx.device, half, half),
                f"theirs: {lm.EPOCHS} epochs, batch {lm.BATCH}, learning rate {rate:g}",
                wanted,
            ]
        )

    compare(
        f"{row}, {precision}, an episode",
        ours,
        theirs,
        other_name=f"peft, prompt tuning, {precision}",
        note=note,
        rounds=2,
    )


def shares(sides: Sides, seconds: tuple[float, float], device: torch.device, half: bool, other_half: bool) -> str:
    """Say at which share of the peak both sides computed."""
    dtypes = (torch.bfloat16 if each else torch.float32 for each in (half, other_half))
    parts = [
        flops.sentence(sides.operations[side], time, device, dtype)
        for side, time, dtype in zip(("ours", "other"), seconds, dtypes, strict=True)
    ]
    return f"{parts[0]}; theirs {parts[1]}"
