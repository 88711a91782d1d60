"""Where `ztp-search` begins: it can be stopped before what takes seconds to import is there.

SIGTERM, with which job systems end what runs out of time, ends it as Ctrl-C does.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        from ztp_search.cli.main import main

        return main()
    except KeyboardInterrupt as stop:
        word, status = how_stopped(stop)
        print(f"ztp-search: {word} before it began", file=sys.stderr)
        return status


def how_stopped(stop: KeyboardInterrupt) -> tuple[str, int]:
    """A word for it, and the exit status that says the same to a shell."""
    if isinstance(stop, Terminated):
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def _terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end it in the middle
    raise Terminated
