"""One opened split of a data set: images by index, each with the model's label for it."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ztp_search.data.class_map import map_classes
from ztp_search.data.hub import one_line
from ztp_search.errors import DataError

Undecoded = bytes | Image.Image


class UnreadableImage(DataError):
    """One image cannot be read or decoded; the others may."""


class Source(ABC):
    """One opened split of a data set: images by index, with the model's label for each.

    Attributes:
        title: Data set and split, for messages.
        class_names: Of the data set's own classes; None where they have no names.
        unlabelled: Why there are no labels; "" if there are.
        fingerprint: Changes when the images do; taken from sizes and times of files, not from
            their bytes.
        sequential: Whether it is a stream, which has no length and is read in order alone: read(0),
            read(1), …
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
        self._outputs: Sequence[int] = ()  # by class of the data set

    @property
    def labels_are_meaningful(self) -> bool:
        return not self.unlabelled

    def bind(self, num_classes: int, class_map: str | None) -> Source:
        """From now on give labels as the outputs of a model; returns the source itself.

        Args:
            num_classes: How many outputs the model has.
            class_map: File that says which output a class is; see `class_map.load_class_map`.

        Raises:
            DataError: A class has no output.
        """
        if not self.unlabelled:
            labels = map_classes(self.class_names, num_classes, class_map)
            self._outputs = range(num_classes) if labels.outputs is None else labels.outputs
            self.unlabelled = labels.unlabelled
        return self

    def __len__(self) -> int:
        return self._length

    def expect(self, indices: Sequence[int]) -> None:  # noqa: B027 - most need no hint
        """A hint that these are read next, for a source that is faster at many."""

    def read(self, index: int) -> tuple[Undecoded, int | None]:
        """One image and its label.

        Returns:
            The file's bytes (a PIL image where the reader decodes), and the output of the model
            that is right, None where it is unknown.

        Raises:
            UnreadableImage: The image cannot be read; names it.
            DataError: The model has no such output.
            IndexError: A stream has no more images.
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

    @abstractmethod
    def _read(self, index: int) -> tuple[Undecoded, Any]:
        """The image, and the label as the data set has it."""

    def _label(self, label: Any, index: int) -> int | None:
        if label is None or self.unlabelled:
            return None
        try:
            number = operator.index(label)
        except TypeError:
            raise DataError(f"labels must be integers, but {self.title}: {self.name(index)} has "
                            f"{label!r}; use the `objective` agreement, which needs none") from None
        if number == -1:  # how published test splits hide their labels
            return None
        if not 0 <= number < len(self._outputs):
            raise DataError(
                f"labels must lie in 0..{len(self._outputs) - 1}, but {self.title}: "
                f"{self.name(index)} has {number}; give a `class_map` file, or a model with that "
                f"many classes"
            )
        return self._outputs[number]


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
    return digest(*entries)


def tree_fingerprint(root: str) -> str:
    """`files_fingerprint` of all that lies below a folder."""
    return files_fingerprint([str(file) for file in sorted(Path(root).rglob("*"))])


def digest(*parts: Any) -> str:
    """SHA-256 of `parts` as JSON has them, bytes in hexadecimal."""
    return hashlib.sha256(json.dumps(parts, default=bytes.hex).encode()).hexdigest()
