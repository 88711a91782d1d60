"""Train the embedded ViT from nothing: `python tools/train_digits.py --out FILE.safetensors`.

37 minutes on 2 CPU cores (bfloat16 instructions) shared with other work; needs torch 2.9 or later
for Muon. Where other work shares the cores, set OMP_WAIT_POLICY=PASSIVE: threads that spin while
they wait made it ten times slower. Three things make 288,000 scenes enough: for the first 60 % of
the steps every patch token also learns to name what it lies on (the target's class or nothing;
after "token labelling", Jiang et al., NeurIPS 2021), the scenes grow from clean to cluttered, and
the matrices are trained with Muon. The patch labels fade and their head is thrown away: while they
last, many tokens hold the class, and pruning to half of the GFLOPs costs next to nothing (0.1
points by the paper's constant schedule at step 2,000, 1.4 at the end).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ztp_search.data import digits

MODEL = "vit_tiny_patch16_224"
MODEL_KWARGS: dict[str, int] = {
    "img_size": 40, "patch_size": 4, "embed_dim": 96, "depth": 8, "num_heads": 3,
    "in_chans": 1, "num_classes": 10,
}  # fmt: skip
PATCHES_PER_SIDE = 10
PATCH_PIXELS = 4
BACKGROUND = 10  # the class of a patch that the target does not touch
TARGET_INK = 0.12  # mean ink from which a patch counts as the target's

WARM_UP_STEPS = 200
# Shares of the run: difficulty rises until the first, patch labels fade until the second, the
# learning rate falls from the third.
CURRICULUM_END, PATCH_LABELS_END, DECAY_START = 0.2, 0.6, 0.5

Weights = dict[str, Tensor]


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    student = Student(timm.create_model(MODEL, pretrained=False, **MODEL_KWARGS))
    with mock.patch.object(F, "scaled_dot_product_attention", plain_attention):
        train(student, options)
    for split in ("search", "holdout"):
        print(f"{split}: accuracy {accuracy(student.vit, split, 5_000):.4f} on 5,000 scenes")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=4_500)
    parser.add_argument("--batch-size", type=int, default=64, metavar="SCENES")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="Muon's; AdamW takes half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=500, metavar="STEPS")
    return parser.parse_args()


def train(student: Student, options: argparse.Namespace) -> None:
    """Leave the averaged weights in `student.vit`, and in the file `options.out`."""
    optimizers = optimizers_of(student, options.lr)
    peaks = [[group["lr"] for group in o.param_groups] for o in optimizers]
    average = {name: value.clone() for name, value in student.vit.state_dict().items()}
    rng = np.random.default_rng(options.seed)
    loss = patch_loss = 0.0
    start = time.perf_counter()
    for step in range(options.steps):
        done = step / options.steps
        rate = min(1.0, (step + 1) / WARM_UP_STEPS, (1.0 - done) / (1.0 - DECAY_START))
        for optimizer, lrs in zip(optimizers, peaks, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * rate

        images, labels, patch_labels = training_batch(rng, options.batch_size, done)
        with torch.autocast("cpu", torch.bfloat16):
            logits, patch_logits = student(images)
        of_class = F.cross_entropy(logits.float(), labels, label_smoothing=0.05)
        of_patches = F.cross_entropy(patch_logits.float().flatten(0, 1), patch_labels.flatten())
        (of_class + max(0.0, 1.0 - done / PATCH_LABELS_END) * of_patches).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        keep = min(0.998, (step + 1) / (step + 10))
        for name, value in student.vit.state_dict().items():
            average[name].lerp_(value, 1.0 - keep)
        loss = 0.99 * loss + 0.01 * of_class.item()
        patch_loss = 0.99 * patch_loss + 0.01 * of_patches.item()
        if (step + 1) % options.report_every == 0 or step + 1 == options.steps:
            seconds = time.perf_counter() - start
            report_and_save(student.vit, average, options.out, (
                f"step {step + 1}, {seconds:.0f} s, "
                f"{(step + 1) * options.batch_size / seconds:.0f} images/s, "
                f"loss {loss:.3f}, of patches {patch_loss:.3f}"
            ))  # fmt: skip
    student.vit.load_state_dict(average)


def training_batch(
    rng: np.random.Generator, scenes: int, done: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `tensors` gives, of new training scenes as hard as suits the share `done` of the run."""
    hardest = min(1.0, done / CURRICULUM_END)
    difficulty = hardest * (1.0 - 0.3 * rng.random(scenes) ** 2)
    return tensors(digits.render("train", rng.random((scenes, digits.NUMBERS)), difficulty))


def tensors(scenes: digits.Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 1, 40, 40) in -1..1, labels (B,), labels of the patches (B, 100)."""
    images = torch.from_numpy(scenes.images)[:, None].float() / 127.5 - 1.0
    labels = torch.from_numpy(scenes.labels)
    ink = torch.from_numpy(scenes.target).reshape(
        -1, PATCHES_PER_SIDE, PATCH_PIXELS, PATCHES_PER_SIDE, PATCH_PIXELS
    )
    ink = ink.mean((2, 4)).flatten(1)  # (B, 100)
    return images, labels, torch.where(ink > TARGET_INK, labels[:, None], BACKGROUND)


class Student(nn.Module):
    """The timm model and a linear head on the patch tokens that leave its last block."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit
        width = MODEL_KWARGS["embed_dim"]
        self.patch_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, BACKGROUND + 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, 40, 40) -> logits of the image (B, 10) and of its patches (B, 100, 11)."""
        x = self.vit._pos_embed(self.vit.patch_embed(images))  # (B, 101, D)
        x = self.vit.blocks(x)
        return self.vit.forward_head(self.vit.norm(x)), self.patch_head(x[:, 1:])


class PlainAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v as plain products, each operand (B, H, N, d).

    The backward pass of torch's fused attention takes half of a training step on CPU; with this
    one, training is 2.5 times as fast.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attention = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, -1)  # (B, H, N, N)
        ctx.save_for_backward(q, k, v, attention)
        return attention @ v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, attention = ctx.saved_tensors
        (gradient,) = gradients
        of_scores = torch._softmax_backward_data(gradient @ v.mT, attention, -1, q.dtype)
        of_scores = of_scores * q.shape[-1] ** -0.5
        return of_scores @ k, of_scores.mT @ q, attention.mT @ gradient


def plain_attention(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
    """Stands in for torch's; the options that timm passes are at their neutral values here."""
    out: Tensor = PlainAttention.apply(q, k, v)
    return out


def optimizers_of(student: Student, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        of_block = name.startswith("vit.blocks.") and parameter.ndim == 2
        (matrices if of_block else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr * 0.5, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def report_and_save(vit: nn.Module, average: Weights, out: Path, line: str) -> None:
    """Print `line` with the averaged weights' accuracy, and write those weights."""
    current = {name: value.clone() for name, value in vit.state_dict().items()}
    vit.load_state_dict(average)
    search, holdout = (accuracy(vit, split, 1_000) for split in ("search", "holdout"))
    print(f"{line}, search {search:.3f}, holdout {holdout:.3f}", flush=True)
    save_file({name: value.contiguous() for name, value in average.items()}, out)
    vit.load_state_dict(current)


@torch.inference_mode()
def accuracy(vit: nn.Module, split: str, scenes: int) -> float:
    """Share of the first `scenes` scenes of `split` that `vit` names, in float32."""
    vit.eval()
    right = 0
    for first in range(0, scenes, 100):
        indices = range(first, min(scenes, first + 100))
        numbers = np.stack([digits.scene_numbers(split, i) for i in indices])
        images, labels, _ = tensors(digits.render(split, numbers))
        right += int((vit(images).argmax(1) == labels).sum())
    vit.train()
    return right / scenes


if __name__ == "__main__":
    main()
