"""Images decoded once, in a fixed order, memory-mapped by every process that evaluates.

A pair of stores (search and holdout) is one folder, named by what was asked for and by the
fingerprint of the source. It is written under a temporary name and renamed when complete, so what
stands under its own name is whole; asking for the same again opens it without decoding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from ztp_search.data.decoding import VERSION, Request, make_stores, refusal
from ztp_search.data.hub import one_line
from ztp_search.data.preprocessing import Picture, canonical
from ztp_search.data.readers import open_source
from ztp_search.errors import DataError
from ztp_search.settings import DataSpec


@dataclass(frozen=True)
class ImageStore:
    """Images as timm's evaluation transform leaves them before normalisation, read-only.

    Attributes:
        images: uint8, (images, channels, height, width), memory-mapped.
        labels: int64, (images,), outputs of the model; -1 where unknown.
        names: File name, or split/index, of each.
        digest: SHA-256 over pixels, labels, their order and the data config: identifies the
            evidence.
        path: Folder it lies in.
        unreadable: Images that were passed over because they could not be read.
        unlabelled: Why no label is known; "" where labels have a meaning.
    """

    images: Picture
    labels: NDArray[np.int64]
    names: list[str] = field(repr=False)
    digest: str
    path: Path
    unreadable: tuple[str, ...] = ()
    unlabelled: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ImageStore:
        """Open a store that `prepare` has written.

        Raises:
            DataError: It is not one, or not whole.
        """
        path = Path(path)
        try:
            about = json.loads((path / "about.json").read_text(encoding="utf-8"))
            if about["version"] != VERSION:
                raise ValueError(f"version must be {VERSION}, but got {about['version']}")
            names = about["names"]
            # An empty array cannot be mapped.
            images = np.load(path / "images.npy", mmap_mode="r" if names else None)
            labels = np.load(path / "labels.npy")
            if not len(images) == len(labels) == len(names):
                raise ValueError(f"{len(images)} images, {len(labels)} labels, {len(names)} names")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"the image store {path} is damaged ({one_line(error)}); "
                            f"delete it and run again") from error
        unreadable = tuple(about["unreadable"])
        return cls(images, labels, names, about["digest"], path, unreadable, about["unlabelled"])


@dataclass(frozen=True)
class ImageSets:
    """Disjoint images for choosing (search) and for reporting (holdout).

    unreadable: images that were passed over because they could not be read.
    unlabelled: why labels are unknown, "" where they have a meaning.
    """

    search: ImageStore
    holdout: ImageStore

    @property
    def unreadable(self) -> int:
        return len(self.search.unreadable) + len(self.holdout.unreadable)

    @property
    def unlabelled(self) -> str:
        return self.search.unlabelled or self.holdout.unlabelled


def normalise(
    images: UInt8[torch.Tensor, "b c h w"],  # noqa: F722
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[torch.Tensor, "b c h w"]:  # noqa: F722
    """What timm's evaluation transform makes of pixels: in [0, 1], then (x - mean) / std.

    The same operations in the same order as torchvision's ToTensor and Normalize, so the same
    bits. mean, std: one value per channel.
    """
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    return images.to(torch.float32).div_(255).sub_(shift).div_(scale)


def prepare(
    spec: DataSpec,
    data_config: Mapping[str, Any],
    *,
    images: int,
    holdout: int,
    seed: int,
    num_classes: int,
    cache_dir: Path,
    skip_unreadable: bool = False,
    at_most: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSets:
    """Choose images, decode them and store them, or open them where that has been done before.

    Images are taken in a random order drawn from `seed` (those of a stream in its own order): the
    first are the search set, those after them (or the first of `holdout_split`) the holdout set.
    Of images with the same content only the first counts, so that no picture is in both sets.

    Args:
        spec: The data set.
        data_config: timm's data config of the model: size, interpolation, crop, mean and std.
        images: How many search images.
        holdout: How many holdout images, other ones.
        seed: Of the order.
        num_classes: How many outputs the model has.
        cache_dir: Folder of all stores.
        skip_unreadable: Pass over images that cannot be read, instead of refusing them.
        at_most: Be content with fewer search images, where the data set has no more beside the
            holdout.
        progress: Called with the number of images decoded so far and in all.

    Raises:
        DataError: There are too few images, one cannot be read, or one has a label that the model
            does not have.
    """
    if images < 1 or holdout < 0:
        raise DataError(f"`images` must be 1 or more and `holdout` 0 or more, "
                        f"but got {images} and {holdout}")
    request = Request(
        canonical(data_config), images, holdout, seed, skip_unreadable, progress, at_most
    )
    splits = [spec.split]
    if spec.holdout_split is not None and holdout > 0:
        splits.append(spec.holdout_split)
    sources = [
        open_source(spec, split, num_classes=num_classes, input_mode=request.mode)
        for split in splits
    ]
    if at_most:
        request = request.fitted(sources)
    path = Path(cache_dir) / request.key(sources, spec.class_map, num_classes)
    if not path.exists():
        make_stores(path, request, sources)
    sets = ImageSets(ImageStore.open(path / "search"), ImageStore.open(path / "holdout"))
    unreadable = sets.search.unreadable + sets.holdout.unreadable
    if unreadable and not skip_unreadable:
        raise refusal(unreadable[0])
    return sets
