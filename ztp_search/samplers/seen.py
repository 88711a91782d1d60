"""What has been proposed, small enough to remember millions of configurations."""

from __future__ import annotations

import hashlib
from array import array


class Seen:
    """A set of keys that keeps 8 bytes of digest of each: 16 MiB for a million.

    Open addressing with linear probing, at most two thirds full. Two keys of a million share a
    digest once in 40 million studies; then the second counts as seen, in every run alike. Keys
    are tuples of numbers and text, told apart by their `repr`, which is exact for both.
    """

    def __init__(self) -> None:
        self._slots = _empty(1 << 10)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: tuple[object, ...]) -> bool:
        """Whether the key is new; it is in the set from now on."""
        digest = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())
        slot = _slot(self._slots, digest or 1)  # 0 marks an empty slot
        if self._slots[slot]:
            return False
        self._slots[slot] = digest or 1
        self._count += 1
        if 3 * self._count > 2 * len(self._slots):
            self._grow()
        return True

    def _grow(self) -> None:
        larger = _empty(2 * len(self._slots))
        for digest in self._slots:
            if digest:
                larger[_slot(larger, digest)] = digest
        self._slots = larger


def _empty(slots: int) -> array[int]:
    return array("Q", [0]) * slots


def _slot(slots: array[int], digest: int) -> int:
    """Where the digest stands, or else the empty slot where it belongs."""
    last = len(slots) - 1  # the number of slots is a power of two
    slot = digest & last
    while slots[slot] not in (0, digest):
        slot = (slot + 1) & last
    return slot
