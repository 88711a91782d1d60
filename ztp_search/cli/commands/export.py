"""`ztp-search export`: a trial as a file for other tools."""

from __future__ import annotations

import argparse
import sys

from ztp_search import api
from ztp_search.cli.arguments import Parser, add_storage, natural, storage_of
from ztp_search.cli.output import write
from ztp_search.results.exporters import EXPORTERS

NAME = "export"
HELP = "write the winner, or any complete trial, as a file for other tools"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--format", choices=tuple(EXPORTERS), default=next(iter(EXPORTERS)),
        help="(default %(default)s)")
    add("-o", "--output", metavar="PATH", default=None,
        help="(default: stdout, for formats that are text)")
    add("--trial", type=natural, metavar="N", default=None,
        help="number of the trial (default: the winner)")
    add_storage(parser)


def run(args: argparse.Namespace) -> None:
    where = storage_of(args)
    if args.output is None:
        write(api.export_text(args.format, trial=args.trial, **where))
        return
    file = api.export(args.output, args.format, trial=args.trial, **where)
    print(f"wrote {args.output} (of study {file.provenance['study']})", file=sys.stderr)
