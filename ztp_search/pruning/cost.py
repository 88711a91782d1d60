"""What a configuration costs in multiply-adds, block by block, as reports and files show it.

Costs are integers ("macs") and equal fvcore on the model as run to the last multiply-add;
`Geometry` states the convention. What a budget bounds is a cost model's (`pruning.costs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.geometry import Geometry, backbone_macs, block_macs, unpruned_macs
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.tokens import token_counts


@dataclass(frozen=True, slots=True)
class BlockCost:
    """One block, and the pruning layer behind it.

    Attributes:
        block: its number, from 1.
        tokens: what it computes on, prefix included.
        backbone: its own multiply-adds.
        overhead: those of the pruning layer behind it.
    """

    block: int
    tokens: int
    backbone: int
    overhead: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.backbone + self.overhead


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds per image of one configuration on one geometry.

    Attributes:
        tokens: what each block computes on, prefix included, and what leaves the last one.
        blocks: block by block.
        backbone: the transformer with patch embedding and classifier.
        overhead: what pruning adds (WPR, similarity, means of merged tokens).
        unpruned: the same model without pruning.
    """

    tokens: tuple[int, ...]
    blocks: tuple[BlockCost, ...]
    backbone: int
    overhead: int
    unpruned: int

    @property
    def total(self) -> int:
        """Backbone and overhead, which is what a budget bounds."""
        return self.backbone + self.overhead

    def gflops(self) -> dict[str, float]:
        """Total, backbone, overhead and unpruned in GFLOPs, as every file and table has them."""
        return {
            "total": self.total / 1e9,
            "backbone": self.backbone / 1e9,
            "overhead": self.overhead / 1e9,
            "unpruned": self.unpruned / 1e9,
        }


def flops(geometry: Geometry, config: PruningConfig) -> Cost:
    """Count the multiply-adds per image of `config`, per block and in all.

    Raises:
        ConfigError: the configuration does not fit the model.

    Example:
        >>> cost = flops(geometry, PruningConfig((PruningLayer(3, 0.8, 10, 5),)))
        >>> cost.tokens[2:4], cost.total
        ((197, 148), 3714451332)
    """
    tokens = token_counts(geometry, config)
    method, prefix = method_of(config), geometry.prefix_tokens
    overhead = {
        layer.after_block: method.layer_macs(
            geometry,
            config,
            tokens[layer.after_block - 1] - prefix,
            tokens[layer.after_block] - prefix,
            method.values(layer),
        )
        for layer in config.layers
    }
    blocks = tuple(
        BlockCost(b + 1, n, block_macs(geometry, n), overhead.get(b + 1, 0))
        for b, n in enumerate(tokens[:-1])
    )
    return Cost(
        tokens=tokens,
        blocks=blocks,
        backbone=backbone_macs(geometry, tokens),
        overhead=sum(overhead.values()),
        unpruned=unpruned_macs(geometry),
    )


def cost_dict(cost: Cost) -> dict[str, Any]:
    """`tokens` and `gflops` as files and `--json` have them."""
    return {"tokens": list(cost.tokens), "gflops": cost.gflops()}
