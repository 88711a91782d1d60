"""Tokens that take others in: weighted means, and how many patches a token stands for.

As ToMe (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023) does it; which tokens are
merged into which is `scoring`'s. Letters in shapes: B images, N tokens that come in, K kept ones,
M merged ones, D width of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Merged:
    """The tokens that a pruning layer merged into others.

    Attributes:
        tokens: their positions, (B, M).
        into: the place among the kept tokens (prefix included) of the one that each ended in,
            (B, M); -1 where that one was dropped in the end.
    """

    tokens: Int[Tensor, "B M"]
    into: Int[Tensor, "B M"]


def take_tokens(
    x: Float[Tensor, "B N F"], positions: Int[Tensor, "B K"]
) -> Float[Tensor, "B K F"]:
    """The tokens at these positions, image by image (whole rows: faster than gather)."""
    images, n, width = x.shape
    first = torch.arange(images, device=x.device)[:, None] * n  # times n: exports know no such step
    rows = x.reshape(images * n, width).index_select(0, (positions + first).flatten())
    return rows.view(images, -1, width)


def merge_tokens(
    kept: Float[Tensor, "B K D"],
    kept_sizes: Float[Tensor, "#B K"],
    merged: Float[Tensor, "B M D"],
    merged_sizes: Float[Tensor, "#B M"],
    into: Int[Tensor, "B M"],
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K"]]:
    """Means of the kept tokens with what was merged into them, weighted by sizes; the new sizes.

    x_k <- (m_k x_k + sum_j m_j x_j) / (m_k + sum_j m_j) over the j that go into k. The weights are
    normalised before anything is added, so no half-precision sum overflows, and a token that takes
    nothing in stays as it is to the bit. The sums are one matrix product, K M D multiply-adds per
    image: a scatter would add in any order on a GPU.

    Args:
        kept, kept_sizes: the kept tokens, and how many patches each stands for.
        merged, merged_sizes: those that go into them.
        into: where to (`Merged.into`).
    """
    dtype = torch.promote_types(kept.dtype, kept_sizes.dtype)
    places = torch.arange(kept.shape[1], device=kept.device)[None, :, None]  # (1, K, 1)
    weights = (into[:, None, :] == places) * merged_sizes[:, None, :].to(dtype)  # (B, K, M)
    sizes = kept_sizes + weights.sum(-1)  # (B, K)
    weights = (weights / sizes[..., None]).to(kept.dtype)
    own = (kept_sizes / sizes)[..., None].to(kept.dtype)  # (B, K, 1)
    with torch.autocast(kept.device.type, enabled=False):
        return kept * own + weights @ merged, sizes
