"""Searches on a database server that does not answer when it is asked for first."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from helpers.running import SEARCH, argv_of, one_line
from helpers.studies import optuna_study
from helpers.tcp_proxy import behind_proxy

from ztp_search.cli.main import main
from ztp_search.study import outage


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a database on a port that nobody answers at."""
    pytest.importorskip("psycopg")
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        yield f"postgresql+psycopg://user:secret@127.0.0.1:{bound.getsockname()[1]}/studies"


@pytest.mark.parametrize("json", [False, True])
def test_a_search_waits_for_its_server_and_then_names_both_causes(
    nobody: str, json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outage, "FIRST_PATIENCE", 1.0)
    argv = ["--space", "digits", "--budget", "50%", "--storage", nobody]
    assert main([*argv, *(["--json"] if json else [])]) == 1
    out, err = capsys.readouterr()
    waiting, end = err.splitlines()
    refused = "the study database postgresql+psycopg://user:***@127.0.0.1:"
    assert waiting.startswith(refused) and "Connection refused" in waiting
    assert waiting.endswith("; trying again for 1 s (Ctrl-C ends the search)")
    assert one_line(end).startswith(f"ztp-search: {refused}")
    assert "; the server is away, or --storage names a wrong host or port; " in end
    assert "Resume with: ztp-search --space digits --budget 50% --storage " in end
    assert out == "" and "secret" not in err


@pytest.mark.parametrize("command", ["best", "export --format json", "report -o report.md"])
def test_what_only_reads_does_not_wait(
    nobody: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--storage", nobody]) == 2
    assert "cannot be used: " in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("url", "names"),
    [("postgresql+nothing://u@127.0.0.1/x", "nothing"), ("oracle://u@127.0.0.1/x", "oracle")],
)
def test_a_mistake_in_the_address_is_told_at_once(
    url: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--space", "digits", "--budget", "50%", "--storage", url]) == 2
    assert names in one_line(capsys.readouterr().err)


@pytest.mark.server
@pytest.mark.parametrize("variable", ["ZTP_TEST_POSTGRES", "ZTP_TEST_MARIADB"])
def test_a_search_begins_when_its_server_is_there(
    variable: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direct = os.environ.get(variable)
    if not direct:
        pytest.skip(f"{variable} names no database")
    name = f"test-{os.getpid()}-{time.time_ns()}"
    with behind_proxy(direct) as (url, proxy):
        proxy.up = False
        threading.Timer(2.0, setattr, (proxy, "up", True)).start()
        settings = {**SEARCH, "trials": 2, "images": 32, "holdout": 8, "study": name}
        argv = argv_of({**settings, "storage": url, "out": tmp_path, "workers": 0})
        assert main([*argv, "--json"]) == 0
    err = capsys.readouterr().err
    assert "trying again for 60 s" in err and "the study database is back after" in err
    with optuna_study(direct, name) as optunas:
        assert [trial.state.name for trial in optunas.trials] == ["COMPLETE"] * 2
        optuna.delete_study(study_name=name, storage=optunas._storage)
