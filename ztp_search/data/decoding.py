"""From an opened data set to stores on disk: choose, decode side by side, write, all or nothing."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ztp_search.data.class_map import load_class_map
from ztp_search.data.hub import one_line
from ztp_search.data.source import Source, Undecoded, UnreadableImage
from ztp_search.errors import DataError

VERSION = 1
_CHUNK = 64  # images whose encoded bytes are held at a time
_STALE_SECONDS = 24 * 3600  # after which a temporary folder must be a dead process's
_FLAGS = {"search": "--images", "holdout": "--holdout"}

Picture = NDArray[np.uint8]  # (C, H, W)
UndecodedSample = tuple[Undecoded | UnreadableImage, int | None, str]  # image, label, name
Sample = tuple[Picture | UnreadableImage, int | None, str]


@dataclass(frozen=True)
class Request:
    """What `prepare` was asked for."""

    config: Mapping[str, Any]
    images: int
    holdout: int
    seed: int
    skip_unreadable: bool
    progress: Callable[[int, int], None] | None

    @property
    def mode(self) -> str:
        """Pillow's mode for the number of channels."""
        channels = self.config["input_size"][0]
        if channels not in (1, 3):
            raise DataError(f"images must have 1 or 3 channels, but the model takes {channels}")
        return "L" if channels == 1 else "RGB"

    def key(self, sources: Sequence[Source], class_map: str | None, num_classes: int) -> str:
        """Name of the folder: a digest of the request and of what stands behind the sources."""
        content = load_class_map(class_map) if class_map else None
        parts = [VERSION, self.config, self.images, self.holdout, self.seed, num_classes, content]
        parts += [[source.title, source.fingerprint] for source in sources]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def make_stores(path: Path, asked: Request, sources: Sequence[Source]) -> None:
    """Fill `path` with the stores "search" and "holdout", wholly or not at all.

    sources: one for both, or one for each.
    """
    counts = {"search": asked.images, "holdout": asked.holdout}
    if len(sources) == 1:
        shares = [(sources[0], counts)]
    else:
        shares = [(source, {name: counts[name]})
                  for source, name in zip(sources, counts, strict=True)]  # fmt: skip
    for source, wanted in shares:
        if not source.sequential:  # refused before decoding what cannot succeed
            _check_enough(source, len(source), wanted)
    chosen: set[bytes] = set()
    before = 0
    with _whole_or_not_at_all(path) as folder:
        for source, wanted in shares:
            samples = _samples(source, sum(wanted.values()), asked, chosen)
            found = 0
            for name, count in wanted.items():
                found += _write(folder / name, samples, count, before + found, asked, source)
            _check_enough(source, found, wanted)
            before += found


def _check_enough(source: Source, available: int, wanted: Mapping[str, int]) -> None:
    """Refuse fewer images than all stores `wanted` of a source have together."""
    need = sum(wanted.values())
    if available >= need:
        return
    search = available * wanted.get("search", 0) // need
    fits = {"search": search, "holdout": available - search}
    flags = {name: _FLAGS[name] for name, count in wanted.items() if count}
    asked = " + ".join(f"{flag} {wanted[name]}" for name, flag in flags.items())
    fix = " ".join(f"{flag} {fits[name]}" for name, flag in flags.items())
    raise DataError(f"{asked} must be at most the {available} distinct readable images of "
                    f"{source.title}; use {fix}")


def _samples(source: Source, need: int, asked: Request, chosen: set[bytes]) -> Iterator[Sample]:
    """Distinct samples in their fixed order, decoded side by side, until `need` are readable."""
    distinct = _distinct(source, asked.seed, chosen)
    decode = _decoder(asked, source.title)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while need > 0:
            chunk = list(itertools.islice(distinct, min(_CHUNK, need)))
            if not chunk:
                return
            for sample in pool.map(decode, chunk):
                need -= not isinstance(sample[0], UnreadableImage)
                yield sample


def _distinct(source: Source, seed: int, chosen: set[bytes]) -> Iterator[UndecodedSample]:
    """Samples in their fixed order, without those whose content is among `chosen`."""
    order: Iterable[int] = itertools.count()
    if not source.sequential:
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(source)).tolist()
    for position, index in enumerate(order):
        if isinstance(order, list) and position % _CHUNK == 0:
            source.expect(order[position : position + _CHUNK])
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


def _decoder(asked: Request, title: str) -> Callable[[UndecodedSample], Sample]:
    from timm.data import create_transform

    transform = create_transform(**asked.config, is_training=False, normalize=False)

    def decode(sample: UndecodedSample) -> Sample:
        image, label, name = sample
        if isinstance(image, UnreadableImage):
            return image, label, name
        try:
            if isinstance(image, bytes):
                image = Image.open(io.BytesIO(image))
            picture: Picture = transform(image.convert(asked.mode)).numpy()
        except Exception as error:  # Pillow's decoders raise what they like on damaged data
            why = f"{title}: {name} cannot be decoded: {one_line(error)}"
            return UnreadableImage(why), label, name
        return picture, label, name

    return decode


def _write(
    folder: Path, samples: Iterator[Sample], count: int, before: int, asked: Request, source: Source
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
                    raise refusal(str(picture)) from picture
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


def refusal(unreadable: str) -> DataError:
    """What to say of an image that cannot be read, where none may be passed over."""
    return DataError(f"{unreadable}; replace it, or go on without it: --skip-unreadable")
