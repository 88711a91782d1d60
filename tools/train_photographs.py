"""Train a ViT to tell photographs apart by small crops: `python tools/train_photographs.py`.

Writes into the folder --out what a search on natural images needs: the weights, the image folders
`search/` and `holdout/`, and the space `photographs.yaml` that names them:

    ztp-search --space ztp-runs/photographs/photographs.yaml --budget 50%

The images are crops of the 16 photographs that scikit-image and scikit-learn hold in their wheels
(`pip install scikit-image`; nothing is downloaded), the label is the photograph. Each is cut into
tiles that belong to one split alone, so that no pixel is trained on that a search sees. What a
crop shows may lie in no training tile, and colours, contrast and noise vary in all splits: the
model names 82.6 % of the 4,000 search crops and 82.1 % of the 6,000 holdout crops. The crops of a
split come from 7 to 11 tiles of each photograph, so they are more alike than photographs are.

28 minutes on one CPU core (bfloat16 instructions) shared with other work; torch 2.9 or later.
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from train_digits import plain_attention

PHOTOGRAPHS = {
    "skimage.data": (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
        "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
        "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip
CLASSES = sum(map(len, PHOTOGRAPHS.values()))

MODEL = "vit_tiny_patch16_224"
MODEL_KWARGS: dict[str, int] = {
    "img_size": 40, "patch_size": 4, "embed_dim": 96, "depth": 9, "num_heads": 3,
    "num_classes": CLASSES,
}  # fmt: skip
SIDE_PIXELS = MODEL_KWARGS["img_size"]
IMAGES = {"search": 4_000, "holdout": 6_000}

TILES_PER_SIDE = 6  # of the shorter side
MARGIN_PIXELS = 4  # left out at every edge of a tile
# The split of the tile in row r and column c is at 2 r + c mod 5: every row and every column of
# five tiles holds each evaluation split once, and no two tiles of such a split touch.
SPLIT_CYCLE = ("train", "search", "train", "holdout", "train")
SMALLEST_CROP = 0.4  # side, of the tile's
LEAST_CONTRAST = 10.0  # standard deviation of a crop's grey values, of 255: no bare sky

WARM_UP_STEPS = 200
DECAY_START = 0.4  # share of the run after which the learning rate falls

Images = NDArray[np.uint8]  # (B, 40, 40, 3)
Labels = NDArray[np.int64]  # (B,)
Tiles = list[list[Image.Image]]  # of each class
Weights = dict[str, Tensor]


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    sets = {}
    for number, (split, count) in enumerate(IMAGES.items(), start=1):
        rng = np.random.default_rng([options.seed, number])
        sets[split] = crops(rng, tiles(split), count)
        write_images(options.out / split, *sets[split])
    write_space(options.out)
    vit = timm.create_model(MODEL, pretrained=False, **MODEL_KWARGS)
    with mock.patch.object(F, "scaled_dot_product_attention", plain_attention):
        train(vit, options, sets["search"])
    for split, (images, labels) in sets.items():
        print(f"{split}: accuracy {accuracy(vit, images, labels):.4f} on {len(images):,} crops")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("ztp-runs/photographs"),
                        help="folder to write")  # fmt: skip
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--batch-size", type=int, default=64, metavar="CROPS")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="Muon's; AdamW takes half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=250, metavar="STEPS")
    return parser.parse_args()


# ---- images ----------------------------------------------------------------------------------


def photographs() -> dict[str, Image.Image]:
    """Label -> photograph (grey ones repeated to three channels), sorted as folders are."""
    found = {}
    for package, names in PHOTOGRAPHS.items():
        for name in names:
            with (files(package) / name).open("rb") as file:
                found[name.partition(".")[0]] = Image.open(file).convert("RGB")
    return dict(sorted(found.items()))


def tiles(split: str) -> Tiles:
    """The tiles of a split, of each photograph in the order of labels."""
    found: Tiles = []
    for photograph in photographs().values():
        side = min(photograph.size) // TILES_PER_SIDE
        near, far = MARGIN_PIXELS, side - MARGIN_PIXELS
        found.append([
            photograph.crop((column * side + near, row * side + near,
                             column * side + far, row * side + far))
            for row in range(photograph.height // side)
            for column in range(photograph.width // side)
            if SPLIT_CYCLE[(2 * row + column) % len(SPLIT_CYCLE)] == split
        ])  # fmt: skip
    return found


def crops(rng: np.random.Generator, of: Tiles, count: int) -> tuple[Images, Labels]:
    """Random crops, every class equally often, with their colours disturbed."""
    labels = rng.permutation(np.arange(count) % len(of))
    images = np.stack([crop(rng, of[label]) for label in labels])
    return disturbed(rng, images), labels


def crop(rng: np.random.Generator, of: list[Image.Image]) -> Images:
    """A square (40, 40, 3) of any place and size in any of the tiles, mirrored or not."""
    while True:
        tile = of[rng.integers(len(of))]
        side = tile.width * rng.uniform(SMALLEST_CROP, 1.0)
        left, top = rng.uniform(0.0, tile.width - side, 2)
        box = (left, top, left + side, top + side)
        # Antialiased; what it takes from outside the box is of the same tile.
        image = tile.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC, box)
        pixels: Images = np.asarray(image)
        if pixels.mean(2).std() >= LEAST_CONTRAST:
            return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def disturbed(rng: np.random.Generator, images: Images) -> Images:
    """Other saturation, white balance, contrast and brightness for each image, and noise."""

    def each(low: float, high: float, channels: int = 1) -> NDArray[np.float32]:
        return rng.uniform(low, high, (len(images), 1, 1, channels)).astype(np.float32)

    x = images.astype(np.float32) / 255.0
    grey = x.mean(3, keepdims=True)
    x = (grey + each(0.0, 1.0) * (x - grey)) * each(0.7, 1.3, 3)
    mean = x.mean((1, 2, 3), keepdims=True)
    x = 0.5 + each(-0.2, 0.2) + 0.5 * (mean - 0.5) + each(0.5, 1.3) * (x - mean)
    x += each(0.0, 0.06) * rng.standard_normal(x.shape, dtype=np.float32)
    pixels: Images = (x.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
    return pixels


def write_images(folder: Path, images: Images, labels: Labels) -> None:
    """Write `folder`/LABEL/NUMBER.png, numbered per label: another run replaces every file."""
    for label, name in enumerate(photographs()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images[labels == label]):
            Image.fromarray(image).save(folder / name / f"{number:03}.png")


def write_space(folder: Path) -> None:
    """Write the search space; its paths are absolute, as a search sees them from where it runs."""
    folder = folder.resolve()
    space = {
        "format": "ztp-search/space", "version": 1, "base": "any",
        "about": f"A ViT of {MODEL_KWARGS['depth']} blocks and 100 patch tokens that tells "
                 f"{CLASSES} photographs apart by small crops.",
        "model": {
            "name": MODEL, "kwargs": MODEL_KWARGS, "weights": str(folder / "model.safetensors"),
            "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0},
        },
        "data": {"source": str(folder), "split": "search", "holdout_split": "holdout"},
        "defaults": {"trials": 256, "images": IMAGES["search"], "holdout": IMAGES["holdout"],
                     "batch_size": 64},
        # As digits.yaml: 100 patch tokens too.
        "pruning": {
            "wpr_iterations": {"first 2": [10, 40], "last 2": [1, 1], "other": [3, 10]},
        },
    }  # fmt: skip
    text = yaml.safe_dump(space, sort_keys=False, default_flow_style=None, width=100)
    (folder / "photographs.yaml").write_text(text, encoding="utf-8")


# ---- training --------------------------------------------------------------------------------


def train(vit: Any, options: argparse.Namespace, watched: tuple[Images, Labels]) -> None:
    """Leave the averaged weights in `vit`, and in the file that the space names.

    watched: crops on which the accuracy is reported on the way; nothing is chosen by it.
    """
    optimizers = optimizers_of(vit, options.lr)
    peaks = [[group["lr"] for group in o.param_groups] for o in optimizers]
    average = {name: value.clone() for name, value in vit.state_dict().items()}
    rng = np.random.default_rng([options.seed, 0])
    of_training = tiles("train")
    loss = 0.0
    start = time.perf_counter()
    for step in range(options.steps):
        done = step / options.steps
        rate = min(1.0, (step + 1) / WARM_UP_STEPS, (1.0 - done) / (1.0 - DECAY_START))
        for optimizer, lrs in zip(optimizers, peaks, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * rate

        images, labels = crops(rng, of_training, options.batch_size)
        with torch.autocast("cpu", torch.bfloat16):
            logits = vit(tensor(images))
        of_batch = F.cross_entropy(logits.float(), torch.from_numpy(labels), label_smoothing=0.05)
        torch.autograd.backward(of_batch)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        keep = min(0.998, (step + 1) / (step + 10))
        for name, value in vit.state_dict().items():
            average[name].lerp_(value, 1.0 - keep)
        loss += (of_batch.item() - loss) * max(0.01, 1.0 / (step + 1))
        if (step + 1) % options.report_every == 0 or step + 1 == options.steps:
            current = {name: value.clone() for name, value in vit.state_dict().items()}
            vit.load_state_dict(average)
            share = accuracy(vit, watched[0][:1_000], watched[1][:1_000])
            seconds = time.perf_counter() - start
            print(f"step {step + 1}, {seconds:.0f} s, loss {loss:.3f}, search {share:.3f}",
                  flush=True)  # fmt: skip
            vit.load_state_dict(current)
    vit.load_state_dict(average)
    save_file({name: value.contiguous() for name, value in average.items()},
              options.out / "model.safetensors")  # fmt: skip


def optimizers_of(vit: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in vit.named_parameters():
        of_block = name.startswith("blocks.") and parameter.ndim == 2
        (matrices if of_block else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr * 0.5, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def tensor(images: Images) -> Tensor:
    """(B, 3, 40, 40) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.inference_mode()
def accuracy(vit: nn.Module, images: Images, labels: Labels) -> float:
    """Share of the images that `vit` names, in float32."""
    vit.eval()
    right = 0
    for first in range(0, len(images), 100):
        named = vit(tensor(images[first : first + 100])).argmax(1).numpy()
        right += int((named == labels[first : first + 100]).sum())
    vit.train()
    return right / len(images)


if __name__ == "__main__":
    main()
