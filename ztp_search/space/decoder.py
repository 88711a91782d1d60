"""From a point of the unit cube to a configuration that meets the budget.

`Decoder.decode` turns any point into a configuration with (1 - tolerance) budget <= cost <=
budget, by construction and in bounded time, never by drawing again:

1. The first coordinate picks the number of layers, with equal probability over those with which
   the budget can be met, and a set of so many locations, with equal probability over the sets
   whose cheapest and dearest configurations enclose the budget (`locations.py`).
2. The configuration's scales (head thresholds) and its design variants are read off their
   coordinates. Where a space holds corners that go by a name (`space.CORNERS`: the paper's method,
   merging alone), a coordinate puts equal shares of the points into each of them and into the
   whole, so that no well-tried method is a rare accident.
3. The layers take their method's coordinates (the S-stage's share of what is pruned, WPR
   iterations, the share that is merged), each evenly over its range; one that would put the budget
   out of reach of what is not decided yet gives way as far as it must. A tilted coordinate is
   moved by a common tilt of all layers: a quarter of the tilts puts all of them at the lower end
   of the range, a quarter at the upper one.
4. The shares of tokens that the layers keep are low + (high - low) * bend(u, t) with one t for all
   layers, the least that keeps the budget: bend moves all shares of a point up (t < 1) or down
   (t > 1) without piling them up at either end. Every point of the budget surface is reached (by
   its own relative shares, at t = 1), no layer is preferred, and the result moves steadily with
   the point.
5. Shares are multiples of 1 / RETENTION_UNIT throughout, so counts are integers at every step;
   what rounding left over is used up by single tokens, the dearest that fits first.
A set in which integer counts miss the tolerance hands over to the next one.

The result is spread out over the budget surface, but not uniform on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ztp_search.errors import BudgetError
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT, PruningConfig
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.schedules import BASELINES
from ztp_search.space.draft import Coordinates, Draft, Pricing
from ztp_search.space.locations import Locations, check_blocks, feasible_locations
from ztp_search.space.solver import Solver
from ztp_search.space.space import BlockSpace, Corner, SearchSpace

MAX_HANDOVERS = 2_000
"""Sets that one point tries before it is refused: seconds, in any space."""


class Decoder:
    """Decodes points of the unit cube for one space, model geometry and budget.

    Args:
        space: what may be tried.
        geometry: the model's sizes.
        budget: what every configuration must meet.

    Attributes:
        blocks: the candidate locations, ascending.
        names: of the coordinates.

    Raises:
        BudgetError: no configuration meets the budget; names the interval that can be met.
        SpaceError: the space does not fit the model.

    Example:
        >>> decoder = Decoder(load_space("deit_small"), geometry, parse_budget("3.08", geometry))
        >>> config = decoder.decode([0.5] * decoder.dimensions)
    """

    def __init__(self, space: SearchSpace, geometry: Geometry, budget: Budget) -> None:
        self.space = space
        self.geometry = geometry
        self.budget = budget
        self.blocks = space.blocks(geometry.depth)
        self.pricing = Pricing(space, geometry, budget)
        self.method = self.pricing.method
        self._solver = Solver(self.pricing, budget)
        self._choices = {
            name: values for name, values in space.variants.items() if len(values) > 1
        }
        self._corners = space.corners()
        per_layer = ("kept", *(each.name for each in self.method.coordinates))
        self.names = (
            "locations",
            *(f"block{block.block:02d}.{name}" for block in self.blocks for name in per_layer),
            *(f"{each.name}.tilt" for each in self.method.coordinates if each.tilted),
            *(("corner",) if self._corners else ()),
            *self._choices,
            *self.method.scales,
        )
        self._index = {name: index for index, name in enumerate(self.names)}
        check_blocks(space, self.blocks, self.pricing, geometry)
        self._sets = feasible_locations(space, self.blocks, self.pricing, budget)

    @property
    def dimensions(self) -> int:
        """How many coordinates a point has."""
        return len(self.names)

    def decode(self, point: Sequence[float]) -> PruningConfig:
        """Decode a point.

        Args:
            point: `dimensions` numbers in [0, 1].

        Returns:
            A configuration of the space that meets the budget; the same for the same point.

        Raises:
            ValueError: the point has another number of coordinates.
            BudgetError: whole numbers of tokens miss the budget in all sets that were tried.
        """
        if len(point) != self.dimensions:
            raise ValueError(f"a point has {self.dimensions} coordinates, but got {len(point)}")
        for locations in itertools.islice(self._sets_from(point[0]), MAX_HANDOVERS):
            config = self._decode_in(locations, point)
            if config is not None:
                return config
        model = self.pricing.cost_model
        raise BudgetError(
            f"no whole numbers of tokens meet {self.budget.macs / model.per_unit:.4g} "
            f"{model.unit} within {self.budget.tolerance:.2%} in this space; use a wider "
            "`tolerance`"
        )

    def hand_set(self) -> dict[str, PruningConfig]:
        """The hand-set schedules that lie in the space, by baseline and shape ("tome constant").

        Their layers stand where the space's may, and their variants and what they merge are its;
        their rates and numbers need not be.
        """
        shares = {block.block: block.merge_share for block in self.blocks}
        return {
            f"{name} {shape}": config
            for name, baseline in BASELINES.items()
            for shape, config in baseline.schedules(self.geometry, self.budget).items()
            if all(
                getattr(config, field) in self.space.offers(field) for field in self.method.choices
            )
            and all(
                layer.after_block in shares
                and (layer.retention == 1.0 or shares[layer.after_block][0] == 0.0)
                for layer in config.layers
            )
        }  # fmt: skip

    def refusal(self, config: PruningConfig) -> str:
        """Why a configuration from elsewhere can be no trial here; "" where it can.

        It must meet the budget and lie within `parameter_ranges`, as all trials do.

        Raises:
            ConfigError: it does not fit the model.
        """
        if method_of(config) is not self.method:
            return f"its method is {config.method}, but the space's is {self.space.method}"
        model = self.pricing.cost_model
        cost = model.total(config)
        if not self.budget.holds(cost):
            unit = model.per_unit
            return (
                f"it costs {cost / unit:.6g} {model.unit}, but the budget takes "
                f"{self.budget.least / unit:.6g} to {self.budget.macs / unit:.6g}"
            )
        ranges = self.parameter_ranges()
        values: dict[str, Any] = {name: getattr(config, name) for name in self.method.scales}
        for layer in config.layers:
            for name in self.method.neutral:
                values[f"block{layer.after_block:02d}.{name}"] = getattr(layer, name)
        for name, value in values.items():
            if name not in ranges:
                return f"no pruning layer may stand at {name.partition('.')[0]} in this space"
            low, high = ranges[name]
            if not low <= value <= high:
                return f"its {name} is {value:.6g}, but the space's is {low:.6g} to {high:.6g}"
        for name in self.method.choices:
            if getattr(config, name) not in self.space.offers(name):
                offered = " or ".join(self.space.offers(name))
                return f"its {name} is {getattr(config, name)}, but the space's is {offered}"
        return ""

    def parameter_ranges(self) -> dict[str, tuple[float, float] | tuple[str, ...]]:
        """Least and most of every parameter of a trial (`block03.retention`, …, `v_max`).

        They include those of a block without a pruning layer, and of the hand-set schedules. Of a
        design variant that differs from trial to trial, the names it takes.
        """
        hand_set = self.hand_set().values()
        known = [layer for config in hand_set for layer in config.layers]
        out: dict[str, tuple[float, float] | tuple[str, ...]] = {}
        for block in self.blocks:
            for name, neutral in self.method.neutral.items():
                low, high = getattr(block, name)
                if name == "s_tokens":
                    high = max(low, min(high, self.geometry.patch_tokens // 2))
                values = [getattr(each, name) for each in known if each.after_block == block.block]
                every = (low, high, neutral, *values)
                out[f"block{block.block:02d}.{name}"] = min(every), max(every)
        for name, scale in self.pricing.scales.items():
            every = (scale.low, scale.high, *(getattr(config, name) for config in hand_set))
            out[name] = min(every), max(every)
        return {**out, **self._choices}

    def _sets_from(self, u: float) -> Iterator[Locations]:
        """The set that the first coordinate picks, those after it, then other numbers of layers."""
        count, rest = _part(u, len(self._sets))
        for sets in self._sets[count:] + self._sets[:count]:
            first, _ = _part(rest, len(sets))
            yield from sets[first:]
            yield from sets[:first]

    # ---- one set -------------------------------------------------------------------------

    def _decode_in(self, locations: Locations, point: Sequence[float]) -> PruningConfig | None:
        """The configuration in this set of locations; None where integer counts miss.

        At the very ends of what can be met, where the variant that the point has costs too much or
        too little, it is one of the first variant of each list.
        """
        corner = self._corner(point)
        variants = {
            **self.pricing.variants,
            **{
                name: values[_part(point[self._index[name]], len(values))[0]]
                for name, values in self._choices.items()
            },
            **({} if corner is None else corner.variants),
        }
        config = self._decode_as(variants, corner, locations, point)
        if config is None and variants != self.pricing.variants:
            config = self._decode_as(self.pricing.variants, None, locations, point)
        return config

    def _decode_as(
        self,
        variants: Mapping[str, str],
        corner: Corner | None,
        locations: Locations,
        point: Sequence[float],
    ) -> PruningConfig | None:
        """The same in one design variant."""
        draft = self.pricing.draft(locations, variants)
        self._solver.decide(draft, [self._drawn(space, point, corner) for space in locations])
        columns = [self._index[f"block{space.block:02d}.kept"] for space in locations]
        shares = self._solver.shares(draft, [point[column] for column in columns])
        if shares is None:
            return None
        config = self._config(draft, shares, point, variants)
        if config is None or not self.budget.holds(self.pricing.cost_model.total(config)):
            return None
        return config

    def _corner(self, point: Sequence[float]) -> Corner | None:
        """The corner that the point lies in; None: anywhere."""
        if not self._corners:
            return None
        part, _ = _part(point[self._index["corner"]], len(self._corners) + 1)
        return self._corners[part - 1] if part else None

    def _drawn(
        self, space: BlockSpace, point: Sequence[float], corner: Corner | None
    ) -> Coordinates:
        """The coordinates of a layer as the point has them."""
        if corner is not None:
            space = replace(space, merge_share=(corner.merge_share, corner.merge_share))
        drawn = []
        for each in self.method.coordinates:
            low, high = self.method.range(space, each.name)
            u = point[self._index[f"block{space.block:02d}.{each.name}"]]
            if each.tilted:
                u += 4.0 * point[self._index[f"{each.name}.tilt"]] - 2.0
            drawn.append(low + _part(min(max(u, 0.0), 1.0), high - low + 1)[0])
        return tuple(drawn)

    def _config(
        self, draft: Draft, shares: Sequence[int], point: Sequence[float],
        variants: Mapping[str, str],
    ) -> PruningConfig | None:  # fmt: skip
        layers = []
        n = self.geometry.patch_tokens
        for space, share, coordinates in zip(draft.spaces, shares, draft.dear, strict=True):
            kept, values = self.method.plan(
                draft.template, space, n, share / RETENTION_UNIT, coordinates
            )
            layer = self.method.layer(space, n, kept, values)
            if layer is None:  # too few tokens come in
                return None
            layers.append(layer)
            n = kept
        scales = {name: point[self._index[name]] for name in self.method.scales}
        return self.method.config(layers, self.pricing.scale_values(scales), variants)


def _part(u: float, parts: int) -> tuple[int, float]:
    """Which of so many equal parts of [0, 1] u lies in, and where in it, in [0, 1]."""
    part = min(int(u * parts), parts - 1)
    return part, u * parts - part
