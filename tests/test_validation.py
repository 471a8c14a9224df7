"""What a refused value is told: plain words, the value, its place, the nearest key of the table it stands in."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fewrec.errors import reason_of, shown
from fewrec.validation import first_problem


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"]
    lives: int = Field(9, ge=0)


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    tricks: tuple[str, ...] = ()


class House(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rooms: int = Field(gt=0)
    size: float | None = Field(None, allow_inf_nan=False)
    colours: tuple[Literal["red", "green"], ...] = ()
    floors: tuple[int | Literal["roof"], ...] = ()
    at: int | tuple[int, ...] = 5
    shares: tuple[float, float] = (0.5, 0.5)
    warm: bool = True
    owner: str = "nobody"
    pets: tuple[Annotated[Cat | Dog, Field(discriminator="kind")], ...] = ()

    @field_validator("owner")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 20:
            raise ValueError(f"{name} is\ntoo long")
        return name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "'rooms' is missing"),
        ({"rooms": "many"}, "rooms: 'many' is not a whole number"),
        ({"rooms": 2.5}, "rooms: 2.5 is not a whole number"),
        ({"rooms": 0}, "rooms: 0 is not above 0"),
        ({"rooms": None}, "rooms: nothing is not a whole number"),
        ({"rooms": 1, "size": "big"}, "size: 'big' is not a number"),
        ({"rooms": 1, "size": float("nan")}, "size: nan is not a finite number"),
        ({"rooms": 1, "colours": ["red", "pink"]}, "colours: 'pink' is none of 'red', 'green'"),
        ({"rooms": 1, "colours": "red"}, "colours: 'red' is not a list"),
        ({"rooms": 1, "floors": [1, "cellar"]}, "floors: 'cellar' is neither a whole number nor 'roof'"),
        ({"rooms": 1, "at": "door"}, "at: 'door' is neither a whole number nor a list"),
        ({"rooms": 1, "at": [1, "door"]}, "at: 'door' is not a whole number"),
        ({"rooms": 1, "shares": [1.0]}, "shares: value 2 is missing"),
        ({"rooms": 1, "warm": "perhaps"}, "warm: 'perhaps' is neither true nor false"),
        ({"rooms": 1, "owner": 7}, "owner: 7 is not text"),
        ({"rooms": 1, "owner": "x" * 21}, f"owner: {'x' * 21} is too long"),
        ({"room": 1}, "unknown key 'room'; did you mean 'rooms'?"),
        ({"rooms": 1, "pets": [{"kind": "cat"}, {"kind": "cow"}]}, "pets, row 2: type 'cow' is none of 'cat', 'dog'"),
        ({"rooms": 1, "pets": [{"lives": 3}]}, "pets, row 1: its type is missing"),
        ({"rooms": 1, "pets": [{"kind": "cat", "lives": -1}]}, "pets, row 1: cat.lives: -1 is below 0"),
        ({"rooms": 1, "pets": [{"kind": "cat", "live\n": 1}]},
         "pets, row 1: unknown key 'cat.live '; did you mean 'lives'?"),
    ],
)  # fmt: skip
def test_a_refused_value_is_named_in_plain_words(values, said):
    with pytest.raises(ValidationError) as caught:
        House(**values)
    assert str(first_problem(caught.value, House)) == said


def test_a_value_is_shown_short_and_without_what_a_terminal_obeys():
    assert shown("\x1b[2J" + "x" * 100) == "' [2J" + "x" * 56 + "...'"
    values = {"1": 1.0, "true": True, "nothing": None, "inf": float("inf"), '[1, "a"]': [1, "a"]}
    assert [shown(one) for one in values.values()] == list(values)
    assert shown(object()) == "something of the type object"


def test_reasons_of_files_are_in_words_of_the_user(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(OSError) as way:
        (tmp_path / "file" / "x").mkdir()
    with pytest.raises(UnicodeDecodeError) as text:
        (tmp_path / "file").read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError) as gone:
        (tmp_path / "gone").read_text()
    assert reason_of(way.value) == "a file stands where a folder should be"
    assert reason_of(text.value) == "it is not UTF-8; save it as UTF-8"
    assert reason_of(gone.value) == "No such file or directory"
