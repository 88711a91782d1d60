"""How to open whatever the user names: a reader for each kind of data set.

Folders, tar files, `torch/` and `wds/` are found and listed by timm; images are then read here,
because timm's datasets silently put the next image in the place of an unreadable one. Hugging
Face data sets are opened by `datasets` itself, so that columns may have any name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ztp_search.data.digits import DigitScenes
from ztp_search.data.hub import one_line
from ztp_search.data.hugging_face import open_hugging_face
from ztp_search.data.source import (
    Source,
    Undecoded,
    digest,
    files_fingerprint,
    tree_fingerprint,
)
from ztp_search.errors import DataError
from ztp_search.settings import DataSpec

DATASETS = {"digits": DigitScenes}
"""The embedded data sets: name -> class that takes a split and is a sequence of (image, label)."""


def open_source(
    spec: DataSpec, split: str | None, *, num_classes: int, input_mode: str = "RGB"
) -> Source:
    """Open one split of a data set.

    Args:
        spec: The data set.
        split: None: a validation or test split, as it is found ("search" for digits).
        num_classes: How many outputs the model has.
        input_mode: "L" or "RGB", for readers that decode on their own.

    Raises:
        DataError: It cannot be had; at once also without network.
    """
    prefix, _, rest = spec.source.partition("/")
    reader = READERS.get(prefix.lower())
    if spec.source in DATASETS:
        source: Source = _Embedded(spec.source, split or "search")
    elif reader is not None:
        source = reader(rest, split, input_mode)
    else:
        source = _open_files(spec.source, split)
    return source.bind(num_classes, spec.class_map)


class _Embedded(Source):
    def __init__(self, source: str, split: str) -> None:
        self._dataset = DATASETS[source](split)
        self._ahead: dict[int, tuple[Undecoded, Any]] = {}
        # The content is code, so a sample of it stands for the whole.
        sample = [self._dataset[index][0].tobytes() for index in range(4)]
        super().__init__(f"{source} {split}", len(self._dataset), digest(source, split, sample))

    def expect(self, indices: Sequence[int]) -> None:
        self._ahead = dict(zip(indices, self._dataset.__getitems__(indices), strict=True))

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        return self._ahead.pop(index, None) or self._dataset[index]


class _Files(Source):
    """Images of a folder or a tar file: (file, offset, size in bytes, name, label) each."""

    def __init__(self, title: str, samples: list[tuple[str, int, int, str, int]],
                 fingerprint: str, class_names: list[str]) -> None:
        unlabelled = ""
        if class_names == [""]:
            unlabelled = f"{title} has no class folders"
        elif "" in class_names:
            loose = next(name for *_, name, label in samples if class_names[label] == "")
            raise DataError(f"images must all lie in class folders or none, but {title} has "
                            f"{loose} beside class folders; move it")
        super().__init__(title, len(samples), fingerprint, class_names, unlabelled)
        self._samples = samples

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        path, offset, size, _, label = self._samples[index]
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size), label

    def name(self, index: int) -> str:
        return self._samples[index][3]


def _open_files(path: str, split: str | None) -> Source:
    from timm.data import create_dataset

    is_tar = os.path.isfile(path) and os.path.splitext(path)[1] == ".tar"
    if not is_tar and not os.path.isdir(path):
        raise DataError(f"`data` must be an image folder, a .tar, {', '.join(DATASETS)}, or begin "
                        f"with hfds/, torch/ or wds/, but got {path!r}")
    if is_tar and split is not None:
        raise DataError(f"a tar file has no splits, but got split {split!r} for {path}; "
                        f"leave `split` out")
    # timm would keep its scan of a large tar as a pickle beside it.
    options = {"cache_tarinfo": False} if is_tar else {}
    try:
        reader = create_dataset("", root=path, split=split or "validation", **options).reader
    except Exception as error:  # RuntimeError, tarfile's own, and asserts
        raise DataError(f"no images in {path}: {one_line(error)}") from error
    if split is not None and not is_tar and (reader.root == path or "[" in split):
        found = ", ".join(sorted(entry.name for entry in os.scandir(path) if entry.is_dir())[:8])
        raise DataError(f"`split` must be a folder in {path}, but got {split!r}; "
                        f"it has {found or 'none'}")
    samples = []
    if is_tar:
        numbers = reader.class_name_to_idx
        for (member, _, parent), label in zip(reader.samples, reader.targets, strict=True):
            offset = member.offset_data + (parent.offset_data if parent is not None else 0)
            samples.append((path, offset, member.size, member.name, int(label)))
    else:
        numbers = reader.class_to_idx
        for file, label in reader.samples:
            samples.append((file, 0, -1, os.path.relpath(file, reader.root), label))
    fingerprint = files_fingerprint(list(dict.fromkeys(file for file, *_ in samples)))
    return _Files(path, samples, fingerprint, sorted(numbers, key=numbers.__getitem__))


class _Torch(Source):
    def __init__(self, title: str, dataset: Any, fingerprint: str) -> None:
        names = getattr(dataset, "wnids", None) or getattr(dataset, "classes", None)
        if names is not None and not all(isinstance(name, str) for name in names):
            names = None
        super().__init__(title, len(dataset), fingerprint, names)
        self._dataset = dataset

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        image, label = self._dataset[index]
        return image, label


def _open_torch(rest: str, split: str | None, _input_mode: str) -> Source:
    from timm.data import create_dataset

    name, _, root = rest.partition("/")
    split = split or "validation"
    if not root:
        raise DataError(f"torch/ needs the folder that the data set lies in, but got "
                        f"torch/{rest}; write torch/{name or 'cifar10'}/FOLDER")
    try:
        dataset = create_dataset(f"torch/{name}", root=root, split=split)
    except Exception as error:  # each of torchvision's data sets has its own
        raise DataError(f"torch/{rest} (split {split}) cannot be opened: "
                        f"{one_line(error)}") from error
    return _Torch(f"torch/{rest} {split}", dataset, tree_fingerprint(root))


class _Stream(Source):
    """Samples of WebDataset shards, in the order in which they are stored.

    timm decodes them, and logs and drops those it cannot decode; the log is recorded, so that a
    dropped one counts as unreadable here too.
    """

    sequential = True

    def __init__(self, title: str, dataset: Any, fingerprint: str) -> None:
        super().__init__(title, 0, fingerprint)
        self._samples = _samples_and_log(dataset)

    def __len__(self) -> int:
        raise TypeError("a stream has no length")

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        sample = next(self._samples, None)
        if sample is None:
            raise IndexError(index)
        if isinstance(sample, str):
            raise ValueError(sample)
        image, label = sample
        return image, label


def _samples_and_log(dataset: Iterable[Any]) -> Iterator[Any]:
    """The samples that timm yields, and a text for each that it drops: what it logs then."""
    logger = logging.getLogger("timm.data.readers.reader_wds")
    dropped = _LogRecorder()
    samples = iter(dataset)
    while True:
        logger.addHandler(dropped)
        try:
            sample = next(samples, None)
        finally:
            logger.removeHandler(dropped)
        yield from dropped.messages
        dropped.messages.clear()
        if sample is None:
            return
        yield sample


class _LogRecorder(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _open_webdataset(root: str, split: str | None, input_mode: str) -> Source:
    from timm.data import create_dataset

    split = split or "validation"
    if not os.path.isdir(root):
        raise DataError(f"wds/ needs the folder that the shards lie in, but got wds/{root}")
    title = f"wds/{root} {split}"
    try:
        dataset = create_dataset(f"wds/{root}", root=root, split=split, input_img_mode=input_mode)
    except Exception as error:  # a package that is missing, timm's own
        raise DataError(f"{title} cannot be opened: {one_line(error)}") from error
    return _Stream(title, dataset, tree_fingerprint(root))


READERS: dict[str, Callable[[str, str | None, str], Source]] = {
    "hfds": open_hugging_face,
    "torch": _open_torch,
    "wds": _open_webdataset,
}
"""Before the first slash of a source -> what opens the rest of it: (rest, split, input mode)."""
