"""Which tokens to keep, and which of the others go into them. Pure tensor functions.

The stages are Zero-TPrune's (Wang, Dedhia, Jha, CVPR 2024). `importance` ranks tokens, and what
becomes of a token that others go into is in `merging`. Leaf to whole; `prune_tokens` is one pruning
layer.

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
from ztp_search.pruning.importance import aggregate, counted_heads, head_variance, wpr
from ztp_search.pruning.merging import Merged, take_tokens
from ztp_search.pruning.rounding import round_half_up


def partition(
    importance: Float[Tensor, "B P"], how: str
) -> tuple[Int[Tensor, "B A"], Int[Tensor, "B C"]]:
    """Positions of the half A that may lose tokens and of the half B it is compared with.

    An odd count gives B the extra one. Ties: the lower index counts as more important. "random"
    and "position" (every other token goes to A, as in ToMe) do not look at the importance.
    """
    images, n = importance.shape
    a_size = n // 2
    if how == "random":
        fixed = torch.from_numpy(random_permutation(int(n)))
        fixed = fixed.to(importance.device, non_blocking=True)  # the copy waits for no GPU
        order = fixed.expand(images, -1)
    elif how == "position":
        order = torch.arange(n, device=importance.device).expand(images, -1)
    else:
        order = descending(importance)
    if how in ("alternate", "position"):
        return order[:, 1::2], order[:, 0::2]
    if how == "sequential-i":
        return order[:, :a_size], order[:, a_size:]
    return order[:, n - a_size :], order[:, : n - a_size]


def descending(values: Float[Tensor, "B N"], first: int | None = None) -> Int[Tensor, "B K"]:
    """Positions from the greatest value to the least; of equal ones the lower comes first.

    Exported programs know no stable sort: in them equal values come as the runtime likes.

    Args:
        values: what is sorted.
        first: how many positions are wanted; None: all.
    """
    if torch.compiler.is_exporting():
        return values.topk(values.shape[-1] if first is None else first, dim=-1).indices
    return values.argsort(dim=-1, descending=True, stable=True)[:, :first]


def alive_positions(alive: Bool[Tensor, "B N"], count: int) -> Int[Tensor, "B K"]:
    """Ascending positions of the tokens that are alive, as many as there are in each image."""
    if torch.compiler.is_exporting():  # none are equal, so that any sort will do
        n = alive.shape[-1]
        later = torch.arange(n, device=alive.device) / (2 * n)
        return descending(alive.to(torch.float32) - later, count)
    return alive.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :count]


@lru_cache(maxsize=1024)
def random_permutation(n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The fixed permutation of the `random` partition: the same for every image and run."""
    return np.random.default_rng(n).permutation(n)


def best_match(
    a: Float[Tensor, "B A F"], b: Float[Tensor, "B C F"], metric: str
) -> tuple[Float[Tensor, "B A"], Int[Tensor, "B A"]]:
    """For each token of A how similar its most similar token of B is, and which that is.

    Greater is more alike.
    """
    if metric == "cosine":
        similarity, match = (_directions(a) @ _directions(b).transpose(1, 2)).max(-1)
        return similarity, match
    if metric == "euclidean":
        squares = b.square().sum(-1)[:, None, :] - 2.0 * (a @ b.transpose(1, 2))
        least, match = squares.min(-1)
        return -(least + a.square().sum(-1)), match
    if torch.compiler.is_exporting():  # cdist is no operator of ONNX
        distance = (a[:, :, None] - b[:, None]).abs().sum(-1)
    else:
        distance = torch.cdist(a, b, p=1.0)
    least, match = distance.min(-1)
    return -least, match


def _directions(x: Float[Tensor, "B N F"]) -> Float[Tensor, "B N F"]:
    """Each row over its length: `normalize`, without its copies of lengths in exported programs."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / lengths.clamp_min(1e-12)


@dataclass(frozen=True, slots=True)
class Kept:
    """What one pruning layer leaves: ascending token positions, prefix included.

    Attributes:
        after_s, after_i: what is left once that stage is done; the later stage's is what the
            layer leaves, (B, prefix + kept).
        layer: the latter.
        fallback: (B,) images for which the head filter left no head at some stage.
        merged: which of the others went into which of those left; None where none is merged.
        importance: of every token that came in, (B, N), as the last stage that ranked any saw it:
            0 where an earlier stage had taken it out; None where no stage ranked any.
    """

    after_s: Int[Tensor, "B S"]
    after_i: Int[Tensor, "B I"]
    layer: Int[Tensor, "B K"]
    fallback: Bool[Tensor, B]
    merged: Merged | None = None
    importance: Float[Tensor, "B N"] | None = None


def prune_tokens(
    attention: Float[Tensor, "B H N N"] | None,
    features: Float[Tensor, "B N F"] | None,
    config: PruningConfig,
    *,
    prefix_tokens: int,
    class_token: bool,
    s_tokens: int,
    kept: int,
    wpr_iterations: int,
    merge_share: float = 0.0,
) -> Kept:
    """One pruning layer: I', S and I-stage (or I, then S), on one block's attention.

    attention: may be None where no stage ranks tokens (partition "position", no I-stage).
    features: what tokens are compared by; may be None where s_tokens and merge_share are 0.
    kept: patch tokens that leave the layer (of `tokens.token_counts`).
    """
    graph = _Graph(attention, features, config, prefix_tokens, class_token)
    n = graph.tokens - prefix_tokens
    i_stage = kept < n - s_tokens
    if config.order == "i'-s-i":
        if s_tokens:
            graph.similarity_stage(graph.pre_ranking(), n, s_tokens)
        after_s = graph.positions(n - s_tokens)
        if i_stage:
            importance = graph.importance(wpr_iterations)
            graph.importance_stage(importance, n - s_tokens, kept, merge_share)
        after_i = graph.positions(kept)
        return Kept(after_s, after_i, after_i, graph.fallback, graph.merged(), graph.scores)
    ranking = graph.importance(wpr_iterations) if i_stage else None
    if ranking is not None:
        graph.importance_stage(ranking, n, kept + s_tokens, merge_share)
    after_i = graph.positions(kept + s_tokens)
    if s_tokens:
        ranking = graph.pre_ranking() if ranking is None else ranking
        graph.similarity_stage(ranking, kept + s_tokens, s_tokens)
    after_s = graph.positions(kept)
    return Kept(after_s, after_i, after_s, graph.fallback, graph.merged(), graph.scores)


class _Graph:
    """The graph of one pruning layer while its stages take tokens out of it."""

    def __init__(
        self,
        attention: Tensor | None,
        features: Tensor | None,
        config: PruningConfig,
        prefix_tokens: int,
        class_token: bool,
    ) -> None:
        seen = attention if features is None else features
        assert seen is not None, "a layer that prunes looks at something"
        self.images, self.tokens, self.device = seen.shape[0], seen.shape[-2], seen.device
        self.attention = attention
        self.features = features
        self.config = config
        self.prefix = prefix_tokens
        self.class_token = class_token and config.variant == "zero-tprune"
        self.alive: Tensor | None = None  # (B, N), None while nothing is pruned
        self._positions: Tensor | None = None  # (B, alive tokens), once they are asked for
        self._places = torch.arange(self.tokens, device=self.device)[None]  # (1, N)
        self.patches = self._places >= prefix_tokens  # (B, N), patch tokens alive; (1, N) at first
        self.fallback = torch.zeros(self.images, dtype=torch.bool, device=self.device)
        self.moves: list[tuple[Tensor, Tensor]] = []  # by stage: tokens and their matches, (B, M)
        self.scores: Tensor | None = None  # (B, N), the importances that were computed last

    def pre_ranking(self) -> Tensor:
        """What the S-stage ranks all tokens by, (B, P): one iteration, or nothing at all."""
        if self.config.partition == "position":
            return torch.zeros(self.images, self.tokens - self.prefix, device=self.device)
        return self.importance(1)

    def importance(self, iterations: int) -> Tensor:
        """Importance of every patch token, (B, P); 0 where it is pruned already."""
        config = self.config
        assert self.attention is not None
        scores = wpr(
            self.attention, iterations, class_token=self.class_token, alive=self.alive
        )  # (B, H, N)
        variance = head_variance(scores, self.patches)
        heads, fallback = counted_heads(variance, config.v_min, config.v_max)
        self.fallback = self.fallback | fallback
        self.scores = aggregate(scores, heads, config.aggregation)  # (B, N)
        return self.scores[:, self.prefix :]

    def similarity_stage(self, importance: Tensor, ranked: int, s_tokens: int) -> None:
        """Prune the s_tokens of the less important half that have the closest match."""
        if self.alive is None:  # (B, ranked), as they are
            a, b = (half + self.prefix for half in partition(importance, self.config.partition))
        else:
            positions = self.positions(ranked)[:, self.prefix :]  # (B, ranked)
            ranks = importance.gather(1, positions - self.prefix)
            a, b = (positions.gather(1, half) for half in partition(ranks, self.config.partition))
        pruned, matches = self._closest(a, b, s_tokens)
        if self.config.similar == "merge":
            self.moves.append((pruned, matches))
        self._prune(pruned)

    def importance_stage(
        self, importance: Tensor, ranked: int, kept: int, merge_share: float
    ) -> None:
        """Prune all but the `kept` most important of the `ranked` patch tokens that are alive."""
        alive = self.patches[:, self.prefix :]
        masked = importance.masked_fill(~alive, -math.inf)
        order = descending(masked) + self.prefix
        merge = round_half_up(merge_share * (ranked - kept))
        if merge:
            self.moves.append(self._closest(order[:, kept:ranked], order[:, :kept], merge))
        self._prune(order[:, kept:])

    def merged(self) -> Merged | None:
        """Where the tokens that were merged have ended."""
        if not self.moves:
            return None
        assert self.alive is not None
        tokens = torch.cat([pruned for pruned, _ in self.moves], dim=1)  # (B, M)
        ends = torch.cat([matches for _, matches in self.moves], dim=1)
        if len(self.moves) == 2:  # what a token has taken in goes along with it
            place = self._places.expand(self.images, -1)
            ends = place.scatter(1, *self.moves[1]).gather(1, ends)
        order = self.alive.to(torch.int64).cumsum(1) - 1  # (B, N): its place among those kept
        return Merged(tokens, order.masked_fill(~self.alive, -1).gather(1, ends))

    def positions(self, patches: int) -> Tensor:
        """Ascending positions of the alive tokens, (B, prefix + patches)."""
        if self.alive is None:
            return self._places.expand(self.images, -1)
        if self._positions is None:
            self._positions = alive_positions(self.alive, self.prefix + patches)
        return self._positions

    def _closest(self, a: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` tokens of A with the closest match in B, and their matches, (B, count)."""
        assert self.features is not None
        dtype = torch.promote_types(self.features.dtype, torch.float32)
        similarity, match = best_match(
            take_tokens(self.features, a).to(dtype), take_tokens(self.features, b).to(dtype),
            self.config.metric,
        )  # fmt: skip
        closest = descending(similarity, count)
        return a.gather(1, closest), b.gather(1, match.gather(1, closest))

    def _prune(self, tokens: Tensor) -> None:
        patches = self.patches.expand(self.images, -1)
        self.patches = patches.scatter(1, tokens, torch.zeros_like(tokens, dtype=torch.bool))
        self.alive = self.patches | (self._places < self.prefix)
        self._positions = None
