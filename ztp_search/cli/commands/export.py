"""`ztp-search export`: a trial as a file for other tools."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ztp_search import api
from ztp_search.cli.arguments import (
    Parser,
    add_model,
    add_storage,
    natural,
    settings_of,
    storage_of,
)
from ztp_search.cli.output import write
from ztp_search.results.exporters import EXPORTERS, load_exporter
from ztp_search.settings import ModelSettings

NAME = "export"
HELP = "write the winner, any complete trial or a configuration file for other tools"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--format", choices=tuple(EXPORTERS), default=next(iter(EXPORTERS)),
        help="what to write (default %(default)s)")
    add("-o", "--output", metavar="PATH", default=None,
        help="file or folder to write (default: stdout, for formats that are text)")
    add("--trial", type=natural, metavar="N", default=None,
        help="number of the trial (default: the winner)")
    add("--config", metavar="FILE", default=None,
        help="a configuration file, in place of a study's trial")
    add_model(parser)
    add_storage(parser)


def run(args: argparse.Namespace) -> None:
    where: dict[str, Any] = {**storage_of(args), "trial": args.trial, "config": args.config}
    if args.output is None:
        text, file = api.export_text(args.format, **where)
        write(text)
    else:
        model = settings_of(ModelSettings, args)
        file = api.export(args.output, args.format, model=model, **where)
        study = file.provenance.get("study")
        print(f"wrote {args.output}" + (f" (of study {study})" if study else ""), file=sys.stderr)
    omitted = load_exporter(args.format).omits(file)
    if omitted:
        print(f"note: {omitted}", file=sys.stderr)
