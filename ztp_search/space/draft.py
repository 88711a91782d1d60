"""A configuration under construction, and what it costs at its cheapest and its dearest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT, PruningConfig
from ztp_search.pruning.costs import LayerCost
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import METHODS
from ztp_search.pruning.rounding import units_within
from ztp_search.space.space import BlockSpace, SearchSpace

Coordinates = tuple[int, ...]
"""Of a layer, in the method's order."""


@dataclass(slots=True)
class Draft:
    """A set of locations with what is decided so far; lists run over its pruning layers.

    Attributes:
        spaces: what each layer may be.
        template: says which variant it is of; has no layers.
        layer_cost: what a layer of that variant itself adds.
        low, high: least and most share of the tokens kept, in units of 1 / RETENTION_UNIT.
        cheap, dear: the coordinates that make the layers cheapest and dearest; the same once they
            are decided.
    """

    spaces: tuple[BlockSpace, ...]
    template: PruningConfig
    layer_cost: LayerCost
    low: list[int]
    high: list[int]
    cheap: list[Coordinates]
    dear: list[Coordinates]


class Pricing:
    """Makes drafts of a space and prices them by the budget's cost model.

    Half of a decode's time goes by in `cost`, in 30 calls.
    """

    def __init__(self, space: SearchSpace, geometry: Geometry, budget: Budget) -> None:
        self.geometry = geometry
        self.method = METHODS[space.method]
        self.scales = {name: getattr(space, name) for name in self.method.scales}
        self.cost_model = budget.cost_model(geometry)
        self.variants = {name: values[0] for name, values in space.variants.items()}
        self._widest = {name: scale.high for name, scale in self.scales.items()}
        self._layers: dict[int, tuple[int, int, list[Coordinates], list[Coordinates]]] = {}
        self._ends: dict[tuple[int, ...], tuple[list[Coordinates], list[Coordinates]]] = {}
        self._templates: dict[tuple[str, ...], tuple[PruningConfig, LayerCost]] = {}
        self._fixed = self.cost_model.fixed()
        self._of_block = [self.cost_model.block(n) for n in range(geometry.tokens + 1)]
        self._of_tail = [self.cost_model.tail(n) for n in range(geometry.tokens + 1)]

    def draft(
        self, spaces: tuple[BlockSpace, ...], variants: Mapping[str, str] | None = None
    ) -> Draft:
        """A draft of which nothing is decided but where its layers stand, and its variant."""
        template, layer_cost = self._template(self.variants if variants is None else variants)
        blocks = tuple(space.block for space in spaces)
        low, high, cheapest, dearest = zip(*(self._layer(space) for space in spaces), strict=True)
        draft = Draft(spaces, template, layer_cost, list(low), list(high), [], [])
        if blocks not in self._ends:
            self._ends[blocks] = (
                min(map(list, zip(*cheapest, strict=True)),
                    key=lambda layers: self.cost(draft, draft.low, layers)),
                max(map(list, zip(*dearest, strict=True)),
                    key=lambda layers: self.cost(draft, draft.high, layers)),
            )  # fmt: skip
        cheap, dear = self._ends[blocks]
        draft.cheap, draft.dear = cheap.copy(), dear.copy()
        return draft

    def _layer(self, space: BlockSpace) -> tuple[int, int, list[Coordinates], list[Coordinates]]:
        """Least and most share of a layer, in units, and what may make it cheapest and dearest.

        That is either end of a coordinate of which it depends whether it raises the cost; all
        layers of a configuration are taken to stand at the same one.
        """
        if space.block not in self._layers:
            shares = self.method.shares(space, self.geometry.patch_tokens)
            low, high = units_within(shares, RETENTION_UNIT)
            low = max(1, low)  # a layer keeps something
            ends = [
                (self.method.range(space, each.name), each.raises_cost)
                for each in self.method.coordinates
            ]
            cheapest = [end[:1] if raises else end for end, raises in ends]
            dearest = [end[1:] if raises else end for end, raises in ends]
            self._layers[space.block] = (
                low, high, list(itertools.product(*cheapest)), list(itertools.product(*dearest)),
            )  # fmt: skip
        return self._layers[space.block]

    def cheapest(self, draft: Draft) -> int:
        """The least that a draft can come to cost."""
        return self.cost(draft, draft.low, draft.cheap)

    def dearest(self, draft: Draft) -> int:
        """The most that a draft can come to cost."""
        return self.cost(draft, draft.high, draft.dear)

    def cost(
        self, draft: Draft, shares: Sequence[int], coordinates: Sequence[Coordinates]
    ) -> int:
        """What these shares (in units) and coordinates cost."""
        template, layer_cost, of_block = draft.template, draft.layer_cost, self._of_block
        plan = self.method.plan
        prefix = self.geometry.prefix_tokens
        cost = self._fixed
        n, start = self.geometry.patch_tokens, 0
        for space, share, values in zip(draft.spaces, shares, coordinates, strict=True):
            cost += (space.block - start) * of_block[n + prefix]
            start = space.block
            kept, fields = plan(template, space, n, share / RETENTION_UNIT, values)
            if kept < n:
                cost += layer_cost(n, kept, fields)
            n = kept
        cost += (self.geometry.depth - start) * of_block[n + prefix]
        return cost + self._of_tail[n + prefix]

    def scale_values(self, coordinates: Mapping[str, float]) -> dict[str, float]:
        """The configuration's scales at their coordinates."""
        return {name: scale.at(coordinates[name]) for name, scale in self.scales.items()}

    def _template(self, variants: Mapping[str, str]) -> tuple[PruningConfig, LayerCost]:
        key = tuple(variants.values())
        if key not in self._templates:
            template = self.method.config((), self._widest, variants)
            self._templates[key] = template, self.cost_model.layer_cost(template)
        return self._templates[key]
