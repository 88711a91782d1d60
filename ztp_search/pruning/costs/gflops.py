"""Multiply-adds as fvcore counts them on the model as run, to the last one."""

from __future__ import annotations

from functools import partial

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.costs.base import CostModel, LayerCost
from ztp_search.pruning.geometry import block_macs
from ztp_search.pruning.methods import method_of


class Gflops(CostModel):
    """10^9 multiply-adds; `Geometry` states the convention."""

    name = "gflops"
    unit = "GFLOPs"
    per_unit = 10**9

    def block(self, tokens: int) -> int:
        return block_macs(self.geometry, tokens)

    def fixed(self) -> int:
        return self.geometry.stem_macs + self.geometry.tail_macs

    def tail(self, tokens: int) -> int:
        return self.geometry.tail_macs_per_token * tokens

    def layer_cost(self, config: PruningConfig) -> LayerCost:
        if self.counts != "total":
            return lambda _patch_tokens, _kept, _values: 0
        return partial(method_of(config).layer_macs, self.geometry, config)
