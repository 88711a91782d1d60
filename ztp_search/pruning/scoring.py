"""Which tokens to keep: weighted PageRank, head filter, similarity. Pure tensor functions.

Zero-TPrune (Wang, Dedhia, Jha, CVPR 2024). Leaf to whole; `prune_tokens` is one pruning layer.

Letters in shapes: B images, H heads, N tokens of the graph (prefix tokens first), P patch tokens,
F feature width. Nothing here waits for the device, and every image is scored alone, so results
do not depend on what else is in a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ztp_search.pruning.config import PruningConfig

CPU_CHUNK_ELEMENTS = 1 << 18
"""On a CPU, as much of A at a time as a core's L2 cache holds while the iterations read it."""


def wpr(
    attention: Float[Tensor, "B H N N"],
    iterations: int,
    *,
    class_token: bool,
    alive: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N"]:
    """Scores after `iterations` of weighted PageRank, s <- A^T s (eq. 1, without its 1/N).

    A^T rather than A, since rows of A sum to 1; no 1/N, since that keeps the sum as it is and
    1/N at each step would underflow. `class_token` starts token 0 at sqrt(N) times another
    token's score (N: the tokens alive), else the start is uniform. With `alive`, this is WPR on
    the sub-matrix of those tokens with its rows renormalised: tokens are masked rather than cut
    out, because copying the sub-matrix takes longer than a dozen iterations.

    Returns scores that sum to 1 over the alive tokens and are 0 elsewhere, in float32 or better.
    """
    images, heads, n, _ = attention.shape
    chunk = max(1, CPU_CHUNK_ELEMENTS // (heads * n * n))
    if attention.device.type == "cpu" and images > chunk:
        parts = [slice(first, first + chunk) for first in range(0, images, chunk)]
        masks = [None if alive is None else alive[part] for part in parts]
        return torch.cat(
            [
                wpr(attention[part], iterations, class_token=class_token, alive=mask)
                for part, mask in zip(parts, masks, strict=True)
            ]
        )
    attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
    if alive is None:
        start = attention.new_ones(images, n)
        left = attention.new_full((images,), float(n))
    else:
        start = alive.to(attention.dtype)
        left = start.sum(-1)
    if class_token:
        start = torch.cat([left.sqrt()[:, None] * start[:, :1], start[:, 1:]], dim=-1)
    scores = (start / start.sum(-1, keepdim=True))[:, None, None, :]  # (B, 1, 1, N)
    scores = scores.expand(-1, attention.shape[1], -1, -1)  # (B, H, 1, N)
    if alive is None:
        for _ in range(iterations):
            scores = scores @ attention
    else:
        mask = alive[:, None, None, :].to(attention.dtype)  # (B, 1, 1, N)
        row_sums = (attention * mask).sum(-1)[:, :, None, :]  # (B, H, 1, N)
        weights = mask / row_sums.clamp_min(torch.finfo(attention.dtype).tiny)
        for _ in range(iterations):
            scores = (scores * weights) @ attention
        scores = scores * mask
    scores = scores.squeeze(2)  # (B, H, N)
    # Rows of a bf16 A sum to 1 only nearly, and tokens may attend to pruned ones alone.
    return scores / scores.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


def head_variance(
    scores: Float[Tensor, "B H N"], patch_alive: Bool[Tensor, "B N"]
) -> Float[Tensor, "B H"]:
    """Variance of each head's scores over the patch tokens, these scaled to mean 1.

    That is the squared coefficient of variation: free of scale, where the paper's [0.01, 0.7]
    cannot be the variance of scores that sum to 1.
    """
    mask = patch_alive[:, None, :].to(scores.dtype)  # (B, 1, N)
    count = mask.sum(-1)
    mean = (scores * mask).sum(-1) / count  # (B, H)
    relative = scores / mean.clamp_min(torch.finfo(scores.dtype).tiny)[..., None]
    return ((relative - 1.0).square() * mask).sum(-1) / count


def counted_heads(
    variance: Float[Tensor, "B H"], v_min: float, v_max: float
) -> tuple[Bool[Tensor, "B H"], Bool[Tensor, B]]:
    """The variance-based head filter: heads within [v_min, v_max], and where none was.

    An image of which no head is left counts all of them (the paper's formula is 0/0 there).
    """
    heads = (variance >= v_min) & (variance <= v_max)
    fallback = ~heads.any(-1)
    return heads | fallback[:, None], fallback


def aggregate(
    scores: Float[Tensor, "B H N"], heads: Bool[Tensor, "B H"], how: str
) -> Float[Tensor, "B N"]:
    """One importance per token from the counted heads: eir (eq. 4), mean or max.

    eir: sqrt(sum_h s_h^2 m_h / sum_h m_h), the emphasising importance region.
    """
    m = heads.to(scores.dtype)[..., None]  # (B, H, 1)
    if how == "max":
        return (scores * m).amax(1)  # scores are not negative
    if how == "mean":
        return (scores * m).sum(1) / m.sum(1)
    return ((scores.square() * m).sum(1) / m.sum(1)).sqrt()


def partition(
    importance: Float[Tensor, "B P"], how: str
) -> tuple[Int[Tensor, "B A"], Int[Tensor, "B C"]]:
    """Positions of the half A that may lose tokens and of the half B it is compared with.

    An odd count gives B the extra one. Ties: the lower index counts as more important.
    """
    images, n = importance.shape
    a_size = n // 2
    if how == "random":
        fixed = torch.from_numpy(random_permutation(int(n)))
        fixed = fixed.to(importance.device, non_blocking=True)  # the copy waits for no GPU
        order = fixed.expand(images, -1)
    else:
        order = importance.argsort(dim=-1, descending=True, stable=True)
    if how == "alternate":
        return order[:, 1::2], order[:, 0::2]
    if how == "sequential-i":
        return order[:, :a_size], order[:, a_size:]
    return order[:, n - a_size :], order[:, : n - a_size]


@lru_cache(maxsize=1024)
def random_permutation(n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The fixed permutation of the `random` partition: the same for every image and run."""
    return np.random.default_rng(n).permutation(n)


def best_match(
    a: Float[Tensor, "B A F"], b: Float[Tensor, "B C F"], metric: str
) -> Float[Tensor, "B A"]:
    """For each token of A how similar its most similar token of B is (greater is more alike)."""
    if metric == "cosine":
        a = torch.nn.functional.normalize(a, dim=-1)
        b = torch.nn.functional.normalize(b, dim=-1)
        return (a @ b.transpose(1, 2)).amax(-1)
    if metric == "euclidean":
        squares = b.square().sum(-1)[:, None, :] - 2.0 * (a @ b.transpose(1, 2))
        return -(squares.amin(-1) + a.square().sum(-1))
    return -torch.cdist(a, b, p=1.0).amin(-1)


def take_tokens(
    x: Float[Tensor, "B N F"], positions: Int[Tensor, "B K"]
) -> Float[Tensor, "B K F"]:
    """The tokens at these positions, image by image (whole rows: faster than gather)."""
    images, n, width = x.shape
    first = torch.arange(0, images * n, n, device=x.device)[:, None]
    rows = x.reshape(images * n, width).index_select(0, (positions + first).flatten())
    return rows.view(images, -1, width)


@dataclass(frozen=True, slots=True)
class Kept:
    """What one pruning layer leaves: ascending token positions, prefix included.

    after_s, after_i: what is left once that stage is done; the later stage's is what the layer
        leaves, (B, prefix + kept).
    layer: the latter.
    fallback: (B,) images for which the head filter left no head at some stage.
    """

    after_s: Int[Tensor, "B S"]
    after_i: Int[Tensor, "B I"]
    layer: Int[Tensor, "B K"]
    fallback: Bool[Tensor, B]


def prune_tokens(
    attention: Float[Tensor, "B H N N"],
    features: Float[Tensor, "B N F"] | None,
    config: PruningConfig,
    *,
    prefix_tokens: int,
    class_token: bool,
    s_tokens: int,
    kept: int,
    wpr_iterations: int,
) -> Kept:
    """One pruning layer: I', S and I-stage (or I, then S), on one block's attention.

    features: what the S-stage compares; may be None where s_tokens is 0.
    kept: patch tokens that leave the layer (of `tokens.token_counts`).
    """
    graph = _Graph(attention, config, prefix_tokens, class_token)
    n = attention.shape[-1] - prefix_tokens
    i_stage = kept < n - s_tokens
    if config.order == "i'-s-i":
        if s_tokens:
            assert features is not None
            graph.similarity_stage(graph.importance(1), features, n, s_tokens)
        after_s = graph.positions(n - s_tokens)
        if i_stage:
            graph.importance_stage(graph.importance(wpr_iterations), kept)
        after_i = graph.positions(kept)
        return Kept(after_s, after_i, after_i, graph.fallback)
    importance = graph.importance(wpr_iterations if i_stage else 1) if i_stage or s_tokens else None
    if i_stage:
        assert importance is not None
        graph.importance_stage(importance, kept + s_tokens)
    after_i = graph.positions(kept + s_tokens)
    if s_tokens:
        assert features is not None and importance is not None
        graph.similarity_stage(importance, features, kept + s_tokens, s_tokens)
    after_s = graph.positions(kept)
    return Kept(after_s, after_i, after_s, graph.fallback)


class _Graph:
    """The graph of one pruning layer while its stages take tokens out of it."""

    def __init__(
        self, attention: Tensor, config: PruningConfig, prefix_tokens: int, class_token: bool
    ) -> None:
        images, _, n, _ = attention.shape
        self.attention = attention
        self.config = config
        self.prefix = prefix_tokens
        self.class_token = class_token and config.variant == "zero-tprune"
        self.alive: Tensor | None = None  # (B, N), None while nothing is pruned
        self.patches = torch.ones(images, n, dtype=torch.bool, device=attention.device)
        self.patches[:, :prefix_tokens] = False  # (B, N), patch tokens that are alive
        self.fallback = torch.zeros(images, dtype=torch.bool, device=attention.device)

    def importance(self, iterations: int) -> Tensor:
        """Importance of every patch token, (B, P); 0 where it is pruned already."""
        config = self.config
        scores = wpr(
            self.attention, iterations, class_token=self.class_token, alive=self.alive
        )  # (B, H, N)
        variance = head_variance(scores, self.patches)
        heads, fallback = counted_heads(variance, config.v_min, config.v_max)
        self.fallback = self.fallback | fallback
        return aggregate(scores, heads, config.aggregation)[:, self.prefix :]

    def similarity_stage(
        self, importance: Tensor, features: Tensor, ranked: int, s_tokens: int
    ) -> None:
        """Prune the s_tokens of the less important half that have the closest match."""
        positions = self.positions(ranked)[:, self.prefix :]  # (B, ranked)
        a, b = partition(importance.gather(1, positions - self.prefix), self.config.partition)
        a, b = positions.gather(1, a), positions.gather(1, b)  # into the N tokens
        dtype = torch.promote_types(features.dtype, torch.float32)
        similarity = best_match(
            take_tokens(features, a).to(dtype), take_tokens(features, b).to(dtype),
            self.config.metric,
        )  # fmt: skip
        closest = similarity.argsort(dim=-1, descending=True, stable=True)[:, :s_tokens]
        self._prune(a.gather(1, closest))

    def importance_stage(self, importance: Tensor, kept: int) -> None:
        """Prune all but the `kept` most important of the patch tokens that are alive."""
        alive = self.patches[:, self.prefix :]
        ranked = importance.masked_fill(~alive, -math.inf)
        order = ranked.argsort(dim=-1, descending=True, stable=True)
        self._prune(order[:, kept:] + self.prefix)

    def positions(self, patches: int) -> Tensor:
        """Ascending positions of the alive tokens, (B, prefix + patches)."""
        images, n = self.patches.shape
        if self.alive is None:
            return torch.arange(n, device=self.patches.device).expand(images, -1)
        order = self.alive.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        return order[:, : self.prefix + patches]

    def _prune(self, tokens: Tensor) -> None:
        self.patches = self.patches.scatter(1, tokens, torch.zeros_like(tokens, dtype=torch.bool))
        self.alive = self.patches.clone()
        self.alive[:, : self.prefix] = True

