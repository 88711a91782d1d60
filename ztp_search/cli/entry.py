"""Where `ztp-search` begins: it can be stopped before what takes seconds to import is there.

SIGTERM, with which job systems end what runs out of time, ends it as Ctrl-C does.
"""

from __future__ import annotations

import signal
import sys

_came: list[int] = []
"""Signals, in order. Libraries between it and `main` may turn what a handler raises into another
KeyboardInterrupt, so what was raised does not say which it was."""


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        from ztp_search.cli.main import main

        return main()
    except KeyboardInterrupt:
        word, status = how_stopped()
        print(f"ztp-search: {word} before it began", file=sys.stderr)
        return status


def how_stopped() -> tuple[str, int]:
    """A word for what has raised KeyboardInterrupt, and the exit status that tells a shell."""
    if _came:
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def _terminate(number: int, _: object) -> None:
    _came.append(number)
    if len(_came) == 1:  # a second one would end it in the middle
        raise KeyboardInterrupt
