"""`ztp-search evaluate`: a configuration file, measured on images."""

from __future__ import annotations

import argparse

from ztp_search import api
from ztp_search.cli.arguments import (
    Parser,
    add_data,
    add_json,
    add_model,
    add_running,
    add_speed,
    natural,
    positive,
    settings_of,
)
from ztp_search.cli.output import only_results_on_stdout, print_result, terminal_progress
from ztp_search.results.tables import evaluation_table
from ztp_search.settings import EvaluateSettings

NAME = "evaluate"
HELP = "measure accuracy, GFLOPs and images/s of a configuration file"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", help="configuration file")
    add("--predictions", metavar="FILE", help="write a CSV file with a row per image")
    add("--image-set", choices=("search", "holdout"),
        help="which of the file's images (default holdout)")
    add("--images", type=positive, metavar="N", help="with --data: how many images")
    add("--seed", type=natural, metavar="N", help="with --data: seed of the image order")
    add("--out", metavar="DIR", help="folder for decoded images (default ztp-runs)")
    add_model(parser)
    add_data(parser)
    add_running(parser, "that of the file")
    add_speed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    settings = settings_of(EvaluateSettings, args)
    with only_results_on_stdout(), terminal_progress() as progress:
        measured = api.evaluate(args.config, settings, progress)
    print_result(measured.to_dict(), evaluation_table, args.json)
