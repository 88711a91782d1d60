"""How many tokens each block computes on, and what that costs.

`token_counts` is the one place where counts are computed: the patched model calls it too.
Costs follow fvcore's convention: one multiply-add is one FLOP, a LayerNorm is 5 per element,
softmax, GELU and other elementwise work is not counted; per image, attention unfused. They are
integers ("macs") and equal fvcore on the model as run to the last multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig, PruningLayer


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a vision transformer that decide what a configuration costs.

    embed_dim: width of the residual stream; attn_dim: heads times head width.
    patch_tokens, prefix_tokens: tokens per image; prefix are class, distillation and registers.
    class_token: whether token 0 is a class token.
    block_macs_per_token, block_macs_per_pair: a block on N tokens costs
        block_macs_per_token * N + block_macs_per_pair * N * N.
    stem_macs: patch embedding (and a norm before the blocks), once per image.
    tail_macs_per_token: the final norm, on every token that leaves the last block.
    tail_macs: pooled norm and classifier, once per image.
    """

    depth: int
    heads: int
    embed_dim: int
    attn_dim: int
    patch_tokens: int
    prefix_tokens: int
    class_token: bool
    block_macs_per_token: int
    block_macs_per_pair: int
    stem_macs: int
    tail_macs_per_token: int
    tail_macs: int

    @property
    def tokens(self) -> int:
        """Tokens of the unpruned model, prefix included."""
        return self.patch_tokens + self.prefix_tokens


@dataclass(frozen=True, slots=True)
class BlockCost:
    """One block: `tokens` it computes on, its own macs, and those of the pruning layer after it."""

    block: int
    tokens: int
    backbone: int
    overhead: int

    @property
    def total(self) -> int:
        return self.backbone + self.overhead


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds per image of one configuration on one geometry.

    backbone: the transformer with patch embedding and classifier.
    overhead: what pruning adds (WPR and similarity).
    total: their sum, which is what a budget bounds.
    unpruned: the same model without pruning.
    """

    tokens: tuple[int, ...]
    blocks: tuple[BlockCost, ...]
    backbone: int
    overhead: int
    unpruned: int

    @property
    def total(self) -> int:
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
    """Multiply-adds per image of `config`, per block and in all."""
    tokens = token_counts(geometry, config)
    overhead = {
        layer.after_block: layer_macs(geometry, config, layer, tokens) for layer in config.layers
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


def token_counts(geometry: Geometry, config: PruningConfig) -> tuple[int, ...]:
    """Tokens that each block computes on, prefix included, and what leaves the last: depth + 1.

    n' = max(1, round_half_up(r n) - s) patch tokens leave a pruning layer.
    Raises ConfigError where a layer stands outside the model or its S-stage asks for more
    tokens than one half holds.
    """
    layers = {layer.after_block: layer for layer in config.layers}
    n = geometry.patch_tokens
    counts = [n]
    for block in range(1, geometry.depth + 1):
        layer = layers.pop(block, None)
        if layer is not None:
            if block == geometry.depth:
                raise ConfigError(_outside(layer, geometry))
            n = _checked_kept(n, layer, config.order)
        counts.append(n)
    if layers:
        raise ConfigError(_outside(next(iter(layers.values())), geometry))
    return tuple(count + geometry.prefix_tokens for count in counts)


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves up.

    A product such as 0.7 * 105 is 73.49999999999999 in binary; the 1e-9 honours the decimal.
    """
    return math.floor(value + 0.5 + 1e-9)


def patch_tokens_kept(n: int, retention: float, s_tokens: int) -> int:
    """Patch tokens that leave a pruning layer of n coming in: max(1, round_half_up(r n) - s)."""
    return max(1, round_half_up(retention * n) - s_tokens)


def max_s_tokens(n: int, retention: float, order: str = "i'-s-i") -> int:
    """The most patch tokens an S-stage can prune of n: all of the less important half."""
    return (n if order == "i'-s-i" else round_half_up(retention * n)) // 2


def block_macs(geometry: Geometry, tokens: int) -> int:
    """One transformer block on `tokens` tokens."""
    return tokens * (geometry.block_macs_per_token + geometry.block_macs_per_pair * tokens)


def backbone_macs(geometry: Geometry, tokens: Sequence[int]) -> int:
    """The transformer on these depth + 1 token counts, patch embedding and classifier included."""
    blocks = sum(block_macs(geometry, n) for n in tokens[:-1])
    tail = geometry.tail_macs_per_token * tokens[-1] + geometry.tail_macs
    return geometry.stem_macs + blocks + tail


def unpruned_macs(geometry: Geometry) -> int:
    """The model without pruning."""
    return backbone_macs(geometry, [geometry.tokens] * (geometry.depth + 1))


def layer_macs(
    geometry: Geometry, config: PruningConfig, layer: PruningLayer, tokens: Sequence[int]
) -> int:
    """What one pruning layer adds: WPR and similarity, as the patched model runs them.

    Pruned tokens are masked in WPR, not cut out of A, so each iteration costs H*N*N on the N
    tokens that come in (cutting the sub-matrix out costs more time than it saves).
    """
    n_in = tokens[layer.after_block - 1]
    n_out = tokens[layer.after_block]
    return stage_macs(
        geometry, config, n_in - geometry.prefix_tokens, n_out - geometry.prefix_tokens,
        layer.s_tokens, layer.wpr_iterations,
    )  # fmt: skip


def stage_macs(
    geometry: Geometry, config: PruningConfig, n: int, kept: int, s_tokens: int, iterations: int
) -> int:
    """A pruning layer's multiply-adds, from n patch tokens coming in to `kept` going out."""
    i_stage = kept < n - s_tokens
    if s_tokens and (config.order == "i'-s-i" or not i_stage):
        pre_ranking = 1
    else:
        pre_ranking = 0
    iterations = pre_ranking + (iterations if i_stage else 0)
    n_all = n + geometry.prefix_tokens
    macs = iterations * geometry.heads * n_all * n_all
    if s_tokens and config.metric != "manhattan":  # absolute differences are elementwise work
        ranked = n if config.order == "i'-s-i" else kept + s_tokens
        width = geometry.embed_dim if config.features == "x" else geometry.attn_dim
        macs += (ranked // 2) * (ranked - ranked // 2) * width
    return macs


def cost_dict(cost: Cost) -> dict[str, Any]:
    """`tokens` and `gflops` as files and `--json` have them."""
    return {"tokens": list(cost.tokens), "gflops": cost.gflops()}


def _checked_kept(n: int, layer: PruningLayer, order: str) -> int:
    most = max_s_tokens(n, layer.retention, order)
    if layer.s_tokens > most:
        raise ConfigError(
            f"s_tokens must be at most half of the tokens it ranks, but got {layer.s_tokens} "
            f"after block {layer.after_block}, where {most} is the most; lower s_tokens"
        )
    return patch_tokens_kept(n, layer.retention, layer.s_tokens)


def _outside(layer: PruningLayer, geometry: Geometry) -> str:
    return (
        f"1 <= after_block < depth must hold, but got after_block={layer.after_block} "
        f"in a model of {geometry.depth} blocks"
    )
