"""Random attention, features and pruning layers, which the scoring tests share."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from ztp_search.pruning.config import CHOICES, PruningConfig

EVERY_HEAD: dict[str, Any] = {"v_min": 0.0, "v_max": 1e6}  # no variance of n tokens exceeds n - 1
V_RANGES = [(0.0, 1e6), (0.01, 12.5), (0.05, 0.4), (0.3, 1.0), (50.0, 60.0)]


def random_case(
    seed: int, images: int, heads: int, tokens: int, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Attention (B, H, N, N), rows summing to 1, and features (B, N, F), in float64.

    Some tokens are looked at more than others, more so the larger `sharpness`.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (images, heads, tokens, tokens)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    liked = torch.randn((images, heads, 1, tokens), generator=generator, dtype=torch.float64)
    features = torch.randn((images, tokens, 5), generator=generator, dtype=torch.float64)
    return (sharpness * (noise + liked)).softmax(dim=-1), features


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """A pruning layer of any kind on three images: its case, config and arguments."""
    prefix = draw(st.sampled_from([0, 1, 2, 5]))
    patches = draw(st.integers(1, 21))
    order = draw(st.sampled_from(CHOICES["order"]))
    if order == "i-s":
        after_i = draw(st.integers(1, patches))
        s_tokens = draw(st.integers(0, after_i // 2))
        kept = after_i - s_tokens
    else:
        s_tokens = draw(st.integers(0, patches // 2))
        kept = draw(st.integers(1, patches - s_tokens))
    names: dict[str, Any] = {
        name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items() if name != "order"
    }
    v_min, v_max = draw(st.sampled_from(V_RANGES))
    return {
        "case": random_case(
            draw(st.integers(0, 2**31)), images=3, heads=draw(st.integers(1, 4)),
            tokens=prefix + patches, sharpness=draw(st.sampled_from([0.02, 0.5, 1.0, 2.0, 5.0])),
        ),
        "config": PruningConfig(order=order, v_min=v_min, v_max=v_max, **names),
        "layer": {
            "prefix_tokens": prefix, "class_token": prefix > 0 and draw(st.booleans()),
            "s_tokens": s_tokens, "kept": kept, "wpr_iterations": draw(st.integers(1, 8)),
        },
    }  # fmt: skip
