"""The set of what has been proposed: right beside Python's own, and small."""

from __future__ import annotations

import tracemalloc

import numpy as np

from ztp_search.samplers import Seen


def test_it_tells_new_from_seen_as_a_set_does() -> None:
    generator = np.random.default_rng(0)
    seen, slow = Seen(), set()
    for a, b in generator.integers(120, size=(20_000, 2)).tolist():
        key = ((a, b), a / 7, str(b))
        assert seen.add(key) == (key not in slow)
        slow.add(key)
        assert len(seen) == len(slow)
    assert 10_000 < len(seen) < 14_400  # many came twice, and the table has grown


def test_numbers_that_differ_in_the_last_bit_are_two() -> None:
    seen = Seen()
    assert seen.add((0.1 + 0.2,))
    assert seen.add((0.3,))
    assert not seen.add((0.3,))


def test_fifty_thousand_cost_at_most_32_bytes_each_while_it_grows_too() -> None:
    tracemalloc.start()
    try:
        seen = Seen()
        for i in range(50_000):
            seen.add((i, 0.5))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000 * 32
