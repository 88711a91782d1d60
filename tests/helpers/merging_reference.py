"""Merging, slowly: a whole vision transformer, one image at a time, written as the equations read.

The stages that rank tokens are those of `reference`; here is where the tokens go that are pruned,
what they weigh, and attention that counts them. The patched model is tested against this; nothing
here is imported from it. Inside a pruning layer a token is called by its place in the sequence
that comes in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from helpers import reference
from helpers.reference import Array, Permutation
from timm.layers import Attention
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor


@dataclass
class Forward:
    """One image: its logits, what each pruning layer did, in indices into the unpruned sequence,
    the sizes of the tokens that are left, and how far the closest decision was from a tie."""

    logits: Tensor
    layers: list[dict[str, Any]]
    sizes: list[float]
    gap: float


@dataclass
class Reduced:
    """One pruning layer; `ends` says of each merged token which kept one it is in, if any."""

    after_s: list[int]
    after_i: list[int]
    kept: list[int]
    ends: dict[int, int | None]
    gap: float


def forward(
    model: VisionTransformer, image: Tensor, config: Any, permutation: Permutation | None = None
) -> Forward:
    """One image (3, height, width) through a model that is not patched, in the model's dtype."""
    x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]  # (N, C)
    original, sizes = list(range(len(x))), [1.0] * len(x)
    recorded, gap = [], math.inf
    for number, block in enumerate(model.blocks, start=1):
        x, attention, features = block_by_hand(block, x, sizes)
        for layer in config.layers:
            if layer.after_block != number:
                continue
            patches = len(x) - model.num_prefix_tokens
            reduced = reduce_tokens(
                attention.double().numpy(), features[config.features].double().numpy(), config,
                prefix_tokens=model.num_prefix_tokens,
                class_token=model.cls_token is not None,
                s_tokens=layer.s_tokens,
                kept=reference.patch_tokens_kept(patches, layer.retention, layer.s_tokens),
                wpr_iterations=layer.wpr_iterations,
                merge_share=layer.merge_share,
                permutation=permutation,
            )  # fmt: skip
            x, sizes = merge(x, sizes, reduced)
            if config.sizes == "ignore":
                sizes = [1.0] * len(x)
            merged = sorted(reduced.ends)
            ends = [reduced.ends[token] for token in merged]
            recorded.append({
                "after_block": number,
                "s": [original[token] for token in reduced.after_s],
                "i": [original[token] for token in reduced.after_i],
                "layer": [original[token] for token in reduced.kept],
                "merged": [original[token] for token in merged],
                "into": [-1 if end is None else original[end] for end in ends],
            })  # fmt: skip
            original = [original[token] for token in reduced.kept]
            gap = min(gap, reduced.gap)
    return Forward(model.forward_head(model.norm(x[None]))[0], recorded, sizes, gap)


def block_by_hand(
    block: Any, x: Tensor, sizes: list[float]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A block's output (N, C), the attention in it (H, N, N) and what similarity can read."""
    if isinstance(block, ResPostBlock):
        update, attention, features = attention_by_hand(block.attn, x, sizes)
        x = x + block.norm1(update)
        x = x + block.norm2(block.mlp(x))
    else:
        update, attention, features = attention_by_hand(block.attn, block.norm1(x), sizes)
        x = x + block.ls1(update)
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return x, attention, {**features, "x": x}


def attention_by_hand(
    attn: Attention, x: Tensor, sizes: list[float]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Proportional attention, head by head: softmax of q k^T / sqrt(d) + log m along the keys."""
    heads, width = attn.num_heads, attn.head_dim
    query, key, value = attn.qkv(x).split(heads * width, dim=-1)
    log_sizes = torch.tensor([math.log(size) for size in sizes], dtype=x.dtype)
    rows, outputs, queries, keys = [], [], [], []
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        queries.append(attn.q_norm(query[:, own]))
        keys.append(attn.k_norm(key[:, own]))
        rows.append((queries[h] @ keys[h].T / width**0.5 + log_sizes).softmax(dim=-1))
        outputs.append(rows[h] @ value[:, own])
    features = {
        "query": torch.cat(queries, dim=-1),
        "key": torch.cat(keys, dim=-1),
        "value": value,
    }
    return attn.proj(attn.norm(torch.cat(outputs, dim=-1))), torch.stack(rows), features


def merge(x: Tensor, sizes: list[float], reduced: Reduced) -> tuple[Tensor, list[float]]:
    """Each kept token with all that ended in it: their mean by size, and their total size."""
    rows, totals = [], []
    for kept in reduced.kept:
        members = [kept] + [token for token, end in reduced.ends.items() if end == kept]
        total = sum(sizes[token] for token in members)
        mean = torch.zeros_like(x[kept])
        for token in members:
            mean = mean + sizes[token] * x[token] / total
        rows.append(mean)
        totals.append(total)
    return torch.stack(rows), totals


def reduce_tokens(
    attention: Array,
    features: Array,
    config: Any,
    *,
    prefix_tokens: int,
    class_token: bool,
    s_tokens: int,
    kept: int,
    wpr_iterations: int,
    merge_share: float,
    permutation: Permutation | None = None,
) -> Reduced:
    """The whole pruning layer; `kept` patch tokens are left in the end."""
    layer = _Layer(attention, features, config, prefix_tokens, class_token, permutation)
    everything = list(range(attention.shape[1]))
    i_tokens = len(everything) - prefix_tokens - s_tokens - kept
    goes_to: dict[int, int] = {}  # where a merged token goes first; that one may go on

    def s_stage(tokens: list[int], importance: dict[int, float]) -> list[int]:
        group_a, group_b = layer.groups(tokens, importance)
        pruned = layer.closest(group_a, group_b, s_tokens)
        if config.similar == "merge":
            goes_to.update(pruned)
        return [token for token in tokens if token not in pruned]

    def i_stage(tokens: list[int], importance: dict[int, float], left: int) -> list[int]:
        after = layer.keep_important(tokens, importance, left)
        pruned = [token for token in tokens if token not in after]
        targets = [token for token in after if token >= prefix_tokens]
        count = reference.round_half_up(merge_share, len(pruned))
        goes_to.update(layer.closest(pruned, targets, count))
        return after

    if config.order == "i'-s-i":
        after_s = everything
        if s_tokens > 0:
            after_s = s_stage(everything, layer.importance(everything, 1))  # I'
        after_i = after_s
        if i_tokens > 0:
            after_i = i_stage(after_s, layer.importance(after_s, wpr_iterations), kept)
        remaining = after_i
    else:
        after_i = everything
        importance = {}
        if i_tokens > 0:
            importance = layer.importance(everything, wpr_iterations)
            after_i = i_stage(everything, importance, kept + s_tokens)
        after_s = after_i
        if s_tokens > 0:
            after_s = s_stage(after_i, importance or layer.importance(everything, 1))
        remaining = after_s

    ends: dict[int, int | None] = {}
    for token in goes_to:
        end = token
        while end in goes_to:
            end = goes_to[end]
        ends[token] = end if end in remaining else None  # dropped, with all it had taken in
    return Reduced(after_s, after_i, remaining, ends, layer.gap)


class _Layer(reference._Layer):
    def groups(
        self, tokens: list[int], importance: dict[int, float]
    ) -> tuple[list[int], list[int]]:
        """A, which may lose tokens, and B, which takes them in; both in sequence order."""
        patches = [token for token in tokens if token >= self.prefix]
        if self.config.partition == "position":
            group_b = patches[0::2]
        elif self.config.partition == "random":
            assert self.permutation is not None
            places = self.permutation(len(patches))[: math.ceil(len(patches) / 2)]
            group_b = [patches[int(place)] for place in places]
        else:
            ranked = self.ranked(tokens, importance)
            group_b = reference.partition_b(ranked, self.config.partition)
            self._note_partition_gap([importance[token] for token in ranked])
        group_a = [token for token in patches if token not in group_b]
        return group_a, sorted(group_b)

    def closest(self, tokens: list[int], targets: list[int], count: int) -> dict[int, int]:
        """The `count` of `tokens` most similar to any of `targets`, and for each which it is."""
        if count == 0:
            return {}
        alike = {
            token: {
                target: reference.similarity(
                    self.features[token], self.features[target], self.config.metric
                )
                for target in targets
            }
            for token in tokens
        }
        ranked = sorted(tokens, key=lambda token: -max(alike[token].values()))
        self._note_gap([max(alike[token].values()) for token in ranked], count)
        for token in ranked[:count]:
            self._note_gap(sorted(alike[token].values(), reverse=True), 1)
        return {token: max(targets, key=lambda t: alike[token][t]) for token in ranked[:count]}
