"""Files that appear whole or not at all."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_place(path: Path) -> None:
    """Raises OSError if `path` cannot be written, before any work; leaves nothing there."""
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    with tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when all is written, and only then.

    Raises OSError, before anything is written where it can, if `path` cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder", str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
