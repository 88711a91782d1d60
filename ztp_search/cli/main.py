"""`ztp-search`: parse, call, print. Results go to stdout, everything else to stderr.

Exit status: 0 done, 2 the user's mistake (one line), 1 our fault or the machine's, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ztp_search.cli.arguments import Parser
from ztp_search.cli.commands import COMMANDS
from ztp_search.cli.commands.search import DESCRIPTION
from ztp_search.cli.entry import how_stopped, was_stopped
from ztp_search.cli.output import as_options, json_log, silence_stdout
from ztp_search.errors import MachineError, OutageError, ZtpError

LOG_JSON = "--log-json"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    warnings.simplefilter("ignore")  # third parties' deprecations are no message to the user
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parse(arguments)
        COMMANDS[args.command].run(args)
        return 0
    except KeyboardInterrupt:
        return _stopped(arguments)
    except Exception as error:
        return _stopped(arguments) if was_stopped() else _failed(error, arguments)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments of one command; without a command's name they are those of `search`."""
    arguments = list(argv)
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, "search")
    if arguments[0] not in COMMANDS:
        raise ZtpError(f"{arguments[0]!r} is no command; there are {', '.join(COMMANDS)}")
    parser, _ = parsers()
    return parser.parse_args(arguments)


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """The whole command line, and each command's part of it."""
    parser = Parser(prog="ztp-search")
    subparsers = parser.add_subparsers(dest="command", parser_class=Parser)
    commands = {}
    for name, command in COMMANDS.items():
        options = _options_of_search() if name == "search" else {"description": command.HELP}
        commands[name] = subparsers.add_parser(name, **options)
        command.add_arguments(commands[name])
    return parser, commands


def again(arguments: Sequence[str]) -> str:
    """The same command, for printing."""
    words = [_without_password(word) for word in ["ztp-search", *arguments]]
    return " ".join(shlex.quote(word) for word in words)


def _options_of_search() -> dict[str, Any]:
    """`ztp-search --help` is its help, with the commands below."""
    lines = [f"  ztp-search {name:10} {command.HELP}" for name, command in COMMANDS.items()]
    return {
        "prog": "ztp-search",
        "description": DESCRIPTION,
        "epilog": "commands (each with its own --help):\n" + "\n".join(lines),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _without_password(word: str) -> str:
    """An argument for printing; `--storage=URL` too."""
    if "://" not in word:
        return word
    from ztp_search.study import redact

    option, equals, url = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + redact(url)


def _stopped(arguments: Sequence[str]) -> int:
    return _unfinished(*how_stopped(), arguments)


def _unfinished(why: str, status: int, arguments: Sequence[str]) -> int:
    message = f"{why}; what is complete is stored. Resume with: {again(arguments)}"
    return _fail(message, status, arguments)


def _failed(error: Exception, arguments: Sequence[str]) -> int:
    """Say what went wrong; errors that are nobody's but ours are raised again."""
    match error:
        case ZtpError():
            message = as_options(str(error))
            for word in arguments:  # an argument that is not understood is quoted in the message
                message = message.replace(word, _without_password(word))
            return _fail(message, 2, arguments)
        case OutageError():
            return _unfinished(as_options(str(error)), 1, arguments)
        case MachineError():
            return _fail(as_options(str(error)), 1, arguments)
        case BrokenPipeError():  # `ztp-search best | head`
            silence_stdout()
            return 0
    raise error


def _fail(message: str, status: int, arguments: Sequence[str]) -> int:
    line = " ".join(message.split())
    if LOG_JSON in arguments:
        json_log().error(line, status)
    else:
        print(f"ztp-search: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
