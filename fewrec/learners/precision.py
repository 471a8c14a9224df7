"""Double precision for long, chaotic trainings: they amplify the last bits of float32 until scores differ."""

from __future__ import annotations

from fewrec.errors import NotApplicable
from fewrec.learners.base import Context


def refuse_without_float64(name: str, dtype: str, ctx: Context) -> None:
    """Raise ``NotApplicable``, with the option to give, where the device has no float64 (mps) and it is asked for."""
    if dtype == "float64" and ctx.device.type == "mps":
        raise NotApplicable(f"mps has no float64: give --set {name}.dtype=float32, or --device cpu")
