"""The directive `command`: a command's options, out of the parser that reads them.

    ```{command} evaluate
    ```

Each becomes an `option` of Sphinx, so that {option}`ztp-search evaluate --images` is a link.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from ztp_search.cli.main import parsers

DEFAULT_COMMAND = "search"
"""Its options are those of `ztp-search` itself."""


class Command(SphinxDirective):
    """Usage and options of one command, a section per group of the parser."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        _, commands = parsers()
        if name not in commands:
            raise self.error(f"{name!r} is no command; there are {', '.join(commands)}")
        text = "\n".join(command_text(name, commands[name]))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def program_of(command: str) -> str:
    """What a user types before the options."""
    return "ztp-search" if command == DEFAULT_COMMAND else f"ztp-search {command}"


def command_text(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The reference of a command as MyST Markdown."""
    yield from (f"```{{program}} {program_of(name)}", "```", "")
    groups = {str(group.title): list(group._group_actions) for group in parser._action_groups}
    options = groups.pop("options")
    groups = {
        "arguments": groups.pop("positional arguments"),
        "options": [each for each in options if each.dest not in ("help", "json")],
        **groups,
        "output": [each for each in options if each.dest == "json"],
    }
    for title, actions in groups.items():
        if actions:
            yield from ("", f"## {title[:1].upper()}{title[1:]}", "")
        for action in actions:
            yield from option_text(action)


def option_text(action: argparse.Action) -> Iterator[str]:
    """One option, or one argument without a name."""
    value = value_of(action)
    names = action.option_strings or [value]
    heads = [f"{name} {value}".strip() if action.option_strings else name for name in names]
    yield from (f"```{{option}} {', '.join(heads)}", help_of(action))
    if action.choices:
        yield from ("", "One of " + ", ".join(f"`{choice}`" for choice in action.choices) + ".")
    yield from ("```", "")


def value_of(action: argparse.Action) -> str:
    """What follows the option's name: `N`, `FILE …`, or nothing."""
    if action.nargs == 0:
        return ""
    metavar = action.metavar
    if isinstance(metavar, tuple):
        return " ".join(metavar)
    name = metavar or (action.dest.upper() if not action.choices else "NAME")
    return f"{name} …" if action.nargs in ("+", "*") else name


def help_of(action: argparse.Action) -> str:
    """The help as Markdown: its defaults filled in, options as code."""
    text = (action.help or "") % {**vars(action), "prog": "ztp-search"}
    text = re.sub(r"(?<![\w-])(--[a-z-]+|hfds/\w+|wds/\w+|torch/\w+|K=V)", r"`\1`", text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
