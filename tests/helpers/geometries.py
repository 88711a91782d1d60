"""Model sizes made by hand, and their costs by the formulas as they are published."""

from __future__ import annotations

from helpers import reference

from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry


def vit(
    depth: int, heads: int, width: int, patches: int, *, prefix: int = 1, pixels: int = 768,
    classes: int = 1000,
) -> Geometry:  # fmt: skip
    """Sizes of a plain ViT; with no prefix token its pooled norm is the only one."""
    pooled = prefix == 0
    return Geometry(
        depth=depth, heads=heads, embed_dim=width, attn_dim=width, patch_tokens=patches,
        prefix_tokens=prefix, class_token=not pooled,
        block_macs_per_token=12 * width * width + 10 * width, block_macs_per_pair=2 * width,
        stem_macs=patches * pixels * width, tail_macs_per_token=0 if pooled else 5 * width,
        tail_macs=classes * width + (5 * width if pooled else 0),
    )  # fmt: skip


DEIT_T, DEIT_S, DEIT_B = (vit(12, heads, 64 * heads, 196) for heads in (3, 6, 12))
DIGITS = vit(8, 3, 96, 100, pixels=16, classes=10)
DEEP = vit(24, 16, 1024, 196)
POOLED = vit(12, 6, 384, 196, prefix=0)
DISTILLED = vit(12, 3, 192, 196, prefix=2)
GEOMETRIES = (DEIT_T, DEIT_S, DEIT_B, DIGITS, POOLED, DISTILLED)


def size_of(geometry: Geometry) -> str:
    return f"{geometry.depth} blocks of {geometry.embed_dim}, {geometry.prefix_tokens} prefix"


def counts_by_hand(geometry: Geometry, config: PruningConfig) -> list[tuple[int, int]]:
    """(patch tokens coming in, going out) per pruning layer, in exact decimals."""
    n, out = geometry.patch_tokens, []
    for layer in config.layers:
        kept = reference.patch_tokens_kept(n, layer.retention, layer.s_tokens)
        out.append((n, kept))
        n = kept
    return out


def macs_by_hand(geometry: Geometry, config: PruningConfig) -> tuple[int, int]:
    """(backbone, overhead): 12 N D D + 2 N N D + 10 N D per block, `overhead_by_hand` per layer."""
    width, prefix = geometry.embed_dim, geometry.prefix_tokens
    after = {layer.after_block: layer for layer in config.layers}
    kept = iter(counts_by_hand(geometry, config))
    backbone, overhead, n = geometry.stem_macs + geometry.tail_macs, 0, geometry.patch_tokens
    for block in range(1, geometry.depth + 1):
        full = n + prefix
        backbone += 12 * full * width**2 + 2 * full**2 * width + 10 * full * width
        if block in after:
            _, out = next(kept)
            overhead += overhead_by_hand(geometry, config, after[block], n, out)
            n = out
    return backbone + geometry.tail_macs_per_token * (n + prefix), overhead


def overhead_by_hand(
    geometry: Geometry, config: PruningConfig, layer: PruningLayer, n: int, out: int
) -> int:
    """What a layer adds that lets `out` of `n` patch tokens through, stage by stage."""
    by_s = layer.s_tokens
    by_i = n - by_s - out
    left_by_i, ranked_by_s = (out, n) if config.order == "i'-s-i" else (out + by_s, out + by_s)
    iterations = layer.wpr_iterations if by_i else 0
    compared: list[tuple[int, int]] = []  # so many tokens, each with so many others
    if by_s:
        half = ranked_by_s // 2
        compared.append((half, ranked_by_s - half))
        ranked_already = config.order == "i-s" and by_i
        if config.partition != "position" and not ranked_already:
            iterations += 1
    merged = by_s if config.similar == "merge" else 0
    merged_by_i = reference.round_half_up(layer.merge_share, by_i)
    if merged_by_i:
        compared.append((by_i, left_by_i))
        merged += merged_by_i
    width = geometry.embed_dim if config.features == "x" else geometry.attn_dim
    if config.metric == "manhattan":
        width = 0
    ranking = iterations * geometry.heads * (n + geometry.prefix_tokens) ** 2
    similarity = sum(tokens * others * width for tokens, others in compared)
    means = (out + geometry.prefix_tokens) * merged * geometry.embed_dim
    return ranking + similarity + means


def unpruned(geometry: Geometry) -> int:
    return macs_by_hand(geometry, PruningConfig())[0]


def budget_of(
    geometry: Geometry, share: float, counts: str = "total", tolerance: float = 0.01
) -> Budget:
    return Budget(int(share * unpruned(geometry)), tolerance, counts)
