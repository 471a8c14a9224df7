"""Ratings on one scale for learners whose options are in rating units, whatever the scale of the data set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fewrec.data.table import Scale


@dataclass(frozen=True)
class RatingUnits:
    """The map of a data set's scale to 1..5, by which learning rates, ridges and priors hold for all scales alike.

    ``size``: what one unit is on the data set's scale. On a scale from 1 to 5 the map changes no bit.
    """

    size: float
    low: float

    @classmethod
    def of(cls, scale: Scale) -> RatingUnits:
        return cls((scale.high - scale.low) / 4, scale.low)

    def to_units(self, rating):
        """Return ratings (NumPy array or tensor) of the data set's scale as numbers from 1 to 5."""
        return rating / self.size + (1 - self.low / self.size)

    def from_units(self, predicted: Tensor) -> Tensor:
        """Return predictions in units on the data set's scale."""
        return predicted * self.size + (self.low - self.size)
