"""`ztp-search report`: a study as one file for people."""

from __future__ import annotations

import argparse
import sys

from ztp_search import api
from ztp_search.cli.arguments import (
    Parser,
    add_data,
    add_model,
    add_runtime,
    add_storage,
    positive,
    settings_of,
    storage_of,
)
from ztp_search.cli.output import as_options, only_results_on_stdout, terminal_progress
from ztp_search.results.report import FORMATS
from ztp_search.settings import VisualizeSettings

NAME = "report"
HELP = "write a study as one file: what was asked and found, how sure that is, how to use it"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", required=True, help="file: .html or .md")
    add("--format", choices=tuple(FORMATS), default=None, help="(default: that of the suffix)")
    add = parser.add_argument_group("pictures of what the winner does to images").add_argument
    add("--images", type=positive, metavar="N",
        help="the first N holdout images (default 4), or of --data")
    add("--no-pictures", action="store_true", default=False,
        help="none: neither model nor images are needed then")
    add_model(parser)
    add_data(parser)
    add_runtime(parser.add_argument_group("how it runs").add_argument, "that of the study")
    add_storage(parser)


def run(args: argparse.Namespace) -> None:
    settings = settings_of(VisualizeSettings, args)
    with only_results_on_stdout(), terminal_progress() as progress:
        written = api.report(
            args.output, args.format, pictures=not args.no_pictures, settings=settings,
            progress=progress, **storage_of(args),
        )  # fmt: skip
    print(f"wrote {args.output} (of study {written.study})", file=sys.stderr)
    for each in written.lacks:
        print(f"note: {as_options(each)}", file=sys.stderr)
