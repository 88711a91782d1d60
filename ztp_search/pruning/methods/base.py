"""What every method of token reduction is to the search, the cost and the patched model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry

if TYPE_CHECKING:  # costs and configurations are known without torch
    from torch import Tensor

    from ztp_search.pruning.scoring import Kept

Values: TypeAlias = tuple[Any, ...]
"""What a layer does, in the order of its method's `fields`. A plain tuple, as the decoder makes a
hundred thousand a second."""


@dataclass(frozen=True, slots=True)
class Coordinate:
    """An integer of a pruning layer that a search draws beside the share of tokens kept.

    Attributes:
        name: as the decoder's coordinate.
        raises_cost: whether a greater value makes a configuration dearer; else it may go either
            way.
        tilted: whether its layers are drawn with a common tilt, so that all of them stand at one
            end as easily as in between.
    """

    name: str
    raises_cost: bool = False
    tilted: bool = False


class LayerRanges(Protocol):
    """What a pruning layer may be: the ranges that a space states, by name."""

    @property
    def block(self) -> int: ...
    @property
    def kept(self) -> tuple[float, float]: ...
    @property
    def retention(self) -> tuple[float, float]: ...
    @property
    def s_tokens(self) -> tuple[int, int]: ...
    @property
    def wpr_iterations(self) -> tuple[int, int]: ...
    @property
    def merge_share(self) -> tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class Sight:
    """What a layer looks at in its block.

    Attributes:
        attention: whether it needs the attention probabilities.
        features: what tokens are compared by; None where they are not.
    """

    attention: bool
    features: str | None


class Method(ABC):
    """A way to reduce tokens: what its configurations contain, cost and do.

    Attributes:
        name: under which `METHODS` has it, and which configurations of it carry.
        fields: of a layer beside `after_block` and `retention`, with the values of a layer that
            prunes nothing.
        coordinates: of a layer in a search, beside the share of tokens that it keeps.
        scales: numbers of a whole configuration that are searched, such as thresholds.
        choices: named design variants of a whole configuration, by field; the first of each is
            the default.
        columns: of a table with a row per layer, beside the block and its tokens.
        fates: what may become of a token that a layer takes out.
    """

    name: ClassVar[str]
    fields: ClassVar[Mapping[str, float]]
    coordinates: ClassVar[tuple[Coordinate, ...]]
    scales: ClassVar[tuple[str, ...]]
    choices: ClassVar[Mapping[str, tuple[str, ...]]]
    columns: ClassVar[tuple[str, ...]]
    fates: ClassVar[tuple[str, ...]]

    # What a configuration is

    @abstractmethod
    def parse(self, data: Any, where: str) -> PruningConfig:
        """Read a configuration from its JSON form.

        Raises:
            ConfigError: names the first key that is unknown, missing or wrong, after `where`.
        """

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
    def kept(self, config: PruningConfig, layer: PruningLayer, patch_tokens: int) -> int:
        """Count the patch tokens that leave a layer.

        Raises:
            ConfigError: it asks for more than the patch tokens that come in allow; names the
                field, its value and the most that it may be.
        """

    @abstractmethod
    def layer_macs(
        self,
        geometry: Geometry,
        config: PruningConfig,
        patch_tokens: int,
        kept: int,
        values: Values,
    ) -> int:
        """Multiply-adds that a layer adds to the model, as the patched model runs it.

        Args:
            geometry: the model's sizes.
            config: says which variant it is; its layers do not matter.
            patch_tokens, kept: patch tokens that come in and go out.
            values: of the layer's `fields`.
        """

    # What a search draws

    @abstractmethod
    def shares(self, ranges: LayerRanges, patch_tokens: int) -> tuple[float, float]:
        """Least and most share of the tokens that a layer keeps, on a model of `patch_tokens`."""

    @abstractmethod
    def range(self, ranges: LayerRanges, coordinate: str) -> tuple[int, int]:
        """Least and most of a coordinate of a layer."""

    @abstractmethod
    def plan(
        self,
        config: PruningConfig,
        ranges: LayerRanges,
        patch_tokens: int,
        share: float,
        coordinates: tuple[int, ...],
    ) -> tuple[int, Values]:
        """Turn coordinates into what a layer does to the tokens that come in.

        Args:
            config: says which variant it is; its layers do not matter.
            ranges: of the layer.
            patch_tokens: patch tokens that come in.
            share: of them that leave the layer.
            coordinates: in the order of `self.coordinates`.

        Returns:
            Patch tokens that leave it, which never fall with `share`, and the values of its
            `fields`: as near to what the ranges allow as the tokens do.
        """

    @abstractmethod
    def layer(
        self, ranges: LayerRanges, patch_tokens: int, kept: int, values: Values
    ) -> PruningLayer | None:
        """The layer that keeps so many of the patch tokens that come in.

        None where so few tokens allow none within the ranges.
        """

    # What it does to the tokens

    @abstractmethod
    def looks_at(
        self, config: PruningConfig, layer: PruningLayer, patch_tokens: int, kept: int
    ) -> Sight:
        """What a layer must see of its block in order to `reduce`."""

    @abstractmethod
    def taken_out(
        self, config: PruningConfig, layer: PruningLayer, patch_tokens: int, kept: int
    ) -> tuple[int, ...]:
        """How many of the tokens that a layer takes out meet each of the `fates`."""

    @abstractmethod
    def tracks_sizes(self, config: PruningConfig) -> bool:
        """Whether blocks attend to a token by the number of patches that it stands for."""

    @abstractmethod
    def reduce(
        self,
        attention: Tensor | None,
        features: Tensor | None,
        config: PruningConfig,
        layer: PruningLayer,
        *,
        geometry: Geometry,
        kept: int,
    ) -> Kept:
        """Choose the tokens that leave a layer, and what goes into them.

        Args:
            attention: softmax probabilities of the block, (B, H, N, N); None where the layer
                looks at none.
            features: what tokens are compared by, (B, N, F); None likewise.
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

    def values(self, layer: PruningLayer) -> Values:
        """The values of a layer's `fields`."""
        return tuple(getattr(layer, name) for name in self.fields)

    @property
    def neutral(self) -> dict[str, float]:
        """The fields of a block where no layer stands, as a layer has them that prunes nothing."""
        return {"retention": 1.0, **self.fields}
