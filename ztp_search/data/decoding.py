"""From an opened data set to image stores on disk: choose, decode in parallel, write.

Both stores of a pair are written, or neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ztp_search.data.class_map import load_class_map
from ztp_search.data.hub import one_line
from ztp_search.data.preprocessing import Picture, mode_of, preprocessor
from ztp_search.data.source import Source, Undecoded, UnreadableImage
from ztp_search.errors import DataError

VERSION = 1
_CHUNK = 64  # images whose encoded bytes are held at a time
_STALE_SECONDS = 24 * 3600  # after which a temporary folder must be a dead process's
_SETTINGS = {"search": "images", "holdout": "holdout"}
"""Which setting says how many images a store has."""

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
    at_most: bool = False

    @property
    def mode(self) -> str:
        """Pillow's mode for the number of channels."""
        return mode_of(self.config)

    def fitted(self, sources: Sequence[Source]) -> Request:
        """With no more search images than the source has beside the holdout, but with one."""
        if sources[0].sequential:  # its length is not known
            return self
        left = len(sources[0]) - self.beside(sources)
        return replace(self, images=max(1, min(self.images, left)))

    def beside(self, sources: Sequence[Source]) -> int:
        """How many holdout images come from the source of the search images."""
        return self.holdout if len(sources) == 1 else 0

    def key(self, sources: Sequence[Source], class_map: str | None, num_classes: int) -> str:
        """Name of the folder: a digest of the request and of what stands behind the sources."""
        content = load_class_map(class_map) if class_map else None
        parts = [VERSION, self.config, self.images, self.holdout, self.seed, num_classes, content]
        parts += [[source.title, source.fingerprint] for source in sources]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def make_stores(path: Path, request: Request, sources: Sequence[Source]) -> None:
    """Write the stores "search" and "holdout" into the folder `path`, both or neither.

    Args:
        path: Of the folder, which is made.
        request: Which images.
        sources: One for both stores, or one for each.

    Raises:
        DataError: There are too few images, one cannot be read, or the disk is full.
    """
    try:
        _make_stores(path, request, sources)
    except _TooFew as few:
        # a stream, or images that are there twice or cannot be read
        left = few.found - request.beside(sources)
        if not (request.at_most and few.source is sources[0] and left > 0):
            raise
        _make_stores(path, replace(request, images=left), sources)


def _make_stores(path: Path, request: Request, sources: Sequence[Source]) -> None:
    images = {"search": request.images, "holdout": request.holdout}
    if len(sources) == 1:
        shares = [(sources[0], images)]
    else:
        shares = [(source, {name: images[name]})
                  for source, name in zip(sources, images, strict=True)]  # fmt: skip
    for source, counts in shares:
        if not source.sequential:  # refused before decoding what cannot succeed
            _check_enough(source, len(source), counts)
    chosen: set[bytes] = set()
    before = 0
    with _whole_or_not_at_all(path) as folder:
        for source, counts in shares:
            samples = _samples(source, sum(counts.values()), request, chosen)
            found = 0
            for name, count in counts.items():
                found += _write(folder / name, samples, count, before + found, request, source)
            _check_enough(source, found, counts)
            before += found


class _TooFew(DataError):
    """A source has fewer images, so many, than are asked for."""

    def __init__(self, source: Source, found: int, message: str) -> None:
        super().__init__(message)
        self.source = source
        self.found = found


def _check_enough(source: Source, available: int, counts: Mapping[str, int]) -> None:
    """Refuse a source with fewer images than its stores are to have together.

    counts: images of each store that is taken from the source.
    """
    need = sum(counts.values())
    if available >= need:
        return
    search = max(available * counts["search"] // need, 1) if "search" in counts else 0
    fits = {"search": search, "holdout": available - search}
    settings = {name: _SETTINGS[name] for name, count in counts.items() if count}
    asked = " + ".join(f"`{setting}` {counts[name]}" for name, setting in settings.items())
    fix = " and ".join(f"`{setting}` {fits[name]}" for name, setting in settings.items())
    raise _TooFew(source, available, f"{asked} must be at most the {available} distinct readable "
                  f"images of {source.title}; use {fix}")


def _samples(source: Source, need: int, request: Request, chosen: set[bytes]) -> Iterator[Sample]:
    """Distinct samples in their fixed order, decoded in parallel, until `need` are readable.

    chosen: digests of the images that are taken already; grows.
    """
    distinct = _distinct(source, request.seed, chosen)
    decode = _decoder(request, source.title)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while need > 0:
            chunk = list(itertools.islice(distinct, min(_CHUNK, need)))
            if not chunk:
                return
            for sample in pool.map(decode, chunk):
                need -= not isinstance(sample[0], UnreadableImage)
                yield sample


def _distinct(source: Source, seed: int, chosen: set[bytes]) -> Iterator[UndecodedSample]:
    """Samples in the order that `seed` gives, without those whose content is in `chosen`."""
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
    """A digest of the file, or of the pixels where there is none."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).digest()


def _decoder(request: Request, title: str) -> Callable[[UndecodedSample], Sample]:
    """A function that decodes a sample and puts timm's evaluation transform to it."""
    preprocess = preprocessor(request.config)

    def decode(sample: UndecodedSample) -> Sample:
        image, label, name = sample
        if isinstance(image, UnreadableImage):
            return image, label, name
        try:
            picture = preprocess(image)
        except Exception as error:  # Pillow's decoders raise what they like on damaged data
            why = f"{title}: {name} cannot be decoded: {one_line(error)}"
            return UnreadableImage(why), label, name
        return picture, label, name

    return decode


def _write(
    folder: Path,
    samples: Iterator[Sample],
    count: int,
    before: int,
    request: Request,
    source: Source,
) -> int:
    """Write the next `count` readable samples as a store.

    Args:
        folder: Of the store, which is made.
        samples: Continues behind those that are written.
        count: How many images.
        before: How many images were decoded for other stores before, for the progress.
        request: What is asked for.
        source: Where the samples are from.

    Returns:
        How many images there were.
    """
    shape = [count, *request.config["input_size"]]
    digest = hashlib.sha256(json.dumps([request.config, shape], sort_keys=True).encode())
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
                if not request.skip_unreadable:
                    raise refusal(str(picture)) from picture
                unreadable.append(str(picture))
                continue
            pixels = picture.tobytes()
            file.write(pixels)
            digest.update(pixels)
            labels.append(-1 if label is None else label)
            names.append(name)
            if request.progress is not None:
                request.progress(before + len(names), request.images + request.holdout)
            if len(names) == count:
                break
        _sync(file)
    array = np.array(labels, dtype="<i8")
    digest.update(array.tobytes())
    with open(folder / "labels.npy", "wb") as file:
        np.save(file, array)
        _sync(file)
    about = {"version": VERSION, "digest": digest.hexdigest(), "data_config": request.config,
             "source": source.title, "unlabelled": source.unlabelled, "unreadable": unreadable,
             "names": names}  # fmt: skip
    with open(folder / "about.json", "wb") as file:
        file.write(json.dumps(about).encode())
        _sync(file)
    return len(names)


@contextlib.contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `path` at the end, and deleted after an exception."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(".*.*"):  # what killed processes left behind
            if _is_abandoned(stale):
                shutil.rmtree(stale, ignore_errors=True)
        yield temporary
        if not path.exists():  # another process may have been first; its content is the same
            os.rename(temporary, path)
    except OSError as error:
        raise DataError(f"the decoded images cannot be written to {path.parent} "
                        f"({error.strerror}); free space, or choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether nothing was written to a temporary folder for long, so that nobody is at it.

    The folder itself tells when it was made: since then the clock may have been set, or days gone.
    """
    try:
        written = max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))
    except OSError:  # its process has renamed it meanwhile, or deleted it
        return False
    return time.time() - written > _STALE_SECONDS


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def refusal(unreadable: str) -> DataError:
    """The error for an image that cannot be read, where none may be passed over."""
    return DataError(f"{unreadable}; replace it, or go on without it: `skip_unreadable`")
