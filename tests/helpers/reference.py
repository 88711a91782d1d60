"""Zero-TPrune's pruning layer, slowly: one image at a time, numpy float64, written as the
equations read. The fast tensor code is tested against this; nothing here is imported from it.

Attention is (H, N, N) with rows that sum to 1, features are (N, F); token 0 is the class token
where there is one, and the first `prefix` tokens are never pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Permutation = Callable[[int], Sequence[int]]


@dataclass
class Kept:
    """What one image keeps; `gap` is the smallest relative distance between what was kept and
    what was not, over every decision taken: how far the result is from a tie. `importance` is that
    of the tokens that the last stage ranked; empty where none was."""

    after_s: list[int]
    after_i: list[int]
    fallback: bool
    gap: float
    importance: dict[int, float]


def prune_tokens(
    attention: Array,
    features: Array,
    config: Any,
    *,
    prefix_tokens: int,
    class_token: bool,
    s_tokens: int,
    kept: int,
    wpr_iterations: int,
    permutation: Permutation | None = None,
) -> Kept:
    """The whole pruning layer; `kept` patch tokens are left in the end."""
    layer = _Layer(attention, features, config, prefix_tokens, class_token, permutation)
    everything = list(range(attention.shape[1]))
    patches = len(everything) - prefix_tokens
    i_stage = kept < patches - s_tokens
    importance: dict[int, float] = {}
    if config.order == "i'-s-i":
        after_s = everything
        if s_tokens > 0:
            importance = layer.pre_ranking(everything)
            after_s = layer.prune_similar(everything, importance, s_tokens)
        after_i = after_s
        if i_stage:
            importance = layer.importance(after_s, wpr_iterations)
            after_i = layer.keep_important(after_s, importance, kept)
    else:
        after_i = everything
        if i_stage:
            importance = layer.importance(everything, wpr_iterations)
            after_i = layer.keep_important(everything, importance, kept + s_tokens)
        after_s = after_i
        if s_tokens > 0:
            if not i_stage:
                importance = layer.pre_ranking(everything)
            after_s = layer.prune_similar(after_i, importance, s_tokens)
    return Kept(after_s, after_i, layer.fallback, layer.gap, importance)


class _Layer:
    def __init__(
        self,
        attention: Array,
        features: Array,
        config: Any,
        prefix: int,
        class_token: bool,
        permutation: Permutation | None,
    ) -> None:
        self.attention = np.asarray(attention, dtype=np.float64)
        self.features = np.asarray(features, dtype=np.float64)
        self.config = config
        self.prefix = prefix
        self.class_start = class_token and config.variant == "zero-tprune"
        self.permutation = permutation
        self.fallback = False
        self.gap = math.inf

    def pre_ranking(self, tokens: list[int]) -> dict[int, float]:
        """I'-stage: what the S-stage ranks tokens by; nothing where it goes by position."""
        return {} if self.config.partition == "position" else self.importance(tokens, 1)

    def importance(self, tokens: list[int], iterations: int) -> dict[int, float]:
        """The score of each of `tokens`, which alone make up the graph."""
        graph = self.attention[:, tokens][:, :, tokens]
        scores = wpr(graph, iterations, class_token=self.class_start)
        patches = [place for place, token in enumerate(tokens) if token >= self.prefix]
        counted = []
        for variance in head_variance(scores, patches):
            counted.append(self.config.v_min <= variance <= self.config.v_max)
        if not any(counted):
            self.fallback = True
            counted = [True] * len(counted)
        combined = aggregate(scores, counted, self.config.aggregation)
        return {token: combined[place] for place, token in enumerate(tokens)}

    def keep_important(
        self, tokens: list[int], importance: dict[int, float], kept: int
    ) -> list[int]:
        """I-stage: the prefix and the `kept` most important patch tokens, in sequence order."""
        ranked = self.ranked(tokens, importance)
        self._note_gap([importance[token] for token in ranked], kept)
        return [token for token in tokens if token < self.prefix or token in ranked[:kept]]

    def prune_similar(
        self, tokens: list[int], importance: dict[int, float], s_tokens: int
    ) -> list[int]:
        """S-stage: drop the `s_tokens` tokens of A that are most similar to a token of B."""
        in_sequence = [token for token in tokens if token >= self.prefix]
        n = len(in_sequence)
        if self.config.partition == "random":
            assert self.permutation is not None
            order = [int(place) for place in self.permutation(n)]
            group_b = [in_sequence[place] for place in order[: math.ceil(n / 2)]]
        elif self.config.partition == "position":
            group_b = in_sequence[0::2]  # the first, third, fifth, … of those that are left
        else:
            ranked = self.ranked(tokens, importance)
            group_b = partition_b(ranked, self.config.partition)
            self._note_partition_gap([importance[token] for token in ranked])
        group_a = [token for token in in_sequence if token not in group_b]

        best: dict[int, float] = {}
        for a in group_a:
            best[a] = max(
                similarity(self.features[a], self.features[b], self.config.metric)
                for b in group_b
            )
        closest = sorted(sorted(group_a), key=lambda token: -best[token])
        self._note_gap([best[token] for token in closest], s_tokens)
        return [token for token in tokens if token not in closest[:s_tokens]]

    def ranked(self, tokens: list[int], importance: dict[int, float]) -> list[int]:
        """Patch tokens by falling importance; `sorted` is stable, so a tie goes to the earlier."""
        patches = [token for token in tokens if token >= self.prefix]
        return sorted(patches, key=lambda token: -importance[token])

    def _note_partition_gap(self, falling: list[float]) -> None:
        n = len(falling)
        cuts = {
            "sequential-u": [math.ceil(n / 2)],
            "sequential-i": [n // 2],
            "alternate": range(1, n),
        }
        for cut in cuts[self.config.partition]:
            self._note_gap(falling, cut)

    def _note_gap(self, falling: list[float], cut: int) -> None:
        if 0 < cut < len(falling):
            above, below = falling[cut - 1], falling[cut]
            scale = max(abs(above), abs(below), 1e-300)
            self.gap = min(self.gap, (above - below) / scale)


def wpr(attention: Array, iterations: int, *, class_token: bool) -> Array:
    """Weighted PageRank on a whole graph, per head: (H, N). Rows are made to sum to 1 first."""
    heads, n, _ = attention.shape
    out = np.zeros((heads, n))
    for h in range(heads):
        rows = [attention[h, i] / attention[h, i].sum() for i in range(n)]
        score = start(n, class_token)
        for _ in range(iterations):
            new = np.zeros(n)
            for i in range(n):  # token i gives its score away as its attention is spread
                new += rows[i] * score[i]
            score = new
        out[h] = score
    return out


def start(n: int, class_token: bool) -> Array:
    """A distribution over n tokens: the class token has sqrt(n) times another one's share."""
    score: Array = np.ones(n)
    if class_token:
        score[0] = math.sqrt(n)
    total: float = score.sum()
    return score / total


def head_variance(scores: Array, patches: Sequence[int]) -> list[float]:
    """Per head, the population variance of patch scores scaled to mean 1."""
    out = []
    for head in scores:
        x = np.array([head[place] for place in patches])
        x = x / (sum(x) / len(x))
        out.append(float(sum((value - 1.0) ** 2 for value in x) / len(x)))
    return out


def aggregate(scores: Array, counted: Sequence[bool], how: str) -> Array:
    """One score per token from the heads that count: (N,)."""
    chosen = [head for head, counts in zip(scores, counted, strict=True) if counts]
    out = np.zeros(scores.shape[1])
    for i in range(len(out)):
        values = [head[i] for head in chosen]
        if how == "eir":
            out[i] = math.sqrt(sum(value * value for value in values) / len(values))
        elif how == "mean":
            out[i] = sum(values) / len(values)
        elif how == "max":
            out[i] = max(values)
        else:
            raise ValueError(how)
    return out


def partition_b(ranked: list[int], how: str) -> list[int]:
    """Group B of tokens that come sorted by falling importance; the others are group A."""
    n = len(ranked)
    if how == "sequential-u":
        return ranked[: math.ceil(n / 2)]
    if how == "sequential-i":
        return ranked[n // 2 :]
    if how == "alternate":
        return ranked[0::2]
    raise ValueError(how)


def similarity(a: Array, b: Array, metric: str) -> float:
    """How alike two feature vectors are; larger is more alike."""
    if metric == "cosine":
        return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))
    if metric == "euclidean":
        return -math.sqrt(float(((a - b) ** 2).sum()))
    if metric == "manhattan":
        return -float(np.abs(a - b).sum())
    raise ValueError(metric)


def round_half_up(retention: float, n: int) -> int:
    """retention * n in decimal, as a person would write it, halves up."""
    product = Decimal(repr(retention)) * n
    return int(product.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def patch_tokens_kept(n: int, retention: float, s_tokens: int) -> int:
    """What leaves a pruning layer that n patch tokens enter."""
    return max(1, round_half_up(retention, n) - s_tokens)


def token_counts(depth: int, patches: int, prefix: int, config: Any) -> tuple[int, ...]:
    """Tokens that each block computes on, and what leaves the last."""
    counts = [patches + prefix]
    for block in range(1, depth + 1):
        for layer in config.layers:
            if layer.after_block == block:
                patches = patch_tokens_kept(patches, layer.retention, layer.s_tokens)
        counts.append(patches + prefix)
    return tuple(counts)
