"""Commands whose address space is bounded, as by `ulimit -v`."""

import errno
import json
import subprocess
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
from conftest import Finished
from helpers.running import one_line

from ztp_search.cli import entry, memory
from ztp_search.cli.memory import limited

pytest.importorskip("resource")


def bounded(megabytes: int, *argv: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "ztp_search", *argv]
    return subprocess.run(
        ["sh", "-c", f'ulimit -v {1024 * megabytes} && exec "$@"', "sh", *words],
        capture_output=True, text=True,
    )  # fmt: skip


def test_what_does_not_fit_is_one_line_that_names_the_limit(
    finished: Finished, tmp_path: Path
) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps(finished.document["best"]))
    more = [*finished.argv, "--trials", "20", "--out", str(tmp_path)]
    for argv in (more, ["cost", str(path)]):
        done = bounded(400, *argv)  # less than PyTorch's libraries, whatever they were built for
        assert done.returncode == 2 and done.stdout == ""
        line = one_line(done.stderr)
        assert "but it is 0.4 GB" in line and "ulimit -v unlimited" in line


def test_what_fits_is_done(finished: Finished) -> None:
    done = bounded(400, "best", "--out", str(finished.out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["study"] == "s"


def test_not_even_the_commands_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            raise MemoryError

    monkeypatch.delitem(sys.modules, "ztp_search.cli.main", raising=False)
    monkeypatch.setattr("sys.meta_path", [Full()])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(memory, "address_space", lambda: 100_000_000)
    assert entry.main() == 2
    assert "but it is 0.1 GB, and something did not fit (MemoryError)" in one_line(
        capsys.readouterr().err
    )
    monkeypatch.setattr(memory, "address_space", lambda: None)
    with pytest.raises(MemoryError):
        entry.main()


def test_errors_of_many_kinds_mean_it_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cause = RuntimeError("what failed")
    cause.__cause__ = MemoryError()
    mean_it = [
        MemoryError(), cause, OSError(errno.ENOMEM, "?"), RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ]  # fmt: skip
    others = [RuntimeError("no"), OSError(errno.ENOSPC, "?"), ImportError("No module named 'x'")]
    monkeypatch.setattr(memory, "address_space", lambda: 2_000_000_000)
    for error in mean_it:
        line = limited(error)
        assert line is not None and "but it is 2.0 GB" in line and "\n" not in line
    assert not any(map(limited, others))
    monkeypatch.setattr(memory, "address_space", lambda: None)
    assert not any(map(limited, mean_it))
