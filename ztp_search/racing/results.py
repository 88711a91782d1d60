"""What a trial gave on the images that it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ztp_search.racing.statistics import Correct

Losses: TypeAlias = npt.NDArray[np.uint16]
"""Per image: how far the output is from what it should be, 0 to 1 in units of 1 / LOSS_UNITS,
(images,). Whole numbers, so that every sum is exact, whatever the order."""

LOSS_UNITS = 65_535


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """A trial on the first images, in the order in which all trials see them.

    correct: right or not, (images,). losses: of the same images; None where racing goes by right
    or wrong alone.
    """

    correct: Correct
    losses: Losses | None = None

    def __len__(self) -> int:
        return len(self.correct)

    def first(self, images: int) -> Results:
        """On the first so many of them."""
        return Results(
            self.correct[:images], None if self.losses is None else self.losses[:images]
        )

    def then(self, following: Results) -> Results:
        """With the results of the images that follow."""
        if not len(self):
            return following
        assert (self.losses is None) == (following.losses is None)
        losses = None
        if self.losses is not None and following.losses is not None:
            losses = np.concatenate([self.losses, following.losses])
        return Results(np.concatenate([self.correct, following.correct]), losses)

    @property
    def loss(self) -> float:
        """Mean loss, 0 to 1; of right and wrong alone the share that is wrong."""
        return float(self.units.mean(dtype=np.float64)) / LOSS_UNITS

    @property
    def units(self) -> npt.NDArray[np.uint16]:
        """The losses; of right and wrong alone 0 and LOSS_UNITS, (images,)."""
        if self.losses is not None:
            return self.losses
        return np.where(self.correct, 0, LOSS_UNITS).astype(np.uint16)


NOTHING = Results(np.zeros(0, np.bool_))
"""Of a trial that has seen no image."""
