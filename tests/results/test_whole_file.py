"""A file appears whole or not at all, whatever stands in its place."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ztp_search.results.whole_file import check_place, in_place_of


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), in_place_of(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with in_place_of(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "a", tmp_path / "link"
    link.symlink_to(target)
    for text in ("first", "second"):
        check_place(link)
        with in_place_of(link) as temporary:
            temporary.write_text(text)
        assert link.is_symlink() and target.read_text() == text


def test_what_cannot_be_replaced_gets_the_contents(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    check_place(fifo)
    with in_place_of(fifo) as temporary:
        temporary.write_text("text")
    reader.join()
    assert got == ["text"] and fifo.is_fifo() and list(tmp_path.iterdir()) == [fifo]


def test_a_folder_is_refused_and_a_place_that_is_checked_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        check_place(tmp_path)
    with pytest.raises(IsADirectoryError), in_place_of(tmp_path):
        pass
    check_place(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        check_place(tmp_path / "none" / "a")
    assert list(tmp_path.iterdir()) == []
