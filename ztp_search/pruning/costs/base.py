"""What every cost model is: an integer per image that a budget bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import Values, method_of
from ztp_search.pruning.tokens import token_counts

LayerCost: TypeAlias = Callable[[int, int, Values], int]


class CostModel(ABC):
    """What a configuration costs per image on one model, as an integer.

    Costs add up over blocks and layers, and never fall when a block computes on one token more:
    that is what meeting a budget by construction rests on.

    Args:
        geometry: the model's sizes.
        counts: "total" (what runs), or "backbone" (without what the reduction itself adds).

    Attributes:
        name: under which `COST_MODELS` has it.
        unit: in which people state a budget.
        per_unit: integer steps of one unit.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    per_unit: ClassVar[int]

    def __init__(self, geometry: Geometry, counts: str = "total") -> None:
        self.geometry = geometry
        self.counts = counts

    @abstractmethod
    def block(self, tokens: int) -> int:
        """One transformer block on `tokens` tokens, prefix included."""

    @abstractmethod
    def fixed(self) -> int:
        """What does not depend on the number of tokens: the stem and the classifier."""

    @abstractmethod
    def tail(self, tokens: int) -> int:
        """What follows the last block on `tokens` tokens."""

    @abstractmethod
    def layer_cost(self, config: PruningConfig) -> LayerCost:
        """The function that says what a pruning layer of such a configuration itself adds.

        Args:
            config: says which method and variant it is; its layers do not matter.

        Returns:
            A function of patch tokens that come in, patch tokens kept, and the values of the
            layer's fields. It is 0 where only the backbone counts.
        """

    def total(self, config: PruningConfig) -> int:
        """The whole configuration.

        Raises:
            ConfigError: it does not fit the model.
        """
        method, prefix = method_of(config), self.geometry.prefix_tokens
        tokens = token_counts(self.geometry, config)
        cost = self.fixed() + sum(map(self.block, tokens[:-1])) + self.tail(tokens[-1])
        layer_cost = self.layer_cost(config)
        for layer in config.layers:
            n_in, n_out = tokens[layer.after_block - 1], tokens[layer.after_block]
            cost += layer_cost(n_in - prefix, n_out - prefix, method.values(layer))
        return cost

    def unpruned(self) -> int:
        """The model without pruning."""
        tokens = self.geometry.tokens
        return self.fixed() + self.geometry.depth * self.block(tokens) + self.tail(tokens)
