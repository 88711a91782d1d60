"""ToMe as its paper says it, one image at a time, for vision transformers with a class token.

Source: Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster",
ICLR 2023 (arXiv 2210.09461), section 3.

Three deviations, which are this project's: tokens are merged after the block instead of between
its attention and its MLP, so that the last block merges nothing; the keys are compared with all
heads side by side instead of their mean over heads; and what is left stays in the order of the
image instead of A before B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn.functional import cosine_similarity


@dataclass
class Token:
    """A vector (C,), and the tokens of the first sequence that it stands for, its own first."""

    vector: Tensor
    stands_for: list[int]


def forward(
    model: VisionTransformer, image: Tensor, r: int
) -> tuple[Tensor, list[dict[int, list[int]]]]:
    """The logits of one image (3, height, width), `r` tokens merged after every block.

    Also, after each block but the last, which tokens of the first sequence each token stands for.
    """
    embedded = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]
    tokens = [Token(vector, [place]) for place, vector in enumerate(embedded)]
    history = []
    for block in model.blocks:
        vectors = torch.stack([token.vector for token in tokens])
        attended, keys = proportional_attention(block.attn, block.norm1(vectors), tokens)
        vectors = vectors + block.ls1(attended)
        vectors = vectors + block.ls2(block.mlp(block.norm2(vectors)))
        tokens = [
            Token(vector, token.stands_for) for vector, token in zip(vectors, tokens, strict=True)
        ]
        if block is not model.blocks[-1]:
            tokens = bipartite_soft_matching(tokens, keys, r)
            history.append({token.stands_for[0]: token.stands_for for token in tokens})
    last = torch.stack([token.vector for token in tokens])
    return model.forward_head(model.norm(last[None]))[0], history


def proportional_attention(attn: Any, x: Tensor, tokens: list[Token]) -> tuple[Tensor, Tensor]:
    """Equation 1, softmax(Q K^T / sqrt(d) + log s); also the keys, heads side by side: (N, C)."""
    size = torch.tensor([len(token.stands_for) for token in tokens], dtype=x.dtype)
    qkv = attn.qkv(x).unflatten(-1, (3, attn.num_heads, attn.head_dim))  # (N, 3, H, d)
    q, k, v = attn.q_norm(qkv[:, 0]), attn.k_norm(qkv[:, 1]), qkv[:, 2]
    logits = torch.einsum("ihd,jhd->hij", q, k) / attn.head_dim**0.5
    mixed = torch.einsum("hij,jhd->ihd", torch.softmax(logits + size.log(), dim=-1), v)
    return attn.proj(attn.norm(mixed.flatten(1))), k.flatten(1)


def bipartite_soft_matching(tokens: list[Token], keys: Tensor, r: int) -> list[Token]:
    """Merge `r` tokens, or half of those that may be merged where that is fewer.

    The sets alternate along the sequence. The class token is the first one of A, and stays.
    """
    a, b = range(0, len(tokens), 2), range(1, len(tokens), 2)
    edges = []
    for i in a[1:]:
        weight, j = max((float(cosine_similarity(keys[i], keys[j], dim=0)), j) for j in b)
        edges.append((weight, i, j))
    strongest = sorted(edges, reverse=True)[:r]
    partners: dict[int, list[int]] = {j: [] for j in b}
    for _, i, j in strongest:
        partners[j].append(i)
    gone = {i for _, i, _ in strongest}
    return [
        average([token, *(tokens[i] for i in partners.get(place, []))])
        for place, token in enumerate(tokens)
        if place not in gone
    ]


def average(connected: list[Token]) -> Token:
    """One token in the place of the first, each counting as often as it stands for others."""
    sizes = [len(token.stands_for) for token in connected]
    weighted = [size * token.vector for size, token in zip(sizes, connected, strict=True)]
    stands_for = [place for token in connected for place in token.stands_for]
    return Token(torch.stack(weighted).sum(dim=0) / sum(sizes), stands_for)
