"""Merging between attention and MLP, as ToMe does, against merging behind the block, as here.

    python benchmarks/before_mlp.py [--spaces digits ztp-runs/photographs/photographs.yaml]
                                    [--budgets 35% 50%] [--images 2000]

Hand-set schedules of r tokens a block at the same GFLOPs (within one token), constant and
declining, by every partition and feature; bf16, on search images. The forward is written out here
for both, so that nothing else differs: what the library runs is behind the block alone. Where the
merge comes first, the block's MLP runs on fewer tokens, so fewer need be merged for the budget.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CACHE, record
from torch import Tensor

from ztp_search import SearchSettings
from ztp_search.backbones import pruner_of
from ztp_search.backbones.loading import load_model
from ztp_search.data import normalise
from ztp_search.driver.evaluator import decode_images
from ztp_search.driver.progress import Progress
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.merging import merge_tokens, take_tokens
from ztp_search.pruning.schedules import R_UNIT, TOME, tome_with
from ztp_search.pruning.scoring import prune_tokens
from ztp_search.settings import resolve_search

KINDS = [
    ("position", "key"), ("position", "x"), ("alternate", "x"), ("sequential-u", "x"),
]  # fmt: skip
BATCH_SIZE = 125


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spaces", nargs="+",
                        default=["digits", "ztp-runs/photographs/photographs.yaml"])
    parser.add_argument("--budgets", nargs="+", default=["35%", "50%"])
    parser.add_argument("--images", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for space in args.spaces:
        with torch.inference_mode():
            rows += measured(space, args.budgets, args.images)
    record("before_mlp", {"arguments": vars(args), "rows": rows})


def measured(space: str, budgets: list[str], images: int) -> list[dict[str, Any]]:
    settings = SearchSettings(
        space=space, budget=budgets, images=images, holdout=1, out=CACHE / "before_mlp"
    )
    sources = resolve_search(settings).sources
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    search = decode_images(sources, loaded, Progress()).search
    pixels = torch.from_numpy(np.load(Path(search.path) / "images.npy"))
    labels = np.load(Path(search.path) / "labels.npy")
    model = loaded.model.to(torch.bfloat16).eval()
    config = loaded.data_config
    batches = [
        normalise(pixels[first : first + BATCH_SIZE], config["mean"], config["std"]).bfloat16()
        for first in range(0, len(pixels), BATCH_SIZE)
    ]
    pruner = pruner_of(model)
    geometry = pruner.geometry
    unpruned = probabilities([pruner.model(batch) for batch in batches])
    rows = []
    for budget in budgets:
        macs = parse_budget(budget, geometry).macs
        for partition, features in KINDS:
            config_ = replace(TOME, partition=partition, features=features)
            for shape in ("constant", "declining"):
                for first in (False, True):
                    counts = solved(geometry, shape, macs, first)
                    logits = [forward(pruner, batch, counts, config_, first) for batch in batches]
                    found = probabilities(logits)
                    row = {
                        "space": Path(space).stem, "budget": budget, "partition": partition,
                        "features": features, "shape": shape, "before_mlp": first,
                        "of_budget": macs_of(geometry, counts, first) / macs,
                        "unpruned": float((unpruned.argmax(1) == labels).mean()),
                        "top1": float((found.argmax(1) == labels).mean()),
                        "total_variation": float(np.abs(found - unpruned).sum(1).mean() / 2),
                    }  # fmt: skip
                    print(row, flush=True)
                    rows.append(row)
    return rows


def probabilities(logits: list[Tensor]) -> np.ndarray[Any, Any]:
    return torch.cat(logits).float().softmax(-1).numpy()


def solved(geometry: Geometry, shape: str, macs: int, before_mlp: bool) -> list[int]:
    """The fewest tokens merged in each block that keep the budget."""
    low, high = 0, geometry.patch_tokens * R_UNIT
    while low < high:
        middle = (low + high) // 2
        fits = macs_of(geometry, counts_of(geometry, shape, middle), before_mlp) <= macs
        low, high = (low, middle) if fits else (middle + 1, high)
    return counts_of(geometry, shape, high)


def counts_of(geometry: Geometry, shape: str, r: int) -> list[int]:
    layers = {layer.after_block: layer.s_tokens for layer in tome_with(geometry, shape, r).layers}
    return [layers.get(block, 0) for block in range(1, geometry.depth + 1)]


def macs_of(geometry: Geometry, counts: list[int], before_mlp: bool) -> int:
    """By hand, of blocks with one q, k, v and output projection and LayerNorms; without WPR."""
    width = geometry.embed_dim
    attention = 4 * width * width + 5 * width  # per token, with its norm
    mlp = geometry.block_macs_per_token - attention
    macs = geometry.stem_macs + geometry.tail_macs
    n = geometry.patch_tokens
    for r in counts:
        tokens, left = n + geometry.prefix_tokens, n - r + geometry.prefix_tokens
        macs += tokens * (attention + geometry.block_macs_per_pair * tokens)
        macs += (left if before_mlp else tokens) * mlp
        if r:
            macs += (n // 2) * (n - n // 2) * width + r * left * width
        n -= r
    return macs + geometry.tail_macs_per_token * (n + geometry.prefix_tokens)


def forward(
    pruner: Any, images: Tensor, counts: list[int], config: PruningConfig, before_mlp: bool
) -> Tensor:
    """Logits, merging so many tokens in each block."""
    x = pruner.backbone.stem(images)
    sizes = torch.ones(x.shape[:2])
    for block, r in zip(pruner.model.blocks, counts, strict=True):
        attn, (b, n, _) = block.attn, x.shape
        qkv = attn.qkv(block.norm1(x)).reshape(b, n, 3, attn.num_heads, attn.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, d)
        logits = (q * attn.scale) @ k.transpose(-2, -1) + sizes.log()[:, None, None, :].to(x.dtype)
        attention = logits.softmax(-1)
        x = x + attn.proj((attention @ v).transpose(1, 2).reshape(b, n, -1))
        keys = k.transpose(1, 2).flatten(2)
        if r and before_mlp:
            x, sizes = merged(pruner, x, sizes, attention, keys, r, config)
        x = x + block.mlp(block.norm2(x))
        if r and not before_mlp:
            x, sizes = merged(pruner, x, sizes, attention, keys, r, config)
    out: Tensor = pruner.backbone.head(x)
    return out


def merged(
    pruner: Any, x: Tensor, sizes: Tensor, attention: Tensor, keys: Tensor, r: int,
    config: PruningConfig,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    geometry = pruner.geometry
    kept = prune_tokens(
        attention, keys if config.features == "key" else x, config,
        prefix_tokens=geometry.prefix_tokens, class_token=geometry.class_token, s_tokens=r,
        kept=x.shape[1] - geometry.prefix_tokens - r, wpr_iterations=1,
    )  # fmt: skip
    assert kept.merged is not None
    return merge_tokens(
        take_tokens(x, kept.layer), sizes.gather(1, kept.layer),
        take_tokens(x, kept.merged.tokens), sizes.gather(1, kept.merged.tokens), kept.merged.into,
    )  # fmt: skip


if __name__ == "__main__":
    main()
