"""What is printed: results on stdout, everything else on stderr, settings named as options."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType

from ztp_search.driver.json_log import JsonLog
from ztp_search.driver.progress import Progress
from ztp_search.driver.terminal import TerminalProgress
from ztp_search.errors import ZtpError
from ztp_search.results.shown import natural_width
from ztp_search.settings import EvaluateSettings, SearchSettings, VisualizeSettings

SETTINGS = frozenset(
    {each.name for of in (SearchSettings, EvaluateSettings, VisualizeSettings)
     for each in dataclasses.fields(of)}
    | {"allow_edit", "config", "format", "host", "output", "port", "trial"}
)
"""What messages name in backticks, and the command line as options."""


def as_options(message: str) -> str:
    """A message about settings as the command line says it: `batch_size` becomes --batch-size.

    A value goes along: `device=cpu` becomes --device cpu.
    """
    return re.sub(r"`([a-z0-9_]+)(?:=([^`]+))?`", _option, message)


def _option(match: re.Match[str]) -> str:
    name, value = match.groups()
    if name not in SETTINGS:
        return match[0]
    return f"--{name.replace('_', '-')}" + ("" if value is None else f" {value.strip(chr(39))}")


def print_result(
    document: Mapping[str, Any], table: Callable[[Mapping[str, Any]], RenderableType], as_json: bool
) -> None:
    """One JSON document, or a table for people."""
    if as_json:
        write(json.dumps(document, indent=1, allow_nan=False) + "\n")
        return
    shown = table(document)
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:  # a file or another program loses nothing by long lines
        console.width = natural_width(shown, console)
    width = console.width  # of the terminal, so before the console writes elsewhere
    console.file = buffer = io.StringIO()  # rich itself exits with 1 where the reader has left
    console.print(shown, width=width)
    write(buffer.getvalue())


def write(text: str) -> None:
    """To stdout, at once: a full disk is noticed here."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence_stdout()
        raise ZtpError(f"stdout cannot be written: {error.strerror}") from None


def silence_stdout() -> None:
    """What is left in its buffer cannot be written, and Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def terminal_progress() -> TerminalProgress:
    """Progress on stderr, in the words of the command line."""
    return TerminalProgress(Console(stderr=True), wording=as_options)


def json_log() -> JsonLog:
    """A log on stderr, in the words of the command line."""
    return JsonLog(sys.stderr, wording=as_options)


@contextlib.contextmanager
def logged() -> Iterator[Progress]:
    """A log on stderr, and nothing else there or on stdout: what is printed becomes its events."""
    log = json_log()
    output = log.output()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        yield log


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Progress on stderr, as what else is printed."""
    with only_results_on_stdout(), terminal_progress() as progress:
        yield progress


def only_results_on_stdout() -> contextlib.redirect_stdout[Any]:
    """Ray prints there that a worker died, and what a library prints is no result."""
    return contextlib.redirect_stdout(sys.stderr)
