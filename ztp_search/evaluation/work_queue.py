"""Which configurations, on which image ranges, no worker has been given yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from ztp_search.evaluation.image_range import ImageRange
from ztp_search.pruning.config import PruningConfig

Key = tuple[str, int]
"""Whose result it is: (kind, number), such as ("trial", 7)."""


class WorkQueue:
    """Hands out configurations, several at a time, each once on every image range.

    Configurations whose first pruning layer follows the same block are handed out together, as
    they share all activations before it. A worker stays with an image range, for which it has
    these cached, while other workers take other ranges.

    Args:
        ranges: the image ranges that every configuration is evaluated on.

    Attributes:
        size: evaluations left, counting a configuration once per image range.
    """

    def __init__(self, ranges: Sequence[ImageRange]) -> None:
        self.size = 0
        self._ranges = ranges
        self._configs: Mapping[Key, PruningConfig | None] = {}
        self._keys: dict[int, deque[Key]] = {}  # by index of the range, only where some are left
        self._untouched: set[int] = set()
        self._owner: dict[int, int] = {}  # the worker that began a range, in earlier fills too
        self._current: dict[int, int] = {}  # the range that a worker was given last

    def __bool__(self) -> bool:
        return bool(self._keys)

    def fill(self, configs: Mapping[Key, PruningConfig | None]) -> None:
        """Add configurations, on all image ranges, to a queue that is empty."""
        assert not self
        if not configs:
            return
        keys = sorted(configs, key=lambda key: (_first_layer(configs[key]), key))
        self._configs = configs
        self._keys = {index: deque(keys) for index in range(len(self._ranges))}
        self._untouched = set(self._keys)
        self.size = len(keys) * len(self._ranges)

    def take(
        self, worker: int, count: int
    ) -> tuple[ImageRange, dict[Key, PruningConfig | None]]:
        """Take at most `count` configurations for a worker, and the range they are for.

        The range is the worker's current one; else one that no worker has touched, preferably one
        that this worker began in an earlier fill; else the worker helps where most is left, and
        takes from the other end.
        """
        index = self._current.get(worker, -1)
        if index not in self._keys:
            if self._untouched:
                index = min(self._untouched, key=lambda each: (self._distance(each, worker), each))
                self._owner[index] = worker
            else:
                index = min(self._keys, key=lambda each: (-len(self._keys[each]), each))
        self._current[worker] = index
        self._untouched.discard(index)
        keys = self._keys[index]
        count = min(count, len(keys))
        if self._owner[index] == worker:
            taken = [keys.popleft() for _ in range(count)]
        else:
            taken = [keys.pop() for _ in range(count)][::-1]
        if not keys:
            del self._keys[index]
        self.size -= count
        return self._ranges[index], {key: self._configs[key] for key in taken}

    def _distance(self, index: int, worker: int) -> int:
        """0: the worker's own from an earlier fill, 1: nobody's, 2: another worker's."""
        return 1 if index not in self._owner else 0 if self._owner[index] == worker else 2


def _first_layer(config: PruningConfig | None) -> int:
    return config.layers[0].after_block if config is not None and config.layers else 0
