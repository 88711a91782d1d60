"""Any point of the unit cube becomes a configuration that meets the budget and the space.

Costs are counted anew here, by the formulas as they are published.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers.geometries import (
    DEEP,
    DEIT_B,
    DEIT_S,
    DEIT_T,
    DIGITS,
    DISTILLED,
    GEOMETRIES,
    POOLED,
    budget_of,
    counts_by_hand,
    macs_by_hand,
    size_of,
    unpruned,
    vit,
)  # fmt: skip
from helpers.messages import one_line
from helpers.spaces import assert_right, points, space_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ztp_search.errors import BudgetError, SpaceError
from ztp_search.pruning.budget import Budget, parse_budget
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.space import SearchSpace, load_space
from ztp_search.space.decoder import Decoder
from ztp_search.space.locations import sets_of

SHIPPED = {
    "deit_tiny": DEIT_T, "deit_small": DEIT_S, "deit_base": DEIT_B, "vit_small": DEIT_S,
    "vit_base": DEIT_B, "digits": DIGITS, "any": DISTILLED,
}  # fmt: skip


def corners(decoder: Decoder) -> list[list[float]]:
    """All zeros, all ones, alternating, and some with ends among the coordinates."""
    size, generator = decoder.dimensions, random.Random(0)
    mixed = [
        [generator.choice([0.0, 1.0, generator.random()]) for _ in range(size)] for _ in range(20)
    ]
    return [[0.0] * size, [1.0] * size, ([0.0, 1.0] * size)[:size], ([1.0, 0.0] * size)[:size],
            *mixed]  # fmt: skip


def test_the_sizes_made_by_hand_give_the_published_totals() -> None:
    assert unpruned(DEIT_S) == 4_608_338_304
    assert unpruned(DEIT_T) == 1_258_411_200


# --- budget and bounds ---------------------------------------------------------------------------


@pytest.mark.parametrize("counts", ["total", "backbone"])
@pytest.mark.parametrize("share", [0.4, 0.5, 0.67, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_space_meets_its_budgets(name: str, share: float, counts: str) -> None:
    geometry = SHIPPED[name]
    decoder = Decoder(load_space(name), geometry, budget_of(geometry, share, counts))
    for point in corners(decoder) + points(decoder, 20):
        assert_right(decoder, decoder.decode(point))


VARIANTS = {
    "similar": st.sampled_from(["drop", "merge", ["drop", "merge"]]),
    "sizes": st.sampled_from(["ignore", ["track", "ignore"]]),
    "partition": st.sampled_from(["alternate", ["sequential-u", "position"]]),
    "features": st.sampled_from(["key", ["x", "key"]]),
}


@st.composite
def spaces(draw: st.DrawFn, depth: int) -> SearchSpace:
    """Any space in which every layer can prune, with ranges as narrow or wide as they come."""

    def interval(values: st.SearchStrategy[int]) -> list[int]:
        return sorted((draw(values), draw(values)))

    def rates() -> list[float]:
        low, high = interval(st.sampled_from([2_000, 3_333, 5_000, 7_071, 9_000, 9_999, 10_000]))
        return [low / 10_000, high / 10_000]

    def per_block(make: Any) -> Any:
        return draw(st.one_of(st.builds(make), st.builds(lambda: {"2-4": make(), "other": make()})))

    blocks = sorted(draw(st.sets(st.integers(1, depth - 1), min_size=1)))
    return space_of(
        after_block=draw(st.sampled_from(["all", blocks])),
        layers=interval(st.integers(1, min(5, len(blocks)))),
        retention=per_block(rates),
        s_tokens=per_block(lambda: interval(st.sampled_from([0, 0, 1, 5, 10, 30]))),
        wpr_iterations=per_block(lambda: interval(st.integers(1, 60))),
        v_max={"low": 0.7, "high": draw(st.sampled_from([0.7, 50.0])), "log": draw(st.booleans())},
        order=draw(st.sampled_from(["i'-s-i", "i-s"])),
        kept=draw(st.sampled_from([[0.0001, 1.0], [0.4, 1.0], [0.5, 0.8]])),
        merge_share=per_block(lambda: [each / 100 for each in interval(st.integers(0, 100))]),
        **{name: draw(some) for name, some in VARIANTS.items()},
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_point_of_any_space_meets_the_budget_or_is_refused_in_one_line(
    data: st.DataObject,
) -> None:
    geometry = data.draw(st.sampled_from(GEOMETRIES))
    share = data.draw(st.floats(0.2, 1.0))
    budget = budget_of(geometry, share, data.draw(st.sampled_from(["total", "backbone"])))
    space = data.draw(spaces(geometry.depth))
    try:
        decoder = Decoder(space, geometry, budget)
    except (BudgetError, SpaceError) as error:
        assert "\n" not in str(error)
        assume(False)
    coordinate = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    size = decoder.dimensions
    for point in data.draw(
        st.lists(st.lists(coordinate, min_size=size, max_size=size), min_size=3, max_size=3)
    ):
        try:
            config = decoder.decode(point)
        except BudgetError as error:
            assert "\n" not in str(error) and "`tolerance`" in str(error)
        else:
            assert_right(decoder, config)


@pytest.mark.parametrize("order", ["i'-s-i", "i-s"])
@pytest.mark.parametrize("geometry", [*GEOMETRIES, DEEP], ids=size_of)
def test_retention_alone_meets_the_budget(geometry: Geometry, order: str) -> None:
    space = space_of(s_tokens=0, layers=[2, 3], order=order)
    decoder = Decoder(space, geometry, budget_of(geometry, 0.7))
    for point in corners(decoder) + points(decoder, 30):
        assert_right(decoder, decoder.decode(point))


@pytest.mark.parametrize("geometry", [DEIT_S, DEIT_T, POOLED, DISTILLED], ids=size_of)
def test_s_tokens_alone_meet_the_budget(geometry: Geometry) -> None:
    space = space_of(retention=1.0, s_tokens=[0, 40], layers=[3, 5])
    decoder = Decoder(space, geometry, budget_of(geometry, 0.7))
    for point in corners(decoder) + points(decoder, 50):
        config = decoder.decode(point)
        assert_right(decoder, config)
        assert all(layer.retention == 1.0 for layer in config.layers)


def test_one_layer_at_one_place_meets_the_budget() -> None:
    space = space_of(after_block=[4], layers=1)
    decoder = Decoder(space, DEIT_S, budget_of(DEIT_S, 0.7))
    for point in corners(decoder) + points(decoder, 50):
        config = decoder.decode(point)
        assert_right(decoder, config)
        assert [layer.after_block for layer in config.layers] == [4]


def test_a_space_of_a_single_configuration_gives_it() -> None:
    # 0.7 * 196 = 137.2, so 137 - 10 = 127 patch tokens leave block 5.
    space = space_of(
        after_block=[5], layers=1, retention=0.7, s_tokens=10, wpr_iterations=7, v_min=0.1, v_max=3
    )
    expected = PruningConfig((PruningLayer(5, 0.7, 10, 7),), v_min=0.1, v_max=3.0)
    backbone, overhead = macs_by_hand(DEIT_S, expected)
    for macs in (backbone + overhead, int((backbone + overhead) / 0.991)):
        decoder = Decoder(space, DEIT_S, Budget(macs))
        for point in corners(decoder):
            assert decoder.decode(point) == expected
    for macs in (backbone + overhead - 1, int((backbone + overhead) / 0.989)):
        with pytest.raises(BudgetError):
            Decoder(space, DEIT_S, Budget(macs))


def test_ranges_by_block_are_kept_by_each_block() -> None:
    space = space_of(
        layers=[3, 4],
        retention={"first 3": [0.8, 0.9], 4: 0.75, "6-8": [0.6, 0.7], "other": [0.85, 1.0]},
        s_tokens={"last 3": [0, 3], "other": [5, 12]},
        wpr_iterations={"first 3": [30, 50], "last 3": 1, "other": [5, 10]},
    )
    decoder = Decoder(space, DEIT_S, budget_of(DEIT_S, 0.67))
    for point in corners(decoder) + points(decoder, 100):
        assert_right(decoder, decoder.decode(point))


def test_s_tokens_never_fall_below_their_range_where_few_tokens_are_left() -> None:
    space = space_of(retention=[0.2, 1.0], s_tokens=[8, 13], layers=[2, 4])
    decoder = Decoder(space, DIGITS, budget_of(DIGITS, 0.35))
    for point in corners(decoder) + points(decoder, 100):
        assert_right(decoder, decoder.decode(point))


# --- a pure function -----------------------------------------------------------------------------


def test_decode_depends_on_the_point_alone() -> None:
    space, budget = load_space("deit_small"), budget_of(DEIT_S, 0.67)
    decoder = Decoder(space, DEIT_S, budget)
    chosen = corners(decoder) + points(decoder, 20)
    first = [decoder.decode(point) for point in chosen]
    assert [decoder.decode(point) for point in reversed(chosen)] == first[::-1]
    assert [Decoder(space, DEIT_S, budget).decode(point) for point in chosen] == first
    assert [decoder.decode(tuple(point)) for point in chosen] == first


def test_another_process_decodes_the_same() -> None:
    code = (
        f"import sys, random; sys.path[:0] = {sys.path!r}\n"
        "from helpers.geometries import *\nfrom helpers.spaces import *\n"
        "d = Decoder(load_space('digits'), DIGITS, budget_of(DIGITS, 0.68))\n"
        "print(' '.join(d.decode(p).digest() for p in points(d, 20)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True,
            check=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    decoder = Decoder(load_space("digits"), DIGITS, budget_of(DIGITS, 0.68))
    here = " ".join(decoder.decode(point).digest() for point in points(decoder, 20))
    assert outputs == {here + "\n"}


DECODED = {
    "deit_tiny": "eb156ed498b950373115b615dfb09087",
    "deit_small": "dff1db1b2876d54635bc26bbf830ca35",
    "deit_base": "b64bf2de0252d443792b28a2f7396624",
    "vit_small": "cf07fae344ecc1b3277f1bce75422029",
    "vit_base": "cd2486dc7e0cdee41b17f7c862f2497c",
    "digits": "d6fd20b38e6cbd7c553fa212181d62ba",
    "any": "d979b57eabfd51228c8d1cfee0d7e9a9",
}
"""Digests of what points are decoded to: studies must resume, or `settings.resolved.DECODER`, which
they are held to, must rise."""


@pytest.mark.parametrize("name", DECODED)
def test_points_are_decoded_as_in_all_studies_of_this_decoder(name: str) -> None:
    digest = hashlib.sha256()
    geometry = SHIPPED[name]
    for share, counts in ((0.5, "total"), (0.8, "backbone")):
        decoder = Decoder(load_space(name), geometry, budget_of(geometry, share, counts))
        for point in points(decoder, 10):
            digest.update(decoder.decode(point).digest().encode())
    assert digest.hexdigest()[:32] == DECODED[name]


def test_coordinates_are_named() -> None:
    decoder = Decoder(
        space_of(after_block=[3, 10], layers=[1, 2]), DEIT_S, budget_of(DEIT_S, 0.67)
    )
    kinds = ("kept", "s_share", "wpr_iterations", "merge_share")
    blocks = [*(f"block03.{kind}" for kind in kinds), *(f"block10.{kind}" for kind in kinds)]
    tilts = ["s_share.tilt", "merge_share.tilt"]
    assert list(decoder.names) == ["locations", *blocks, *tilts, "v_min", "v_max"]
    assert decoder.dimensions == 13
    for size in (12, 14):
        with pytest.raises(ValueError, match=f"13 coordinates, but got {size}"):
            decoder.decode([0.5] * size)
    open_space = space_of(sizes=["track", "ignore"], features=["x", "key"], after_block=[3],
                          layers=1)  # fmt: skip
    names = Decoder(open_space, DEIT_S, budget_of(DEIT_S, 0.67)).names
    assert list(names[5:]) == [*tilts, "corner", "features", "sizes", "v_min", "v_max"]


@pytest.mark.parametrize("name", SHIPPED)
def test_parameter_ranges_hold_all_parameters(name: str) -> None:
    geometry = SHIPPED[name]
    decoder = Decoder(load_space(name), geometry, budget_of(geometry, 0.67))
    ranges = decoder.parameter_ranges()
    blocks = [f"block{block:02d}" for block in range(1, geometry.depth)]
    kinds = ("retention", "s_tokens", "wpr_iterations", "merge_share")
    variants = {name: values for name, values in decoder.space.variants.items() if len(values) > 1}
    numbers = [f"{b}.{k}" for b in blocks for k in kinds] + ["v_min", "v_max"]
    assert sorted(ranges) == sorted([*numbers, *variants])
    assert {name: ranges[name] for name in variants} == variants
    # where no layer stands
    nothing = {"retention": 1.0, "s_tokens": 0, "wpr_iterations": 1, "merge_share": 0.0}
    drawn = [decoder.decode(point) for point in corners(decoder) + points(decoder, 20)]
    for config in [*drawn, *decoder.hand_set().values()]:
        values: dict[str, float] = {f"{b}.{k}": nothing[k] for b in blocks for k in kinds}
        values |= {"v_min": config.v_min, "v_max": config.v_max}
        for layer in config.layers:
            values |= {f"block{layer.after_block:02d}.{k}": getattr(layer, k) for k in kinds}
        for key, value in values.items():
            assert ranges[key][0] <= value <= ranges[key][1], key


# --- spread --------------------------------------------------------------------------------------

DRAWS = 3_000
TABLE_BUDGET = Budget(3_080_000_000)


@pytest.fixture(scope="module")
def draws() -> list[PruningConfig]:
    """What the deit_small space gives at 3.08 GFLOPs."""
    decoder = Decoder(load_space("deit_small"), DEIT_S, TABLE_BUDGET)
    return [decoder.decode(point) for point in points(decoder, DRAWS)]


def feasible_sets(space: SearchSpace, geometry: Geometry, budget: Budget) -> set[tuple[int, ...]]:
    """Sets of locations whose cheapest and dearest configurations enclose the budget."""
    out = set()
    blocks = space.blocks(geometry.depth)
    for size in range(space.layers[0], len(blocks) + 1):
        for chosen in itertools.combinations(blocks, size):
            least = 10**15
            for s_alone in (False, True):  # ranking or comparing, whichever costs less
                layers: tuple[PruningLayer, ...] = ()
                n = geometry.patch_tokens
                for block in chosen:
                    kept = max(1, math.floor(block.kept[0] * n + 0.5))
                    s = min(n // 2, n - kept) if s_alone else max(0, math.ceil(n / 2) - kept)
                    rate = math.floor((kept + s) / n * 10_000 + 0.5) / 10_000
                    layers += (PruningLayer(block.block, rate, s, block.wpr_iterations[0]),)
                    n = kept
                least = min(least, sum(macs_by_hand(geometry, PruningConfig(layers))))
            if least <= budget.macs:  # the dearest is the unpruned model
                out.add(tuple(block.block for block in chosen))
    return out


def locations(configs: Sequence[PruningConfig]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(layer.after_block for layer in config.layers) for config in configs)


def test_all_draws_meet_the_budget(draws: list[PruningConfig]) -> None:
    for config in draws:
        assert TABLE_BUDGET.macs * 0.99 <= sum(macs_by_hand(DEIT_S, config)) <= TABLE_BUDGET.macs


def test_all_draws_differ(draws: list[PruningConfig]) -> None:
    assert len(set(draws)) == DRAWS


def test_the_budget_is_used(draws: list[PruningConfig]) -> None:
    used = [sum(macs_by_hand(DEIT_S, config)) / TABLE_BUDGET.macs for config in draws]
    assert np.mean(used) >= 0.998


def kept_shares(configs: Sequence[PruningConfig]) -> Any:
    """Of the tokens that come into a layer, how many leave it."""
    return np.array([kept / n for config in configs for n, kept in counts_by_hand(DEIT_S, config)])


def s_shares(config: PruningConfig) -> list[float]:
    """Of the tokens that a layer prunes, how many the S-stage takes."""
    counts = counts_by_hand(DEIT_S, config)
    return [
        layer.s_tokens / (n - kept)
        for layer, (n, kept) in zip(config.layers, counts, strict=True)
        if kept < n
    ]


def test_fewer_than_one_share_in_a_hundred_stands_at_a_bound(draws: list[PruningConfig]) -> None:
    shares = kept_shares([config for config in draws if len(config.layers) < 5])
    assert np.mean(shares == 1.0) < 0.01
    assert np.mean(shares <= 0.4) < 0.01


def test_shares_iterations_and_thresholds_reach_over_their_ranges(
    draws: list[PruningConfig],
) -> None:
    layers = [layer for config in draws for layer in config.layers]
    shares = kept_shares(draws)
    assert (np.histogram(shares, bins=6, range=(0.4, 1.0))[0] > 0.004 * len(shares)).all()
    first = [layer.wpr_iterations for layer in layers if layer.after_block == 1]
    iterations = np.bincount(first, minlength=51)[30:] / len(first)
    assert len(iterations) == 21 and (iterations > 0.3 / 21).all() and (iterations < 3 / 21).all()
    for values in ([c.v_min for c in draws], [c.v_max for c in draws]):
        tenths = np.histogram(np.log(values), bins=10)[0]
        assert (np.abs(tenths - DRAWS / 10) < 5 * np.sqrt(DRAWS / 10)).all()


def test_one_stage_alone_is_as_likely_as_the_other(draws: list[PruningConfig]) -> None:
    for end in (0.0, 1.0):
        alone = np.mean([all(share == end for share in s_shares(config)) for config in draws])
        assert 0.15 < alone < 0.35
    mixed = np.array([share for config in draws for share in s_shares(config) if 0 < share < 1])
    assert (np.histogram(mixed, bins=5, range=(0.0, 1.0))[0] > 0.05 * len(mixed)).all()


def test_each_corner_of_the_space_has_its_share(draws: list[PruningConfig]) -> None:
    papers = [
        config for config in draws
        if (config.similar, config.sizes, config.partition, config.features)
        == ("drop", "ignore", "sequential-u", "key")
        and not any(layer.merge_share for layer in config.layers)
    ]  # fmt: skip
    merging = [
        config for config in draws
        if (config.similar, config.sizes) == ("merge", "track")
        and all(layer.merge_share == 1.0 for layer in config.layers)
    ]  # fmt: skip
    for corner in (papers, merging):
        assert 1 / 3 - 0.05 < len(corner) / DRAWS < 1 / 3 + 0.11  # the rest of the space has some
    for name, choices in load_space("deit_small").variants.items():
        for choice in choices:
            assert sum(getattr(config, name) == choice for config in draws) > 0.1 * DRAWS


def test_numbers_of_layers_are_equally_likely_and_so_are_sets_of_as_many(
    draws: list[PruningConfig],
) -> None:
    feasible = feasible_sets(load_space("deit_small"), DEIT_S, TABLE_BUDGET)
    seen = locations(draws)
    assert seen.keys() <= feasible
    numbers = Counter(len(blocks) for blocks in seen.elements())
    expected = DRAWS / len({len(blocks) for blocks in feasible})
    for count in range(2, 12):
        assert abs(numbers[count] - expected) < 5 * np.sqrt(expected), count
        sets = [blocks for blocks in feasible if len(blocks) == count]
        each = numbers[count] / len(sets)
        chi_square = sum((seen[blocks] - each) ** 2 / each for blocks in sets)
        freedom = len(sets) - 1
        assert abs(chi_square - freedom) <= 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "pruning", [{}, {"s_tokens": 0}, {"retention": 1.0, "s_tokens": [0, "half"]}], ids=str
)
def test_the_first_coordinate_picks_the_locations(pruning: dict[str, Any]) -> None:
    # Handing over to another set is for the rare one whose whole tokens miss the tolerance.
    space = space_of(layers=3, **pruning)
    decoder = Decoder(space, DEIT_S, budget_of(DEIT_S, 0.75))
    firsts, rests = points(decoder, 30, seed=1), points(decoder, 10, seed=2)
    same = 0
    for (first, *_), rest in itertools.product(firsts, rests):
        one = decoder.decode([first, *rest[1:]])
        other = decoder.decode([first] + [0.5] * (decoder.dimensions - 1))
        same += locations([one]) == locations([other])
    assert same >= 0.97 * len(firsts) * len(rests)


# --- what cannot be met --------------------------------------------------------------------------


def interval_of(message: str) -> tuple[list[str], list[str]]:
    """The feasible GFLOPs and shares that a refusal names."""
    found = re.search(r"feasible is (\S+) to (\S+) GFLOPs, (\S+%) to (\S+%)", message)
    assert found is not None, message
    return [found[1], found[2]], [found[3], found[4]]


def test_a_budget_that_is_too_low_is_refused_with_the_feasible_interval() -> None:
    # The cheapest: two fifths of the tokens behind every block, those that may not go by rate taken
    # by similarity, with the fewest iterations; the dearest is the unpruned model.
    iterations = (30, 30, 30, 5, 5, 5, 5, 5, 1, 1, 1)
    layers: tuple[PruningLayer, ...] = ()
    n = 196
    for block, count in enumerate(iterations, 1):
        kept = max(1, math.floor(0.4 * n + 0.5))
        by_rate = math.floor(0.5 * n + 0.5)
        layers += (PruningLayer(block, by_rate / n, by_rate - kept, count),)
        n = kept
    cheapest = sum(macs_by_hand(DEIT_S, PruningConfig(layers))) / 1e9
    with pytest.raises(BudgetError) as error:
        Decoder(load_space("deit_small"), DEIT_S, budget_of(DEIT_S, 0.05))
    message = one_line(error)
    assert "below the cheapest configuration of space deit_small" in message
    assert "0.2304 GFLOPs (5.0% of" in message and "raise `budget`" in message
    gflops, shares = interval_of(message)
    assert float(gflops[0]) == pytest.approx(cheapest, rel=1e-3)
    assert float(gflops[1]) == pytest.approx(4.608, rel=1e-3)
    assert shares[1] == "100%"


def test_a_budget_that_is_too_high_is_refused_with_the_feasible_interval() -> None:
    with pytest.raises(BudgetError) as error:
        Decoder(load_space("deit_small"), DEIT_S, parse_budget("5", DEIT_S))
    message = one_line(error)
    assert "5 GFLOPs (108.5% of the unpruned model" in message and "change `budget`" in message
    assert interval_of(message)[0][1] == "4.608"


@pytest.mark.parametrize("counts", ["total", "backbone"])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_point_can_be_decoded_at_the_ends_of_the_named_interval(
    name: str, counts: str
) -> None:
    geometry = SHIPPED[name]
    for text in ("1%", "300%"):
        with pytest.raises(BudgetError) as error:
            Decoder(load_space(name), geometry, parse_budget(text, geometry, 0.01, counts))
        for end in itertools.chain(*interval_of(one_line(error))):
            budget = parse_budget(end, geometry, 0.01, counts)
            decoder = Decoder(load_space(name), geometry, budget)
            for point in corners(decoder)[:6] + points(decoder, 6):
                assert_right(decoder, decoder.decode(point))


def test_a_budget_in_a_gap_of_the_space_is_refused_with_the_ends_of_the_gap() -> None:
    # One layer that keeps half of the tokens, early or late, and nothing between.
    space = space_of(
        after_block=[1, 11], layers=1, retention=0.5, s_tokens=0, wpr_iterations=1
    )
    early, late = (
        sum(macs_by_hand(DEIT_S, PruningConfig((PruningLayer(block, 0.5),)))) for block in (1, 11)
    )
    with pytest.raises(BudgetError) as error:
        Decoder(space, DEIT_S, Budget((early + late) // 2))
    message = one_line(error)
    most, least = re.search(r"at most (\S+) or at least (\S+) GFLOPs", message).groups()  # type: ignore[union-attr]
    assert float(most) == pytest.approx(early / 1e9, rel=1e-3)
    assert float(least) == pytest.approx(late / 1e9, rel=1e-3)


def test_a_tolerance_that_whole_tokens_cannot_meet_ends_in_an_error() -> None:
    macs = unpruned(DIGITS) * 68 // 100  # almost surely no sum of whole tokens
    decoder = Decoder(load_space("digits"), DIGITS, Budget(macs, tolerance=0.0))
    for point in corners(decoder)[:5]:
        with pytest.raises(BudgetError) as error:
            decoder.decode(point)
        assert "`tolerance`" in one_line(error)


def test_a_tolerance_of_a_thousandth_of_a_percent_can_be_met() -> None:
    decoder = Decoder(load_space("deit_small"), DEIT_S, Budget(3_080_000_000, tolerance=1e-5))
    for point in points(decoder, 5):
        assert_right(decoder, decoder.decode(point))


def test_of_many_sets_of_locations_evenly_spread_ones_stand_for_all() -> None:
    # 39 blocks have comb(39, 19) = 68,923,264,410 sets of 19 alone.
    blocks = space_of().blocks(40)
    sets = [tuple(block.block for block in each) for each in sets_of(blocks, 19)]
    assert len(set(sets)) == len(sets) == 1_000 and sets == sorted(sets)
    assert sets[0] == tuple(range(1, 20)) and sets[-1] == tuple(range(21, 40))
    used = Counter(itertools.chain(*sets))
    assert all(abs(used[block] - 1_000 * 19 / 39) < 120 for block in range(1, 40))
    assert len(list(sets_of(blocks, 2))) == 741
    assert list(sets_of(blocks[:5], 3)) == list(itertools.combinations(blocks[:5], 3))


def test_a_deep_model_is_searched_with_any_number_of_layers() -> None:
    geometry = vit(24, 16, 1024, 196)
    decoder = Decoder(load_space("any"), geometry, budget_of(geometry, 0.6))
    configs = [decoder.decode(point) for point in corners(decoder)[:4] + points(decoder, 40)]
    for config in configs:
        assert_right(decoder, config)
    assert {len(config.layers) > 12 for config in configs} == {False, True}


@pytest.mark.parametrize(
    ("pruning", "words"),
    [
        ({"retention": 0.66667}, ["pruning.retention", "0.66667", "block 1", "0.0001"]),
        ({"retention": {5: [0.12341, 0.12349], "other": 1.0}}, ["retention", "block 5"]),
        ({"s_tokens": [99, 120]}, ["pruning.s_tokens", "[99, 120]", "98", "196"]),
        ({"s_tokens": {7: 99, "other": 0}}, ["pruning.s_tokens", "block 7", "98"]),
        ({"merge_share": 0.123}, ["pruning.merge_share", "0.123", "block 1", "0.01"]),
        ({"kept": 0.33333}, ["pruning.kept", "0.33333", "block 1", "0.0001"]),
        ({"kept": [0.1, 0.2], "retention": [0.8, 1.0]}, ["pruning.kept", "0.698", "[0.1, 0.2]"]),
    ],
)
def test_a_range_that_no_configuration_can_keep_is_refused(
    pruning: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpaceError) as error:
        Decoder(space_of("mine.yaml", **pruning), DEIT_S, budget_of(DEIT_S, 0.7))
    for word in ["mine.yaml", *words]:
        assert word in one_line(error)


# --- reading a budget ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("3.08", 3_080_000_000),
        (" 3.08 ", 3_080_000_000),
        (".5", 500_000_000),
        ("1e-1", 100_000_000),
        ("4", 4_000_000_000),
        ("100%", 4_608_338_304),
        ("50%", 2_304_169_152),
        ("67%", 3_087_586_663),  # 0.67 * 4608338304 = 3087586663.68: never above the share
        ("67 %", 3_087_586_663),
    ],
)
def test_a_budget_is_gflops_or_a_share_of_the_unpruned_model(text: str, macs: int) -> None:
    assert parse_budget(text, DEIT_S) == Budget(macs, 0.01, "total")
    assert parse_budget(text, DEIT_S, 0.02, "backbone") == Budget(macs, 0.02, "backbone")


@pytest.mark.parametrize(
    "text",
    ["", "%", "0", "0%", "-3", "3,08", "nan", "inf", "1e400", "1e99%", "3.08 GFLOPs", "3 08",
     "0x3", "3%%", "³", "٣"],
)  # fmt: skip
def test_what_is_no_budget_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(BudgetError) as error:
        parse_budget(text, DEIT_S)
    for word in ("3.08", "67%", repr(text)):
        assert word in one_line(error)


def test_a_budget_bounds_what_it_counts() -> None:
    config = PruningConfig((PruningLayer(3, 0.7, 10, 30),))
    backbone, overhead = macs_by_hand(DEIT_S, config)
    total, bare = (
        Budget(10, counts=counts).cost_model(DEIT_S).total(config)
        for counts in ("total", "backbone")
    )
    assert (total, bare) == (backbone + overhead, backbone)
    assert Budget(backbone, counts="backbone").holds(bare)
    assert not Budget(backbone - 1, counts="backbone").holds(bare)
    assert not Budget(backbone, counts="total").holds(total)
    assert Budget(1000, tolerance=0.01).least == 990
    assert Budget(1001, tolerance=0.01).least == 991  # 990.99, and no less
