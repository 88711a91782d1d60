"""Images decoded once, in a fixed order, memory-mapped by every process that evaluates.

A pair of stores (search and holdout) is one folder, named by what was asked for and by the
fingerprint of the source. It is written under a temporary name and renamed when complete, so what
stands under its own name is whole; asking for the same again opens it without decoding.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray
from PIL import Image

from ztp_search.data.class_map import load_class_map
from ztp_search.data.source import (
    DataSpec,
    Source,
    Undecoded,
    UnreadableImage,
    one_line,
    open_source,
)
from ztp_search.errors import DataError

VERSION = 1
_CHUNK = 64  # images whose encoded bytes are held at a time
_STALE_SECONDS = 24 * 3600  # after which a temporary folder must be a dead process's

Picture = NDArray[np.uint8]  # (C, H, W)
Sample = tuple[Picture | UnreadableImage, int | None, str]  # image, label, name


@dataclass(frozen=True)
class ImageStore:
    """Read-only images as timm's evaluation transform leaves them before normalisation.

    images: uint8, (images, channels, height, width), memory-mapped.
    labels: int64, (images,), outputs of the model; -1 where unknown.
    names: file name or split/index of each.
    digest: SHA-256 over pixels, labels, their order and the data config: identifies the evidence.
    path: folder it lies in.
    unreadable: images passed over because they could not be read.
    unlabelled: why no label is known, "" where labels have a meaning.
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
        """Map a store that `prepare` left; raises DataError when it is not one, or not whole."""
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
    progress: Callable[[int, int], None] | None = None,
) -> ImageSets:
    """Choose, decode and store `images` search images and `holdout` other ones.

    Images come in a random order drawn from `seed` (a stream's in its own); the first are the
    search set, those after it (or the first of `holdout_split`) the holdout set. An image whose
    file content was chosen before is passed over, so no picture stands twice.

    progress: called with images decoded so far and in all.
    Raises DataError: too few images, an image that cannot be read (unless `skip_unreadable`), a
    label that the model does not have.
    """
    if images < 1 or holdout < 0:
        raise DataError(f"--images must be 1 or more and --holdout 0 or more, "
                        f"but got {images} and {holdout}")
    mode = _mode(data_config)
    splits = [spec.split]
    if spec.holdout_split is not None and holdout > 0:
        splits.append(spec.holdout_split)
    sources = [
        open_source(spec, split, num_classes=num_classes, input_mode=mode) for split in splits
    ]
    asked = _Asked(_canonical(data_config), images, holdout, seed, skip_unreadable, progress)
    path = Path(cache_dir) / asked.key(sources, spec.class_map, num_classes)
    if not path.exists():
        _make(path, asked, sources)
    sets = ImageSets(ImageStore.open(path / "search"), ImageStore.open(path / "holdout"))
    unreadable = sets.search.unreadable + sets.holdout.unreadable
    if unreadable and not skip_unreadable:
        raise _refusal(unreadable[0])
    return sets


@dataclass(frozen=True)
class _Asked:
    """What `prepare` was asked for."""

    config: Mapping[str, Any]
    images: int
    holdout: int
    seed: int
    skip_unreadable: bool
    progress: Callable[[int, int], None] | None

    def key(self, sources: Sequence[Source], class_map: str | None, num_classes: int) -> str:
        """Name of the folder: a digest of the request and of what stands behind the sources."""
        content = load_class_map(class_map) if class_map else None
        parts = [VERSION, self.config, self.images, self.holdout, self.seed, num_classes, content]
        parts += [[source.title, source.fingerprint] for source in sources]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _make(path: Path, asked: _Asked, sources: Sequence[Source]) -> None:
    """Fill `path` with the stores "search" and "holdout", wholly or not at all."""
    search, holdout = sources[0], sources[-1]
    if search is holdout:
        _check_enough(search, asked.images, asked.holdout)
    else:
        _check_enough(search, asked.images, 0)
        _check_enough(holdout, 0, asked.holdout)
    chosen: set[bytes] = set()
    decode = _decoder(asked.config)
    need = asked.images + (asked.holdout if search is holdout else 0)
    with _whole_or_not_at_all(path) as folder:
        samples = _samples(search, need, asked.seed, chosen, decode)
        found = _write(folder / "search", samples, asked.images, 0, asked, search)
        if search is not holdout:
            if found < asked.images:
                raise _too_few(search, found, asked.images, 0)
            samples = _samples(holdout, asked.holdout, asked.seed, chosen, decode)
        more = _write(folder / "holdout", samples, asked.holdout, found, asked, holdout)
        if search is not holdout and more < asked.holdout:
            raise _too_few(holdout, more, 0, asked.holdout)
        if found + more < need:
            raise _too_few(search, found + more, asked.images, asked.holdout)


def _samples(
    source: Source, need: int, seed: int, chosen: set[bytes],
    decode: Callable[[Undecoded | UnreadableImage, str], Picture | UnreadableImage],
) -> Iterator[Sample]:
    """Distinct samples in their fixed order, decoded side by side, until `need` are readable."""
    distinct = _distinct(source, seed, chosen)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while need > 0:
            chunk = list(itertools.islice(distinct, min(_CHUNK, need)))
            if not chunk:
                return
            images, labels, names = zip(*chunk, strict=True)
            pictures = pool.map(decode, images, [f"{source.title}: {name}" for name in names])
            for picture, label, name in zip(pictures, labels, names, strict=True):
                need -= not isinstance(picture, UnreadableImage)
                yield picture, label, name


def _distinct(
    source: Source, seed: int, chosen: set[bytes]
) -> Iterator[tuple[Undecoded | UnreadableImage, int | None, str]]:
    """Undecoded samples in their fixed order, without those whose content is among `chosen`."""
    order: Iterable[int] = itertools.count()
    if not source.sequential:
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(source)).tolist()
    for index in order:
        try:
            image, label = source.read(index)
        except UnreadableImage as error:
            yield error, None, source.name(index)
            continue
        except IndexError:
            if source.sequential:  # its end
                return
            raise
        content = _content(image)
        if content not in chosen:
            chosen.add(content)
            yield image, label, source.name(index)


def _content(image: Undecoded) -> bytes:
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).digest()


def _decoder(
    config: Mapping[str, Any],
) -> Callable[[Undecoded | UnreadableImage, str], Picture | UnreadableImage]:
    from timm.data import create_transform

    mode = _mode(config)
    transform = create_transform(**config, is_training=False, normalize=False)

    def decode(image: Undecoded | UnreadableImage, name: str) -> Picture | UnreadableImage:
        if isinstance(image, UnreadableImage):
            return image
        try:
            if isinstance(image, bytes):
                image = Image.open(io.BytesIO(image))
            picture: Picture = transform(image.convert(mode)).numpy()
        except Exception as error:  # Pillow's decoders raise what they like on damaged data
            return UnreadableImage(f"{name} cannot be decoded: {one_line(error)}")
        return picture

    return decode


def _write(
    folder: Path, samples: Iterator[Sample], count: int, before: int, asked: _Asked, source: Source
) -> int:
    """Write the next `count` readable samples as a store; returns how many there were.

    before: images decoded for other stores, for the progress.
    """
    shape = [count, *asked.config["input_size"]]
    digest = hashlib.sha256(json.dumps([asked.config, shape], sort_keys=True).encode())
    labels: list[int] = []
    names: list[str] = []
    unreadable: list[str] = []
    folder.mkdir(parents=True)
    # Written as a stream of bytes, not through a map: a full disk is then an error, not a crash.
    with open(folder / "images.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for picture, label, name in samples if count else ():
            if isinstance(picture, UnreadableImage):
                if not asked.skip_unreadable:
                    raise _refusal(str(picture)) from picture
                unreadable.append(str(picture))
                continue
            pixels = picture.tobytes()
            file.write(pixels)
            digest.update(pixels)
            labels.append(-1 if label is None else label)
            names.append(name)
            if asked.progress is not None:
                asked.progress(before + len(names), asked.images + asked.holdout)
            if len(names) == count:
                break
        _sync(file)
    array = np.array(labels, dtype="<i8")
    digest.update(array.tobytes())
    with open(folder / "labels.npy", "wb") as file:
        np.save(file, array)
        _sync(file)
    about = {"version": VERSION, "digest": digest.hexdigest(), "data_config": asked.config,
             "source": source.title, "unlabelled": source.unlabelled, "unreadable": unreadable,
             "names": names}  # fmt: skip
    with open(folder / "about.json", "wb") as file:
        file.write(json.dumps(about).encode())
        _sync(file)
    return len(names)


@contextlib.contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` at the end, and vanishes where that is not reached."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(".*.*"):  # what killed processes left behind
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        yield temporary
        if not path.exists():  # another process may have been first; its content is the same
            os.rename(temporary, path)
    except OSError as error:
        raise DataError(f"the decoded images cannot be written to {path.parent} "
                        f"({error.strerror}); free space, or choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check_enough(source: Source, images: int, holdout: int) -> None:
    """Refuse before decoding what cannot succeed."""
    if not source.sequential and len(source) < images + holdout:
        raise _too_few(source, len(source), images, holdout)


def _too_few(source: Source, available: int, images: int, holdout: int) -> DataError:
    search = available * images // (images + holdout)
    fits = {"--images": (images, search), "--holdout": (holdout, available - search)}
    asked = " + ".join(f"{key} {value}" for key, (value, _) in fits.items() if value)
    fix = " ".join(f"{key} {value}" for key, (asked, value) in fits.items() if asked)
    return DataError(f"{asked} must be at most the {available} distinct readable images of "
                     f"{source.title}; use {fix}")


def _refusal(unreadable: str) -> DataError:
    return DataError(f"{unreadable}; replace it, or go on without it: --skip-unreadable")


def _mode(config: Mapping[str, Any]) -> str:
    """Pillow's mode for the number of channels."""
    channels = config["input_size"][0]
    if channels not in (1, 3):
        raise DataError(f"images must have 1 or 3 channels, but the model takes {channels}")
    return "L" if channels == 1 else "RGB"


def _canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a data config that decides about pixels, as JSON has it."""
    return {
        "input_size": [int(size) for size in config["input_size"]],
        "interpolation": str(config["interpolation"]),
        "crop_pct": float(config["crop_pct"]),
        "crop_mode": str(config["crop_mode"]),
        "mean": [float(value) for value in config["mean"]],
        "std": [float(value) for value in config["std"]],
    }
