"""The files that ``fewrec tune`` writes: rows of a suite, each with how it came to its options."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewrec.errors import SuiteError, reason_of
from fewrec.runner.suite import LearnerRow, validated_config
from fewrec.validation import first_problem


class _TunedFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    learners: tuple[LearnerRow, ...] = Field(min_length=1)


def load_tuned(paths: Iterable[str | Path]) -> list[LearnerRow]:
    """Return the rows of files that ``fewrec tune`` wrote; raises ``SuiteError`` naming the file and the fix."""
    found: dict[str, tuple[LearnerRow, Path]] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise SuiteError(f"--tuned {path}: no such file; write it with: fewrec tune SUITE --learner LEARNER")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            rows = _TunedFile(**values).learners
        except ValidationError as error:
            problem = first_problem(error, _TunedFile)
            raise SuiteError(f"--tuned {path}: not as fewrec tune writes it: {problem}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise SuiteError(f"--tuned {path}: can't be read: {reason_of(error)}") from None
        for row in rows:
            if row.tuned is None:
                raise SuiteError(
                    f"--tuned {path}: row '{row.shown}' has no table [learners.tuned]; put it into a suite"
                )
            if row.shown in found and found[row.shown][0] != row:
                raise SuiteError(
                    f"--tuned {path}: the label '{row.shown}' stands in {found[row.shown][1]} too; change one of them"
                )
            try:
                validated_config(row)
            except SuiteError as error:
                raise SuiteError(f"--tuned {path}: {error}") from None
            found[row.shown] = (row, path)
    return [row for row, _ in found.values()]
