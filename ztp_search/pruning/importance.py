"""How important tokens are: weighted PageRank on the attention graph, and the head filter.

Zero-TPrune (Wang, Dedhia, Jha, CVPR 2024). Pure tensor functions, leaf to whole. Letters in shapes:
B images, H heads, N tokens of the graph (prefix tokens first).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
    in_chunks = attention.device.type == "cpu" and not torch.compiler.is_exporting()
    if in_chunks and images > chunk:
        parts = [slice(first, first + chunk) for first in range(0, images, chunk)]
        masks = [None if alive is None else alive[part] for part in parts]
        return torch.cat(
            [
                wpr(attention[part], iterations, class_token=class_token, alive=mask)
                for part, mask in zip(parts, masks, strict=True)
            ]
        )
    attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
    if alive is None:  # the same for all images: an exported program has it as a constant
        start = attention.new_ones(1, n)
        left = attention.new_full((1,), float(n))
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
        if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
            # Without a copy of A: faster in ONNX Runtime, but it rounds in another order.
            row_sums = (attention @ mask.transpose(2, 3)).transpose(2, 3)  # (B, H, 1, N)
        else:
            row_sums = (attention * mask).sum(-1)[:, :, None, :]
        weights = mask / row_sums.clamp_min(torch.finfo(attention.dtype).tiny)
        for _ in range(iterations):
            scores = (scores * weights) @ attention
        scores = scores * mask
    scores = scores.squeeze(2)  # (B, H, N)
    # Rows of a bf16 A sum to 1 only nearly, and tokens may attend to pruned ones alone.
    return scores / scores.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


def head_variance(
    scores: Float[Tensor, "B H N"], patch_alive: Bool[Tensor, "#B N"]
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
