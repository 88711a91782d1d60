"""`ztp-search spaces`: the shipped search spaces."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ztp_search.cli.arguments import Parser, add_json
from ztp_search.cli.output import print_result
from ztp_search.results.plain_table import plain_table
from ztp_search.space import load_space, shipped_spaces

NAME = "spaces"
HELP = "list the shipped search spaces"


def add_arguments(parser: Parser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    spaces = [load_space(name) for name in shipped_spaces()]
    document = {
        "spaces": [
            {"name": s.name, "model": s.model.get("name"), "data": s.data.get("source"),
             "about": s.about}
            for s in spaces
        ]
    }  # fmt: skip
    print_result(document, spaces_table, args.json)


def spaces_table(document: Mapping[str, Any]) -> Table:
    """The shipped spaces."""
    table = plain_table("Search spaces", "name", "model and data")
    table.columns[1].justify = "left"
    for space in document["spaces"]:
        what = " on ".join(filter(None, (space["model"], space["data"]))) or "any --model"
        table.add_row(space["name"], f"{what}\n{space['about']}")
    return table
