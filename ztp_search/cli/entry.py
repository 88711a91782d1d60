"""Where `ztp-search` begins: it can be stopped before what takes seconds to import is there.

SIGTERM, with which job systems end what runs out of time, ends it as Ctrl-C does.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from ztp_search.cli.memory import limited

_came: list[int] = []
"""Signals to stop. Libraries between the handler and `main` may turn what it raises into another
KeyboardInterrupt, or into an error of their own, so what was raised does not say what came."""


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        # nohup has it ignored
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        from ztp_search.cli.main import main

        return main()
    except KeyboardInterrupt:
        word, status = how_stopped()
        print(f"ztp-search: {word} before it began", file=sys.stderr)
        return status
    except Exception as error:  # while what is needed to tell it better was imported
        if (message := limited(error)) is None:
            raise
        print(f"ztp-search: {message}", file=sys.stderr)
        return 2


def was_stopped() -> bool:
    """Whether a signal to stop has come."""
    return bool(_came)


def how_stopped() -> tuple[str, int]:
    """A word for what has raised KeyboardInterrupt, and the exit status that tells a shell."""
    if signal.SIGTERM in _came:
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def _terminate(number: int, frame: FrameType | None) -> None:
    if number not in _came:  # a second one would end it in the middle
        _came.append(number)
        _raise_between_imports(number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    _raise_between_imports(number, frame)


def _raise_between_imports(_: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, now or when no import is under way.

    Where a compiled library initialises itself, an exception ends the process by abort(), or
    becomes an ImportError.
    """
    if not _imports(frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, _raise_between_imports)
    signal.setitimer(signal.ITIMER_REAL, 0.02)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
