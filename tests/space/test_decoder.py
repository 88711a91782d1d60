"""Any point of the unit cube becomes a configuration that meets the budget and the space.

Costs are counted anew here, by the formulas as they are published.
"""

from __future__ import annotations

import hashlib
import itertools
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
    "deit_tiny": "9c8015928f2f5aca1aaa1fedc6ba1188",
    "deit_small": "2a8b48281d79a0f81c25c98f14ac9074",
    "deit_base": "95fc6ba1d010a7f61df0967b0945f706",
    "vit_small": "b8b80679ab05275fa823f88cecf05a10",
    "vit_base": "d7a98f55232f3421fb15f6c9de29e0ec",
    "digits": "a928ee5c78805c1adbf41291f3b1624c",
    "any": "ac8c1aa264402322ed00643ebb348b03",
}
"""Digests of what points were decoded to when the first studies were made: these must resume."""


@pytest.mark.parametrize("name", DECODED)
def test_points_are_decoded_as_they_always_were(name: str) -> None:
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
    kinds = ("order", "retention", "s_tokens", "wpr_iterations")
    assert list(decoder.names) == [
        "locations", *(f"block03.{kind}" for kind in kinds), *(f"block10.{kind}" for kind in kinds),
        "v_min", "v_max",
    ]  # fmt: skip
    assert decoder.dimensions == 11
    for size in (10, 12):
        with pytest.raises(ValueError, match=f"11 coordinates, but got {size}"):
            decoder.decode([0.5] * size)


@pytest.mark.parametrize("name", SHIPPED)
def test_parameter_ranges_hold_all_parameters(name: str) -> None:
    geometry = SHIPPED[name]
    decoder = Decoder(load_space(name), geometry, budget_of(geometry, 0.67))
    ranges = decoder.parameter_ranges()
    blocks = [f"block{block:02d}" for block in range(1, geometry.depth)]
    kinds = ("retention", "s_tokens", "wpr_iterations")
    assert list(ranges) == [f"{b}.{k}" for b in blocks for k in kinds] + ["v_min", "v_max"]
    nothing = {"retention": 1.0, "s_tokens": 0, "wpr_iterations": 1}  # where no layer stands
    for point in corners(decoder) + points(decoder, 20):
        config = decoder.decode(point)
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
    for size in range(space.layers[0], space.layers[1] + 1):
        for blocks in itertools.combinations(space.blocks(geometry.depth), size):
            cheapest, dearest = (
                sum(macs_by_hand(geometry, PruningConfig(tuple(
                    PruningLayer(b.block, b.retention[i], b.s_tokens[1 - i], b.wpr_iterations[i])
                    for b in blocks
                ))))
                for i in (0, 1)
            )  # fmt: skip
            if cheapest <= budget.macs and dearest >= (1 - budget.tolerance) * budget.macs:
                out.add(tuple(b.block for b in blocks))
    return out


def locations(configs: Sequence[PruningConfig]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(layer.after_block for layer in config.layers) for config in configs)


def test_all_draws_meet_the_budget(draws: list[PruningConfig]) -> None:
    for config in draws:
        assert TABLE_BUDGET.macs * 0.99 <= sum(macs_by_hand(DEIT_S, config)) <= TABLE_BUDGET.macs


def test_all_draws_differ(draws: list[PruningConfig]) -> None:
    assert len({config.layers for config in draws}) == DRAWS


def test_the_budget_is_used(draws: list[PruningConfig]) -> None:
    used = [sum(macs_by_hand(DEIT_S, config)) / TABLE_BUDGET.macs for config in draws]
    assert np.mean(used) >= 0.998


def test_fewer_than_one_rate_in_a_hundred_stands_at_a_bound(draws: list[PruningConfig]) -> None:
    rates = np.array([layer.retention for config in draws for layer in config.layers])
    assert np.mean(rates == 1.0) < 0.01
    assert np.mean(rates == 0.5) < 0.01


def test_rates_s_tokens_and_thresholds_reach_over_their_ranges(draws: list[PruningConfig]) -> None:
    layers = [layer for config in draws for layer in config.layers]
    rates = np.array([layer.retention for layer in layers])
    assert (np.histogram(rates, bins=10, range=(0.5, 1.0))[0] > 0.01 * len(rates)).all()
    s_tokens = np.bincount([layer.s_tokens for layer in layers], minlength=21) / len(layers)
    assert len(s_tokens) == 21 and (s_tokens > 0.3 / 21).all() and (s_tokens < 3 / 21).all()
    for values in ([c.v_min for c in draws], [c.v_max for c in draws]):
        tenths = np.histogram(np.log(values), bins=10)[0]
        assert (np.abs(tenths - DRAWS / 10) < 5 * np.sqrt(DRAWS / 10)).all()


def test_sets_of_locations_are_equally_likely(draws: list[PruningConfig]) -> None:
    feasible = feasible_sets(load_space("deit_small"), DEIT_S, TABLE_BUDGET)
    seen = locations(draws)
    assert seen.keys() <= feasible
    expected = DRAWS / len(feasible)
    chi_square = sum((seen[blocks] - expected) ** 2 / expected for blocks in feasible)
    freedom = len(feasible) - 1
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_every_location_and_every_number_of_layers_is_used(draws: list[PruningConfig]) -> None:
    feasible = feasible_sets(load_space("deit_small"), DEIT_S, TABLE_BUDGET)
    for attribute in (lambda blocks: blocks, lambda blocks: [len(blocks)]):
        share = Counter(x for blocks in feasible for x in attribute(blocks))
        seen = Counter(x for blocks in locations(draws).elements() for x in attribute(blocks))
        for key, count in share.items():
            expected = DRAWS * count / len(feasible)
            assert abs(seen[key] - expected) < 5 * np.sqrt(expected), key


@pytest.mark.parametrize(
    "pruning", [{}, {"s_tokens": 0}, {"retention": 1.0, "s_tokens": [0, 40]}], ids=str
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
    # The cheapest: half of the tokens less 20 (or what one half holds), after blocks 1 to 6,
    # with the fewest iterations; the dearest is the unpruned model.
    iterations = (30, 30, 30, 5, 5, 5)
    layers: tuple[PruningLayer, ...] = ()
    n = 196
    for block, count in enumerate(iterations, 1):
        layers += (PruningLayer(block, 0.5, min(20, n // 2), count),)
        n = counts_by_hand(DEIT_S, PruningConfig(layers))[-1][1]
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


def test_too_many_sets_of_locations_are_refused_with_the_field() -> None:
    with pytest.raises(SpaceError) as error:
        Decoder(load_space("any"), vit(40, 16, 1408, 256), Budget(10**11))
    # comb(39, 2) + ... + comb(39, 6) = 741 + 9139 + 82251 + 575757 + 3262623
    for word in ("any: pruning.layers", "[2, 6]", "39 blocks", "3,930,511", "fewer"):
        assert word in one_line(error)


@pytest.mark.parametrize(
    ("pruning", "words"),
    [
        ({"retention": 0.66667}, ["pruning.retention", "0.66667", "block 1", "0.0001"]),
        ({"retention": {5: [0.12341, 0.12349], "other": 1.0}}, ["retention", "block 5"]),
        ({"s_tokens": [99, 120]}, ["pruning.s_tokens", "[99, 120]", "98", "196"]),
        ({"s_tokens": {7: 99, "other": 0}}, ["pruning.s_tokens", "block 7", "98"]),
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
