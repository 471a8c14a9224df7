"""The options of a fine-tuning run: what decides its result, apart from the data and the machine."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewrec.errors import SuiteError
from fewrec.validation import first_problem


class FinetuneOptions(BaseModel):
    """Defaults are those of the tutorial case (docs/finetune.md); ``dropout`` is BERT's, everywhere in the model.

    ``batch_size`` is in ratings, ``max_length`` in tokens, special ones included. ``learning_rate`` and
    ``weight_decay`` are AdamW's, the same for all parameters in all epochs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "all-MiniLM-L6-v2"
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-5, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    dropout: float = Field(0.1, ge=0, lt=1)
    max_length: int = Field(64, ge=8)
    seed: int = Field(0, ge=0)

    @classmethod
    def of(cls, **given: Any) -> FinetuneOptions:
        """Return the options, some of them ``given``; raise ``SuiteError``, in one line, for an impossible one."""
        try:
            return cls(**given)
        except ValidationError as error:
            problem = first_problem(error, cls)
            option = problem.key.replace("_", "-")
            said = f" is not an option of fine-tuning{problem.said}" if problem.unknown else f": {problem.said}"
            raise SuiteError(f"--{option}{said}") from None
