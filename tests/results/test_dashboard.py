"""The Optuna dashboard on a study: readable, and editable only where that was asked for."""

import json
import shutil
import urllib.error
import urllib.request
import wsgiref.simple_server
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Finished
from helpers.running import process, url_of

from ztp_search.cli.main import main

optuna_dashboard = pytest.importorskip("optuna_dashboard")


def status_of(base: str, path: str, method: str = "GET") -> int:
    request = urllib.request.Request(base + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def studies_of(base: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{base}/api/studies", timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["study_summaries"]
        return found


@contextmanager
def announced(out: Path, *flags: str) -> Iterator[str]:
    """The address that the dashboard says, as a process on a port that the system chose."""
    with process("dashboard", "--out", str(out), "--port", "0", *flags) as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        assert "http://127.0.0.1:" in line, line
        yield next(word for word in line.split() if word.startswith("http://"))


@contextmanager
def served(out: Path, *flags: str) -> Iterator[str]:
    """The host and port that the dashboard is served on."""
    with announced(out, *flags) as address:
        yield "/".join(address.split("/")[:3])


def test_the_page_of_a_study_is_announced_and_there(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    with announced(finished.out, "--study", "s") as address:
        base, _, page = address.partition("/dashboard/")
        (study,) = studies_of(base)
        assert page == f"studies/{study['study_id']}/note"
        assert status_of(address, "") == 200
    with announced(finished.out) as address:  # the one that was searched last
        assert address.endswith(f"/dashboard/{page}")
    assert main(["dashboard", "--out", str(finished.out), "--study", "t", "--port", "0"]) == 2
    assert "but got 't'; there is s" in capsys.readouterr().err


def test_reading_is_answered_and_changing_is_not(finished: Finished) -> None:
    with served(finished.out) as base:
        assert status_of(base, "/") == 200
        (study,) = studies_of(base)
        assert study["study_name"] == "s"
        number = study["study_id"]
        assert status_of(base, f"/api/studies/{number}?after=0") == 200
        for method in ("DELETE", "POST", "PUT", "PATCH"):
            assert status_of(base, f"/api/studies/{number}", method) == 403
        assert [each["study_name"] for each in studies_of(base)] == ["s"]
    assert optuna.get_all_study_names(url_of(finished.out)) == ["s"]


def test_allow_edit_lets_changes_through(finished: Finished, tmp_path: Path) -> None:
    shutil.copy(finished.out / "studies.db", tmp_path)
    with served(tmp_path, "--allow-edit") as base:
        (study,) = studies_of(base)
        assert status_of(base, f"/api/studies/{study['study_id']}", "DELETE") == 200
        assert studies_of(base) == []
    assert optuna.get_all_study_names(url_of(tmp_path)) == []
    assert optuna.get_all_study_names(url_of(finished.out)) == ["s"]


def test_a_database_of_other_programs_alone_is_served_from_its_list(tmp_path: Path) -> None:
    optuna.create_study(storage=url_of(tmp_path), study_name="theirs")
    with announced(tmp_path) as address:
        assert address.endswith("/") and status_of(address, "dashboard") == 200
        assert [each["study_name"] for each in studies_of(address.rstrip("/"))] == ["theirs"]


def test_a_taken_port_an_address_elsewhere_and_a_missing_database_are_refused(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with wsgiref.simple_server.make_server("127.0.0.1", 0, lambda *_: []) as other:
        port = str(other.server_port)
        assert main(["dashboard", "--out", str(finished.out), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    monkeypatch.setenv("ZTP_DASHBOARD_TOKEN", "0123456789abcdef")
    for host in ("203.0.113.1", "no such host"):  # none of this machine's
        assert main(["dashboard", "--out", str(finished.out), "--port", "0", "--host", host]) == 2
        err = capsys.readouterr().err
        assert f"cannot listen on {host}:0" in err and "use another --host" in err
    assert main(["dashboard", "--out", str(finished.out), "--host", ""]) == 2
    assert "--host must be an address" in capsys.readouterr().err
    assert main(["dashboard", "--out", str(tmp_path), "--port", "0"]) == 2
    assert "does not exist; run a search first" in capsys.readouterr().err
