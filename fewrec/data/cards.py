"""Cards: what is known of a data set or of model weights before a byte of it is read, as TOML under ``datasets/``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from fewrec.data.sources import ArchiveSource, Entry, FilesSource, HubSource, ManualSource, OwnFile, PackageSource
from fewrec.data.table import Scale
from fewrec.data.template import DEFAULT_TEMPLATE, check_template
from fewrec.errors import DataError, nearest, reason_of, shown
from fewrec.paths import cards_folder, data_folder
from fewrec.validation import first_problem

DuplicatesPolicy = Literal["error", "last", "mean"]


class ScaleEntry(Entry):
    low: float
    high: float
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> ScaleEntry:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self

    def scale(self) -> Scale:
        return Scale(self.low, self.high, self.step)


class Columns(Entry):
    """What the data set offers beside ids: columns of its ratings, of its items' text and of its users."""

    ratings: tuple[Literal["user", "item", "rating", "timestamp"], ...]
    items: tuple[Literal["title", "year", "genres", "description"], ...] = ()
    users: tuple[str, ...] = ()


class Expected(Entry):
    """Counts of what is read from the files; one that is left out is not published, or changes, and is not checked."""

    ratings: int | None = None
    users: int | None = None
    items: int | None = None


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"{shown(name)}: a name has letters, digits, '.', '_', '-', and begins like a word")
    return name


class _Card(Entry):
    name: Annotated[str, AfterValidator(_plain_name)]
    title: str
    licence: str
    citation: str
    homepage: str


class Card(_Card):
    """A data set: identity, terms, scale, policy for duplicates, expected size, and sources in the order to try.

    ``template`` is what an item's text is made of (``fewrec.data.template``). ``published`` is the size as its makers
    state it, which is shown and not checked: they count what a reader leaves out, or a file that grows. ``own`` stands
    in place of sources where the card is of a user's own file (``fewrec data add``).
    """

    kind: Literal["ratings", "clicks"] = "ratings"
    scale: ScaleEntry
    columns: Columns
    duplicates: DuplicatesPolicy = "error"
    template: Annotated[str, AfterValidator(check_template)] = DEFAULT_TEMPLATE
    expected: Expected = Expected()
    published: str = ""
    sources: tuple[
        Annotated[ArchiveSource | PackageSource | FilesSource | ManualSource, Field(discriminator="type")], ...
    ] = ()
    own: OwnFile | None = None

    @model_validator(mode="after")
    def _clicks_are_zeros_and_ones(self) -> Card:
        if (self.kind == "clicks") != self.scale.scale().of_clicks:
            raise ValueError("kind is clicks where the scale is low 0, high 1, step 1, and nowhere else")
        if self.kind == "clicks" and "mean" in (self.duplicates, self.own and self.own.options.duplicates):
            raise ValueError("of clicks, 0 or 1, there is no mean: duplicates is error or last")
        return self

    @model_validator(mode="after")
    def _sources_or_an_own_file(self) -> Card:
        if bool(self.sources) == bool(self.own):
            raise ValueError("give [[sources]], or [own] for a file of your own: one of the two")
        if any(source.type == "manual" for source in self.sources[:-1]):
            raise ValueError("files to fetch by hand are one source, and the last one")
        return self

    @property
    def folder(self) -> str:
        return f"datasets/{self.name}"


class WeightsCard(_Card):
    """Model weights: identity, terms, other names they are asked for by, and sources in the order to try."""

    aliases: tuple[str, ...] = ()
    sources: tuple[Annotated[ArchiveSource | PackageSource | HubSource, Field(discriminator="type")], ...] = Field(
        min_length=1
    )

    @field_validator("sources")
    @classmethod
    def _safetensors_or_gguf_only(cls, sources: tuple) -> tuple:
        for source in sources:
            if not all(source.files.values()) or not getattr(source, "sha256", "known"):
                raise ValueError(f"{source.label}: weights need the SHA-256 of every file")
            bad = [n for n in source.files if not n.endswith((".safetensors", ".gguf", ".json", ".txt"))]
            n_gguf = sum(name.endswith(".gguf") for name in source.files)
            has_safetensors = any(name.endswith(".safetensors") for name in source.files)
            if bad or n_gguf + has_safetensors != 1:
                raise ValueError(
                    f"{source.label}: weights are .safetensors or one .gguf, with .json and .txt beside them, "
                    f"got {bad or sorted(source.files)}"
                )
        return sources

    @property
    def folder(self) -> str:
        return f"weights/{self.name}"


AnyCard = TypeVar("AnyCard", bound=_Card)


def list_cards(own: bool = True) -> list[Card]:
    """Return every data set's card: those that come with fewrec by name, then the user's own.

    An own card that can't be read is left out here; ``broken_cards`` says why.
    """
    builtin = [_read(path, Card) for path in data_folder("datasets").glob("*.toml")]
    mine = [card for card in map(_read_own, _own_paths()) if isinstance(card, Card)] if own else []
    return [*sorted(builtin, key=lambda card: card.name), *mine]


def broken_cards() -> list[str]:
    """Return one line for each card in the user's folder that can't be read."""
    return [str(card) for card in map(_read_own, _own_paths()) if isinstance(card, DataError)]


def card_names() -> list[str]:
    """Return the names that ``load_card`` finds, without reading the cards."""
    return sorted({path.stem for path in (*_own_paths(), *data_folder("datasets").glob("*.toml"))})


def is_builtin(name: str) -> bool:
    """Return whether ``name`` is a data set that comes with fewrec."""
    return name == "synthetic" or (data_folder("datasets") / f"{name}.toml").is_file()


def _own_paths() -> list[Path]:
    """Return the cards in the user's folder by name; a name that fewrec has itself is fewrec's."""
    return [path for path in sorted(cards_folder().glob("*.toml")) if not is_builtin(path.stem)]


def _read_own(path: Path) -> Card | DataError:
    try:
        return _read(path, Card)
    except DataError as error:
        return error


def list_weights() -> list[WeightsCard]:
    """Return the cards of the model weights that fewrec knows by name."""
    folder = data_folder("datasets") / "weights"
    return sorted((_read(path, WeightsCard) for path in folder.glob("*.toml")), key=lambda card: card.name)


def load_card(name: str) -> Card:
    """Return the card of the data set ``name``, or the card in the file ``name`` if that ends in ``.toml``.

    Cards that come with fewrec are found first, then those in the user's folder.

    Raises:
        DataError: if there is no such card (with the nearest name), or the file is not a valid card.
    """
    if name.endswith(".toml"):
        return _read(Path(name), Card)
    paths = {path.stem: path for path in (*_own_paths(), *data_folder("datasets").glob("*.toml"))}
    if name not in paths:
        raise DataError(f"unknown dataset '{name}'{nearest(name, paths)}")
    return _read(paths[name], Card)


def describe(card: Card | WeightsCard) -> dict[str, Any]:
    """Return what ``fewrec data info`` shows: one flat entry a line, in order."""
    common = {
        "licence": card.licence,
        "citation": card.citation,
        "homepage": card.homepage,
        "sources": "; ".join(source.label for source in card.sources) or _own_path(card),
    }
    if isinstance(card, WeightsCard):
        files = sorted({name for source in card.sources for name in source.files})
        named = {"name": card.name, "also": ", ".join(card.aliases) or "none", "title": card.title}
        return {**named, "kind": "weights", "files": ", ".join(files), **common}
    scale = card.scale
    step = "continuous" if scale.step is None else f"in steps of {scale.step:g}"
    return {
        "name": card.name,
        "title": card.title,
        "kind": card.kind,
        "size": _size(card),
        "scale": f"{scale.low:g} to {scale.high:g}, {step}",
        "columns": ", ".join(card.columns.ratings),
        "item text": ", ".join(card.columns.items) or "none",
        "template": card.template if card.columns.items else "none",
        "user features": ", ".join(card.columns.users) or "none",
        "duplicates": card.duplicates,
        **common,
        "checksum": _checksum(card),
    }


def _own_path(card: Card | WeightsCard) -> str:
    return card.own.path if isinstance(card, Card) and card.own else ""


def _size(card: Card) -> str:
    counts = card.expected.model_dump()
    known = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count is not None)
    return "; ".join(part for part in (known, card.published) if part) or "not published"


def _checksum(card: Card) -> str:
    if card.own:
        return "recorded when it was added; checked at every use"
    unknown = [source for source in card.sources if not source.is_pinned]
    if not unknown:
        return "published; checked at every use"
    where = "" if len(unknown) == len(card.sources) else f" ({'; '.join(source.label for source in unknown)})"
    return f"not published; recorded at first download{where}"


def _read(path: Path, model: type[AnyCard]) -> AnyCard:
    try:
        card = model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: no such card; give the path of one, or a name of fewrec list datasets") from None
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error, model)}") from None
    except (OSError, ValueError, RecursionError) as error:  # among the values of no TOML: digits and levels without end
        raise DataError(f"{path}: not a readable card ({reason_of(error)})") from None
    return card
