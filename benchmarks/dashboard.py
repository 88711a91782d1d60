"""How long the first page of a large study takes, in a browser.

    python benchmarks/dashboard.py [--trials 5000] [--images 2000] [--repeats 3] [--plain]

A search whose results are made up, all else being real, fills a study; then Chromium opens the
page of its note and the page of its plots, in a fresh profile each time. Seconds from the call of
the page until the first of its charts stands and the browser is idle; processor seconds of the
renderer in them, which other work on the machine prolongs less; and of the server until it says
where it listens. --plain also measures optuna-dashboard by itself on the same file, which takes
minutes. To reach: 3 s.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from common import record
from made_up import made_up_results
from playwright.sync_api import sync_playwright

import ztp_search

STUDY = "benchmark"
DRAWN = "() => document.querySelectorAll('.points path').length > 100"
"""Whether the trials stand in the first chart, the history."""
PLAIN = (
    "import optuna_dashboard, wsgiref.simple_server as w, sys\n"
    "class Handler(w.WSGIRequestHandler):\n"
    "    def log_message(self, *_): pass\n"
    "import socketserver\n"
    "class Server(socketserver.ThreadingMixIn, w.WSGIServer): daemon_threads = True\n"
    "s = w.make_server('127.0.0.1', 0, optuna_dashboard.wsgi(sys.argv[1]), Server, Handler)\n"
    "print(f'http://127.0.0.1:{s.server_port}/dashboard/studies/1', file=sys.stderr, flush=True)\n"
    "s.serve_forever()\n"
)
"""optuna-dashboard itself, on the server that ours runs on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--folder", help="of a study that was made before, or is to be kept")
    args = parser.parse_args()
    with contextlib.ExitStack() as held:
        folder = Path(args.folder or held.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder / 'studies.db'}"
        if not (folder / "studies.db").exists():
            fill(folder, args.trials, args.images)
        ours = [sys.executable, "-m", "ztp_search", "dashboard", "--out", str(folder),
                "--study", STUDY, "--port", "0"]  # fmt: skip
        stated = {name: value for name, value in vars(args).items() if name != "folder"}
        result: dict[str, Any] = {"arguments": stated}
        with serving(ours) as (address, seconds):
            result["seconds_until_it_listens"] = seconds
            for name, page in {"note": address, "plots": address.removesuffix("/note")}.items():
                result[name] = pages(page, args.repeats)
        if args.plain:
            with serving([sys.executable, "-c", PLAIN, url]) as (address, seconds):
                result["optuna_dashboard_alone"] = pages(address, 1)
    for key, value in result.items():
        print(f"{key}: {value}")
    record("dashboard", result)


def fill(folder: Path, trials: int, images: int) -> None:
    """A study of so many trials, which differ by what their first pruning layer takes out."""
    with made_up_results():
        ztp_search.search(
            ztp_search.SearchSettings(
                space="digits", budget="50%", trials=trials, images=images, holdout=1_000,
                workers=0, out=folder, study=STUDY,
            )
        )  # fmt: skip


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[tuple[str, float]]:
    """The address that a server says on stderr, and the seconds until then."""
    began = time.perf_counter()
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        address = next(word for word in line.split() if word.startswith("http://"))
        yield address, time.perf_counter() - began
    finally:
        server.terminate()
        server.communicate()


def pages(address: str, repeats: int) -> dict[str, Any]:
    """Seconds until the page is there: every one, and the median."""
    found = [opened(address) for _ in range(repeats)]
    seconds, processor = zip(*found, strict=True)
    return {
        "seconds": statistics.median(seconds), "renderer_processor_seconds": min(processor),
        "each": [round(each, 2) for each in seconds],
    }  # fmt: skip


def opened(address: str) -> tuple[float, float]:
    """Seconds until the page stands, and processor seconds of what renders it."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        page.goto(address)
        if address.endswith("/note"):
            page.wait_for_selector("main h1", timeout=300_000)
        else:
            page.wait_for_function(DRAWN, timeout=300_000)
        page.evaluate("() => new Promise(done => requestIdleCallback(done))")
        seconds = time.perf_counter() - began
        processor = max(
            sum(process.cpu_times()[:2])
            for process in psutil.Process().children(recursive=True)
            if "--type=renderer" in process.cmdline()
        )
        browser.close()
    return seconds, processor


if __name__ == "__main__":
    main()
