"""What every method of token reduction is to the search, the cost and the patched model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry

if TYPE_CHECKING:  # costs and configurations are known without torch
    from torch import Tensor

    from ztp_search.pruning.scoring import Kept


@dataclass(frozen=True, slots=True)
class Knob:
    """An integer of a pruning layer that is searched beside its retention rate.

    Attributes:
        name: of the layer's field.
        neutral: its value where no layer stands.
        raises_cost: whether a greater value makes a configuration dearer; else cheaper.
    """

    name: str
    neutral: int
    raises_cost: bool


LayerTokens: TypeAlias = tuple[int, int, tuple[int, ...]]
"""What a layer does to the patch tokens that come in: how many leave it, how many its retention
rate alone would keep, and the knobs' values, lowered to what the tokens allow. A plain tuple, as
the decoder makes a hundred thousand a second."""


class Method(ABC):
    """A way to reduce tokens: what its configurations contain, cost and do.

    Attributes:
        name: under which `METHODS` has it, and which configurations of it carry.
        knobs: integers of a layer beside `retention`, in the order of their coordinates.
        scales: numbers of a whole configuration that are searched, such as thresholds.
        columns: of a table with a row per layer, beside the block and its tokens.
    """

    name: ClassVar[str]
    knobs: ClassVar[tuple[Knob, ...]]
    scales: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[str, ...]]

    # What a configuration is

    @abstractmethod
    def parse(self, data: Any, where: str) -> PruningConfig:
        """Read a configuration from its JSON form.

        Raises:
            ConfigError: names the first key that is unknown, missing or wrong, after `where`.
        """

    @abstractmethod
    def layer(self, after_block: int, retention: float, knobs: Sequence[int]) -> PruningLayer:
        """A pruning layer; `knobs` are values in the order of `self.knobs`."""

    @abstractmethod
    def config(
        self,
        layers: Sequence[PruningLayer],
        scales: Mapping[str, float],
        variants: Mapping[str, str],
    ) -> PruningConfig:
        """A configuration of these layers; `scales` by the names of `self.scales`."""

    @abstractmethod
    def identity(self, config: PruningConfig, tokens: Sequence[int]) -> tuple[object, ...]:
        """What decides a result: the same for configurations that must have the same one.

        Args:
            config: the configuration.
            tokens: its token counts.
        """

    # What it does to the number of tokens, and what that costs

    @abstractmethod
    def layer_tokens(
        self, config: PruningConfig, patch_tokens: int, retention: float, knobs: Sequence[int]
    ) -> LayerTokens:
        """Count what leaves a layer. Never falls with `retention` or with the tokens coming in.

        Args:
            config: says which variant it is; its layers do not matter.
            patch_tokens: patch tokens that come in.
            retention: the layer's rate.
            knobs: values that may be more than the tokens allow.

        Returns:
            Patch tokens that leave it, those that its rate alone would keep, and the values that
            the tokens allow.
        """

    @abstractmethod
    def check_layer(self, config: PruningConfig, layer: PruningLayer, patch_tokens: int) -> None:
        """Refuse a layer that asks for more than the patch tokens that come in allow.

        Raises:
            ConfigError: names the field, its value and the most that it may be.
        """

    @abstractmethod
    def layer_macs(
        self,
        geometry: Geometry,
        config: PruningConfig,
        patch_tokens: int,
        kept: int,
        knobs: Sequence[int],
    ) -> int:
        """Multiply-adds that a layer adds to the model, as the patched model runs it.

        Args:
            geometry: the model's sizes.
            config: says which variant it is; its layers do not matter.
            patch_tokens, kept: patch tokens that come in and go out.
            knobs: values that the tokens allow.
        """

    # What it does to the tokens

    @abstractmethod
    def reduce(
        self,
        attention: Tensor,
        features: Tensor | None,
        config: PruningConfig,
        layer: PruningLayer,
        *,
        geometry: Geometry,
        kept: int,
    ) -> Kept:
        """Choose the tokens that leave a layer.

        Args:
            attention: softmax probabilities of the block, (B, H, N, N).
            features: what tokens are compared by, (B, N, F); None where nothing is compared.
            config, layer: the configuration, and the layer of it that is at work.
            geometry: the model's sizes.
            kept: patch tokens that must be left.
        """

    # What people see

    @abstractmethod
    def cells(self, layer: Mapping[str, Any]) -> tuple[str, ...]:
        """The texts below `columns`, of a layer's JSON form."""

    @abstractmethod
    def heading(self, config: Mapping[str, Any]) -> str:
        """What is said of a configuration as a whole, of its JSON form."""

    # What follows from the above

    def knob_values(self, layer: PruningLayer) -> tuple[int, ...]:
        """The values of a layer's knobs, in the order of `self.knobs`."""
        return tuple(getattr(layer, knob.name) for knob in self.knobs)

    @property
    def neutral(self) -> dict[str, float]:
        """The fields of a block where no layer stands: those of a layer that prunes nothing."""
        return {"retention": 1.0, **{knob.name: knob.neutral for knob in self.knobs}}
