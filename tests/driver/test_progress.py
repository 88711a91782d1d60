"""Who is told how far work is: a notebook by itself, stderr if asked, otherwise nobody."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Finished

import ztp_search
from ztp_search import SearchSettings
from ztp_search.driver import notebook
from ztp_search.driver.notebook import NotebookProgress
from ztp_search.driver.progress import Progress, Status, told

STATUS = Status(12, 40, 9, 2, 4, 812.4, (7, 0.951), 31.0)
LINE = "12 of 40  0:31 left  best 95.10 % (trial 7)  rung 2/4 (9 racing)  812 images/s"


class Cell:
    """What a notebook shows below a cell: `display` of IPython, and what became of it."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, shown: Any, display_id: bool) -> Cell:
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.shown.append(shown)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """This process is the kernel of a notebook."""
    cell = Cell()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    shown = SimpleNamespace(HTML=str, display=cell.display)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return cell


def test_a_status_is_one_line() -> None:
    assert str(STATUS) == LINE
    assert str(Status(1, 8, 7, 1, 1, 0.0, None, None)) == "1 of 8  0 images/s"
    assert "  1:01:01 left" in str(Status(1, 8, 7, 1, 1, 0.0, None, 3661.2))


def test_a_script_prints_nothing(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for progress in (None, False):
        ztp_search.search(SearchSettings(**finished.settings), progress)
        assert capsys.readouterr() == ("", "")


def test_who_asks_is_told_on_stderr(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    ztp_search.search(SearchSettings(**finished.settings), True)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[0] == "loading the model"


def test_whoever_is_given_is_told() -> None:
    mine = Progress()
    with told(mine) as progress:
        assert progress is mine


def test_a_notebook_shows_one_line_and_keeps_the_notes(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "SECONDS_PER_UPDATE", 0.0)
    with told(None) as progress:
        assert isinstance(progress, NotebookProgress)
        progress.stage("decoding <images>")
        assert cell.shown[-1] == "<div>decoding &lt;images&gt; <progress></progress> </div>"
        progress.images(1000, 4000)
        bar = '<progress value="1000" max="4000"></progress>'
        assert cell.shown[-1] == (
            f"<div>decoding &lt;images&gt; {bar} 1,000 of 4,000 images</div>"
        )
        progress.note("budget <50%>")
        progress.trials(STATUS)
        assert cell.shown[-1] == (
            "<div>budget &lt;50%&gt;</div>"
            f'<div>trials <progress value="12" max="40"></progress> {LINE}</div>'
        )
    assert cell.shown[-1] == "<div>budget &lt;50%&gt;</div>"


def test_a_notebook_is_not_flooded(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "SECONDS_PER_UPDATE", 1000.0)
    with told(True) as progress:
        assert isinstance(progress, NotebookProgress)
        progress.stage("decoding images")
        for done in range(100):
            progress.images(done, 100)
    assert len(cell.shown) == 3  # empty, the stage, the end


def test_a_notebook_can_be_silent(cell: Cell) -> None:
    with told(False) as progress:
        progress.stage("loading the model")
    assert cell.shown == []


def test_a_prompt_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in (None, SimpleNamespace()):
        ipython = SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        with told(None) as progress:
            assert type(progress) is Progress
