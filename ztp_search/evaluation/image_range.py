"""A stretch of consecutive images of one image set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRange:
    """Images `start` to `stop` - 1 of an image set ("search" or "holdout")."""

    image_set: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def split(self, size: int) -> list[ImageRange]:
        """Consecutive ranges of `size` images; the last one may be shorter."""
        return [
            ImageRange(self.image_set, first, min(first + size, self.stop))
            for first in range(self.start, self.stop, size)
        ]
