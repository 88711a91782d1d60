"""`ztp-search visualize`: what configuration files do to images, as a picture."""

from __future__ import annotations

import argparse
import sys

from ztp_search import api
from ztp_search.cli.arguments import (
    Parser,
    add_data,
    add_json,
    add_model,
    add_runtime,
    natural,
    positive,
    settings_of,
)
from ztp_search.cli.output import only_results_on_stdout, print_result, terminal_progress
from ztp_search.results.tables import visualization_table
from ztp_search.settings import VisualizeSettings

NAME = "visualize"
HELP = "draw which tokens configuration files drop and merge, layer by layer"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", nargs="+",
        help="configuration file; several are rows of the same picture")
    add("-o", "--output", metavar="FILE", required=True, help="picture: .png, .svg or .pdf")
    add("--importance", action="store_true",
        help="draw also the importance that each layer ranked tokens by")
    add = parser.add_argument_group("images (default: the first 4 of the file's)").add_argument
    add("--image", nargs="+", action="extend", metavar="FILE", help="picture files")
    add("--image-set", choices=("search", "holdout"),
        help="which of the file's images (default holdout)")
    add("--images", type=positive, metavar="N", help="the first N of the set, or of --data")
    add("--image-numbers", type=natural, nargs="+", action="extend", metavar="I",
        help="which of them, counted from 0")
    add("--seed", type=natural, metavar="N", help="with --data: seed of the image order")
    add("--out", metavar="DIR", help="folder for decoded images (default ztp-runs)")
    add_model(parser)
    add_data(parser)
    add_runtime(parser.add_argument_group("how it runs").add_argument, "that of the file")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    settings = settings_of(VisualizeSettings, args)
    with only_results_on_stdout(), terminal_progress() as progress:
        drawn = api.visualize(args.config, args.output, settings, progress)
    print_result(drawn.to_dict(), visualization_table, args.json)
    print(f"wrote {args.output}", file=sys.stderr)
