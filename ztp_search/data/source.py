"""Where images come from: one opened split of whatever the user names.

Folders, tar files, `torch/` and `wds/` are found and listed by timm; images are then read here,
because timm's datasets silently put the next image in the place of an unreadable one. Hugging
Face data sets are opened by `datasets` itself, so that columns may have any name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ztp_search.data.class_map import map_classes
from ztp_search.data.digits import DigitScenes
from ztp_search.errors import DataError

DATASETS = {"digits": DigitScenes}
"""The embedded data sets: name -> class that takes a split and is a sequence of (image, label)."""

OFFLINE_COMMAND = "ztp-search --space digits --budget 68%"

Undecoded = bytes | Image.Image


class UnreadableImage(DataError):
    """One image cannot be read or decoded; the others may."""


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Which images.

    source: "digits", the path of an image folder or .tar, "hfds/NAME" (or "hfds/" and a path),
        "torch/NAME/FOLDER", "wds/FOLDER" (whose split names shards: "test-{000..009}.tar").
    split: None is "search" for digits, and otherwise a validation or test split as it is found.
    holdout_split: where holdout images come from; None: from `split`, none of them used twice.
    class_map: file that says which output of the model a class is; see `class_map`.
    """

    source: str
    split: str | None = None
    holdout_split: str | None = None
    class_map: str | None = None


class Source:
    """One opened split: images by index, with the model's label for each.

    title: source and split, for messages.
    class_names: of the data set's own classes, None where they have no names.
    unlabelled: why there are no labels, "" if there are.
    fingerprint: changes when the images behind it do; taken from sizes and times of files, not
        from their bytes.
    sequential: a stream; only read(0), read(1), … in this order, and no length.
    """

    sequential = False

    def __init__(
        self,
        title: str,
        length: int,
        fingerprint: str,
        class_names: Sequence[str] | None = None,
        unlabelled: str = "",
    ) -> None:
        self.title = title
        self.fingerprint = fingerprint
        self.class_names = None if class_names is None else tuple(class_names)
        self.unlabelled = unlabelled
        self._length = length
        self._outputs: tuple[int, ...] | None = None
        self._num_classes = 0

    @property
    def labels_are_meaningful(self) -> bool:
        return not self.unlabelled

    def bind(self, num_classes: int, class_map: str | None) -> Source:
        """Translate labels into the outputs of a model with `num_classes` classes."""
        self._num_classes = num_classes
        if not self.unlabelled:
            labels = map_classes(self.class_names, num_classes, class_map)
            self._outputs, self.unlabelled = labels.outputs, labels.unlabelled
        return self

    def __len__(self) -> int:
        return self._length

    def read(self, index: int) -> tuple[Undecoded, int | None]:
        """Undecoded bytes (a PIL image where the reader decodes) and the label, None if unknown.

        Raises UnreadableImage by name, DataError for a label that the model does not have, and
        IndexError after the last image of a stream.
        """
        try:
            image, label = self._read(index)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises each of them
            raise UnreadableImage(f"{self.title}: {self.name(index)} cannot be read: "
                                  f"{one_line(error)}") from error
        return image, self._label(label, index)

    def name(self, index: int) -> str:
        """File name inside the data set, or split/index."""
        return f"{self.title.rpartition(' ')[2]}/{index}"

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        raise NotImplementedError

    def _label(self, label: Any, index: int) -> int | None:
        if label is None or self.unlabelled:
            return None
        try:
            number = operator.index(label)
        except TypeError:
            raise DataError(f"labels must be integers, but {self.title}: {self.name(index)} has "
                            f"{label!r}; use --objective agreement, which needs none") from None
        if number == -1:  # how published test splits hide their labels
            return None
        classes = self._num_classes if self._outputs is None else len(self._outputs)
        if not 0 <= number < classes:
            raise DataError(
                f"labels must lie in 0..{classes - 1}, but {self.title}: {self.name(index)} has "
                f"{number}; give --class-map FILE, or a model with that many classes"
            )
        return number if self._outputs is None else self._outputs[number]


def open_source(
    spec: DataSpec, split: str | None, *, num_classes: int, input_mode: str = "RGB"
) -> Source:
    """Open `split` of `spec.source` for a model with `num_classes` outputs.

    input_mode: "L" or "RGB"; only readers that decode on their own heed it.
    Raises DataError when it cannot be had, at once also without network.
    """
    prefix, _, rest = spec.source.partition("/")
    prefix = prefix.lower()
    if spec.source in DATASETS:
        source: Source = _Embedded(spec.source, split or "search")
    elif prefix == "hfds":
        source = _open_hugging_face(rest, split)
    elif prefix == "torch":
        source = _open_torch(rest, split)
    elif prefix == "wds":
        source = _open_webdataset(rest, split or "validation", input_mode)
    else:
        source = _open_files(spec.source, split)
    return source.bind(num_classes, spec.class_map)


class _Embedded(Source):
    def __init__(self, source: str, split: str) -> None:
        self._dataset = DATASETS[source](split)
        # The content is code, so a sample of it stands for the whole.
        sample = [self._dataset[index][0].tobytes() for index in range(4)]
        super().__init__(f"{source} {split}", len(self._dataset), _digest(source, split, sample))

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        return self._dataset[index]


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
        raise DataError(f"--data must be an image folder, a .tar, {', '.join(DATASETS)}, or begin "
                        f"with hfds/, torch/ or wds/, but got {path!r}")
    if is_tar and split is not None:
        raise DataError(f"a tar file has no splits, but got split {split!r} for {path}; "
                        f"leave --split out")
    # timm would keep its scan of a large tar as a pickle beside it.
    options = {"cache_tarinfo": False} if is_tar else {}
    try:
        reader = create_dataset("", root=path, split=split or "validation", **options).reader
    except Exception as error:  # RuntimeError, tarfile's own, and asserts
        raise DataError(f"no images in {path}: {one_line(error)}") from error
    if split is not None and not is_tar and (reader.root == path or "[" in split):
        found = ", ".join(sorted(entry.name for entry in os.scandir(path) if entry.is_dir())[:8])
        raise DataError(f"--split must be a folder in {path}, but got {split!r}; "
                        f"it has {found or 'none'}")
    samples = []
    if is_tar:
        names = sorted(reader.class_name_to_idx, key=reader.class_name_to_idx.__getitem__)
        for (member, _, parent), label in zip(reader.samples, reader.targets, strict=True):
            offset = member.offset_data + (parent.offset_data if parent is not None else 0)
            samples.append((path, offset, member.size, member.name, int(label)))
        fingerprint = files_fingerprint([path])
    else:
        names = sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__)
        for file, label in reader.samples:
            samples.append((file, 0, -1, os.path.relpath(file, reader.root), label))
        fingerprint = files_fingerprint([file for file, *_ in samples])
    return _Files(f"{path}", samples, fingerprint, names)


class _HuggingFace(Source):
    def __init__(self, title: str, dataset: Any) -> None:
        import datasets

        features = dataset.features
        images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
        if not images:
            raise DataError(f"{title} must have a column of images, but its columns are "
                            f"{', '.join(features)}")
        labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        self._image = "image" if "image" in images else images[0]
        self._target = "label" if "label" in features else (labels[0] if len(labels) == 1 else None)
        columns = [self._image] if self._target is None else [self._image, self._target]
        self._dataset = dataset.select_columns(columns)
        self._dataset = self._dataset.cast_column(self._image, datasets.Image(decode=False))
        super().__init__(
            title, len(dataset), self._dataset._fingerprint,
            class_names=getattr(features.get(self._target), "names", None),
            unlabelled="" if self._target else f"{title} has no column of labels",
        )  # fmt: skip

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        row = self._dataset[index]
        image = row[self._image]
        if image is None:
            raise ValueError("the row has no image")
        encoded = image["bytes"] or Path(image["path"]).read_bytes()
        return encoded, row[self._target] if self._target else None


def _open_hugging_face(name: str, split: str | None) -> Source:
    import datasets

    saved = any((Path(name) / file).exists() for file in ("dataset_dict.json", "state.json"))
    title = f"hfds/{name}" + (f" {split}" if split else "")
    with contextlib.nullcontext(True) if Path(name).exists() else hub() as answers:
        try:
            if saved:
                found = datasets.load_from_disk(name)
            else:
                found = datasets.load_dataset(name, split=split)
        except Exception as error:  # whichever of datasets', the hub's and the network's own
            if answers and not isinstance(error, ConnectionError):
                raise DataError(f"{title} cannot be opened: {one_line(error)}") from error
            raise DataError(
                f"{title} is neither in the cache nor can the Hugging Face hub be reached; give "
                f"images with --data FOLDER (and a model with --weights FILE), or run offline: "
                f"{OFFLINE_COMMAND}"
            ) from error
    if isinstance(found, dict):
        splits = [split] if split else ["validation", "test", *found]
        chosen = next((choice for choice in splits if choice in found), None)
        if chosen is None:
            raise DataError(f"--split must be one of {', '.join(found)}, but got {split!r}")
        split, found = chosen, found[chosen]
    elif saved and split not in (None, str(found.split)):
        raise DataError(f"hfds/{name} has no splits, but got split {split!r}; leave --split out")
    return _HuggingFace(f"hfds/{name} {split or found.split or 'all'}", found)


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


def _open_torch(rest: str, split: str | None) -> Source:
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
    return _Torch(f"torch/{rest} {split}", dataset, _tree_fingerprint(root))


class _Stream(Source):
    """Samples of WebDataset shards, in the order in which they are stored.

    timm decodes them, and logs and drops those it cannot decode; the log is listened to, so that
    a dropped one counts as unreadable here too.
    """

    sequential = True

    def __init__(self, title: str, dataset: Any, fingerprint: str) -> None:
        super().__init__(title, 0, fingerprint)
        self._samples = iter(dataset)
        self._waiting: list[Any] = []
        self._dropped = _Listener()

    def __len__(self) -> int:
        raise TypeError("a stream has no length")

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        if not self._waiting:
            logger = logging.getLogger("timm.data.readers.reader_wds")
            logger.addHandler(self._dropped)
            try:
                self._waiting.append(next(self._samples, None))
            finally:
                logger.removeHandler(self._dropped)
        if self._dropped.messages:
            raise ValueError(self._dropped.messages.pop(0))
        sample = self._waiting.pop()
        if sample is None:
            self._waiting.append(None)
            raise IndexError(index)
        image, label = sample
        return image, label


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _open_webdataset(root: str, split: str, input_mode: str) -> Source:
    from timm.data import create_dataset

    if not os.path.isdir(root):
        raise DataError(f"wds/ needs the folder that the shards lie in, but got wds/{root}")
    title = f"wds/{root} {split}"
    try:
        dataset = create_dataset(f"wds/{root}", root=root, split=split, input_img_mode=input_mode)
    except Exception as error:  # a package that is missing, timm's own
        raise DataError(f"{title} cannot be opened: {one_line(error)}") from error
    return _Stream(title, dataset, _tree_fingerprint(root))


@contextlib.contextmanager
def hub() -> Iterator[bool]:
    """Use the Hugging Face hub inside, or only its cache where it does not answer; says which.

    Without this the client tries each file for 23 seconds before it gives up.
    """
    from huggingface_hub import constants, get_session

    offline = constants.HF_HUB_OFFLINE
    answers = not offline
    if answers:
        try:
            get_session().head(constants.ENDPOINT, timeout=5.0)  # seconds
        except Exception:  # the HTTP library's own, which changes with the client's version
            answers = False
    constants.HF_HUB_OFFLINE = not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = offline


def files_fingerprint(paths: Sequence[str]) -> str:
    """Digest of path, size and time of change of each file; missing ones count as such."""
    entries: list[tuple[str, int, int]] = []
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            entries.append((os.path.abspath(path), -1, -1))
        else:
            entries.append((os.path.abspath(path), stat.st_size, stat.st_mtime_ns))
    return _digest(*entries)


def _tree_fingerprint(root: str) -> str:
    return files_fingerprint([str(file) for file in sorted(Path(root).rglob("*"))])


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and not too long, or its name."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, default=bytes.hex).encode()).hexdigest()
