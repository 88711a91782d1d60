"""The sizes of a vision transformer, and what its blocks cost in multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a vision transformer that decide what a configuration costs.

    Multiply-adds ("macs") follow fvcore's convention: one multiply-add is one FLOP, a LayerNorm is
    5 per element, softmax, GELU and other elementwise work is not counted; per image, attention
    unfused.

    Attributes:
        depth: transformer blocks.
        heads: attention heads per block.
        embed_dim: width of the residual stream.
        attn_dim: heads times head width.
        patch_tokens, prefix_tokens: tokens per image; prefix are class, distillation and register
            tokens.
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


def block_macs(geometry: Geometry, tokens: int) -> int:
    """Multiply-adds of one transformer block on `tokens` tokens."""
    return tokens * (geometry.block_macs_per_token + geometry.block_macs_per_pair * tokens)


def backbone_macs(geometry: Geometry, tokens: Sequence[int]) -> int:
    """Multiply-adds of the transformer, patch embedding and classifier included.

    Args:
        geometry: the model's sizes.
        tokens: what each block computes on, and what leaves the last one: depth + 1 counts.
    """
    blocks = sum(block_macs(geometry, n) for n in tokens[:-1])
    tail = geometry.tail_macs_per_token * tokens[-1] + geometry.tail_macs
    return geometry.stem_macs + blocks + tail


def unpruned_macs(geometry: Geometry) -> int:
    """Multiply-adds of the model without pruning."""
    return backbone_macs(geometry, [geometry.tokens] * (geometry.depth + 1))
