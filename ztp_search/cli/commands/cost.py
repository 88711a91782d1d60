"""`ztp-search cost`: the GFLOPs of a configuration file."""

from __future__ import annotations

import argparse

from ztp_search import api
from ztp_search.cli.arguments import Parser, add_json, add_model, settings_of
from ztp_search.cli.output import print_result
from ztp_search.results.tables import cost_table
from ztp_search.settings import ModelSettings

NAME = "cost"
HELP = "count the GFLOPs per block of a configuration file, beside fvcore's count"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="configuration file")
    add_model(parser, weights=False)  # they cost the same, whatever they are
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    counted = api.cost(args.config, settings_of(ModelSettings, args))
    print_result(counted.to_dict(), cost_table, args.json)
