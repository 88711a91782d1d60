"""A configuration under construction, and what it costs at its cheapest and its dearest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import METHODS
from ztp_search.space.space import BlockSpace, SearchSpace

Knobs = tuple[int, ...]
"""Values of a layer's knobs, in the method's order."""


@dataclass(slots=True)
class Draft:
    """A set of locations with what is decided so far; lists run over its pruning layers.

    Attributes:
        spaces: what each layer may be.
        low, high: least and most retention, in units of 1 / RETENTION_UNIT.
        cheap, dear: the knobs' values that make the layer cheapest and dearest; the same once a
            knob is decided.
    """

    spaces: tuple[BlockSpace, ...]
    low: list[int]
    high: list[int]
    cheap: list[Knobs]
    dear: list[Knobs]


class Pricing:
    """Makes drafts of a space and prices them by the budget's cost model.

    Half of a decode's time goes by in `cost`, in 40 calls.
    """

    def __init__(self, space: SearchSpace, geometry: Geometry, budget: Budget) -> None:
        self.geometry = geometry
        self.method = METHODS[space.method]
        self.scales = {name: getattr(space, name) for name in self.method.scales}
        self.cost_model = budget.cost_model(geometry)
        widest = {name: scale.high for name, scale in self.scales.items()}
        self.template = self.method.config((), widest, space.variants)
        self._layer_cost = self.cost_model.layer_cost(self.template)
        self._fixed = self.cost_model.fixed()
        self._of_block = [self.cost_model.block(n) for n in range(geometry.tokens + 1)]
        self._of_tail = [self.cost_model.tail(n) for n in range(geometry.tokens + 1)]

    def draft(self, spaces: tuple[BlockSpace, ...]) -> Draft:
        """A draft of which nothing is decided but where its layers stand."""
        units = [retention_units(space) for space in spaces]
        cheap, dear = [], []
        for space in spaces:
            ranges = [getattr(space, knob.name) for knob in self.method.knobs]
            rises = [knob.raises_cost for knob in self.method.knobs]
            cheap.append(tuple(r[0 if up else 1] for r, up in zip(ranges, rises, strict=True)))
            dear.append(tuple(r[1 if up else 0] for r, up in zip(ranges, rises, strict=True)))
        return Draft(spaces, [low for low, _ in units], [high for _, high in units], cheap, dear)

    def cheapest(self, draft: Draft) -> int:
        """The least that a draft can come to cost."""
        return self.cost(draft, draft.low, draft.cheap)

    def dearest(self, draft: Draft) -> int:
        """The most that a draft can come to cost."""
        return self.cost(draft, draft.high, draft.dear)

    def cost(self, draft: Draft, rates: Sequence[int], knobs: Sequence[Knobs]) -> int:
        """What these retentions (in units) and knobs cost."""
        template, of_block = self.template, self._of_block
        layer_tokens, layer_cost = self.method.layer_tokens, self._layer_cost
        prefix = self.geometry.prefix_tokens
        cost = self._fixed
        n, start = self.geometry.patch_tokens, 0
        for space, rate, values in zip(draft.spaces, rates, knobs, strict=True):
            cost += (space.block - start) * of_block[n + prefix]
            start = space.block
            kept, _, values = layer_tokens(template, n, rate / RETENTION_UNIT, values)
            cost += layer_cost(n, kept, values)
            n = kept
        cost += (self.geometry.depth - start) * of_block[n + prefix]
        return cost + self._of_tail[n + prefix]

    def scale_values(self, coordinates: Mapping[str, float]) -> dict[str, float]:
        """The configuration's scales at their coordinates."""
        return {name: scale.at(coordinates[name]) for name, scale in self.scales.items()}


def retention_units(space: BlockSpace) -> tuple[int, int]:
    """Least and most retention of a block, in units of 1 / RETENTION_UNIT."""
    low, high = space.retention
    return math.ceil(low * RETENTION_UNIT - 1e-6), math.floor(high * RETENTION_UNIT + 1e-6)
