"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_place(path: Path) -> None:
    """Raises OSError if `path` cannot be written, before any work; leaves nothing there."""
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    if not _is_stream(path):
        with tempfile.TemporaryFile(dir=_behind_links(path).parent):
            pass


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when all is written, and only then.

    Where `path` is a link, what it leads to is replaced; what cannot be replaced (/dev/stdout, a
    FIFO) gets the contents instead.

    Raises OSError, before anything is written where it can, if `path` cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder", str(path))
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            yield temporary
            with temporary.open("rb") as whole, path.open("wb") as stream:
                shutil.copyfileobj(whole, stream)
        return
    path = _behind_links(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _behind_links(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path
