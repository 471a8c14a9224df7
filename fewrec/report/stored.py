"""What the JSON of a results folder must be, checked before a table is made of it; apart because it imports pydantic.

Keys that this version doesn't know are left alone: a later one may have written them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fewrec.errors import DataError

_Whole = Annotated[int, Field(ge=0, lt=2**63)]
_Rank = Annotated[int, Field(ge=1, lt=2**31)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Plain = str | int | float | bool | None


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


class _Spec(_Stored):
    dataset: str
    meta_dataset: str | None = None
    protocol: dict[str, _Plain | list[_Plain]]
    n_users: _Whole
    k_shot: _Whole | Literal["rest"]
    n_query: _Whole
    episodes: _Whole
    seed: _Whole
    learner: str
    label: str | None = None
    config: dict[str, Any] | None = None
    ndcg_at: _Rank | list[_Rank] | None = None
    top_at: _Rank | None = None

    @field_validator("protocol")
    @classmethod
    def _state_is_text(cls, protocol: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(protocol.get("state"), str | None):
            raise ValueError("its state is no text")
        return protocol


class _Timing(_Stored):
    prepare_s: _Number | None = None
    meta_fit_s: _Number | None = None
    episodes_per_s: _Number | None = None
    peak_mb: _Number | None = None
    device_peak_mb: _Number | None = None
    adapt_ms: list[_Number | None] | None = None
    predict_ms: list[_Number | None] | None = None
    update_ms: list[_Number | None] | None = None


class _Bounds(_Stored):
    low: _Number
    high: _Number


_Scale = Annotated[list[_Number], Field(min_length=2)] | _Bounds


class _Tuning(_Stored):
    kind: str | None = None
    trials: _Whole | None = None
    budget: _Whole | None = None
    dataset: str | None = None
    seeds: list[int] | None = None


class _Cell(_Stored):
    spec: _Spec
    spec_hash: Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,128}$")]
    status: str
    reason: str | None = None
    code_hash: str | None = None
    dataset_sha256: str | None = None
    text_sha256: str | None = None
    split_hash: str | None = None
    eligible_users: _Whole | None = None
    excluded_users: _Whole | None = None
    trainable_params: _Whole | None = None
    other_configurations: _Whole = 0
    tuning: _Tuning | None = None
    scale: _Scale | None = None
    timing: _Timing | None = None


class _Data(_Stored):
    sha256: str | None = None
    text_sha256: str | None = None
    kind: str | None = None
    scale: _Scale | None = None
    sources: dict[str, str] | None = None
    licence: str | None = None
    citation: str | None = None
    homepage: str | None = None
    notes: list[str] | None = None


class _Quoted(_Stored):
    label: str
    figures: dict[str, float]
    source: str


class _Suite(_Stored):
    name: str | None = None
    title: str | None = None
    published: list[_Quoted] | None = None


class _Environment(_Stored):
    versions: dict[str, str | None] | None = None


class _Manifest(_Stored):
    name: str | None = None
    command: str | None = None
    suite: str | _Suite | None = None
    environment: _Environment | None = None
    datasets: dict[str, _Data] | None = None
    splits: dict[str, str] | None = None
    cells: list[Any] | None = None


def check_manifest(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return what ``manifest.json`` holds; raise ``DataError`` naming the first entry that can't be right."""
    return _checked(_Manifest, value, file)


def check_cell(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return a cell's record; raise ``DataError`` naming the first entry that can't be right."""
    return _checked(_Cell, value, file)


def check_timing(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return what ``timing.json`` holds; raise ``DataError`` naming the first entry that can't be right."""
    return _checked(_Timing, value, file)


def _checked(model: type[_Stored], value: dict[str, Any], file: Path) -> dict[str, Any]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ")
        raise DataError(f"{file}: broken at '{key}' ({said}); remove its folder and run the suite again") from None
    return value
