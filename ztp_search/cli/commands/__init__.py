"""The commands by name, a file each: what it is for, its arguments, what it does and prints.

Importing them is cheap; what takes seconds is imported by the API when a command runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Protocol

from ztp_search.cli.arguments import Parser
from ztp_search.cli.commands import (
    best,
    cost,
    dashboard,
    evaluate,
    export,
    report,
    search,
    spaces,
    visualize,
)


class Command(Protocol):
    """What the file of a command holds."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: Parser) -> None: ...

    def run(self, args: argparse.Namespace) -> None:
        """Do it and print the result; ZtpError and WorkerError are for `main`."""


COMMANDS: Mapping[str, Command] = {
    command.NAME: command
    for command in (search, best, evaluate, cost, visualize, report, export, dashboard, spaces)
}
"""`search` is the default: it goes by `ztp-search` alone."""
