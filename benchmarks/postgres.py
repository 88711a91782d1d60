"""A PostgreSQL server of a benchmark's own, out of the programs in /usr/lib/postgresql."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil


class Server:
    """A server with its data in a folder of `out`; `url` is its database.

    `kill` ends all of its processes with SIGKILL; `start` starts it again.
    """

    def __init__(self, out: Path) -> None:
        self._bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self._data = out / "postgres"
        self._data.mkdir()
        self._as = []
        if os.geteuid() == 0:  # as whom it refuses to run
            out.parent.chmod(0o755)
            shutil.chown(self._data, "postgres")
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://ztp@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", str(self._data), "-U", "ztp", "--auth=trust")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*self._as, str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self._port),
             "-h", "127.0.0.1", "-k", ""],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        while subprocess.run(ready).returncode:
            time.sleep(0.2)

    def kill(self) -> None:
        below = psutil.Process(self._process.pid).children(recursive=True)
        for each in [self._process, *below]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()
        psutil.wait_procs(below)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run([*self._as, str(self._bin / name), *arguments], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
