"""`ztp-search best`: the best trials of a study."""

from __future__ import annotations

import argparse

from ztp_search import api
from ztp_search.cli.arguments import Parser, add_json, add_storage, positive, storage_of
from ztp_search.cli.output import print_result
from ztp_search.results.tables import best_table

NAME = "best"
HELP = "list the best trials with their evidence"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("-n", type=positive, default=10, metavar="N",
                        help="how many (default 10)")
    add_storage(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    found = api.best(n=args.n, **storage_of(args))
    print_result(found.to_dict(), best_table, args.json)
