"""`ztp-search dashboard`: the Optuna dashboard on the storage."""

from __future__ import annotations

import argparse

from ztp_search.cli.arguments import Parser, add_storage, port, storage_of
from ztp_search.settings import storage_url

NAME = "dashboard"
HELP = "serve the Optuna dashboard on the storage"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to listen on (default %(default)s); off loopback visitors are asked for the "
             "token in the environment's ZTP_DASHBOARD_TOKEN")
    add("--behind-proxy", action="store_true", default=False,
        help="a proxy before it asks for a password: answer whatever it passes on")
    add("--port", type=port, default=8080, metavar="N",
        help="port to listen on (default %(default)s)")
    add("--allow-edit", action="store_true", default=False,
        help="let visitors change and delete studies (default: read-only)")
    add_storage(parser, "that it opens with (default: the one that was searched last)")


def run(args: argparse.Namespace) -> None:
    from ztp_search.results.dashboard import serve

    where = storage_of(args)
    storage = storage_url(where.get("storage"), where.get("out", "ztp-runs"))
    serve(
        storage, args.host, args.port, study=where.get("study"), allow_edit=args.allow_edit,
        behind_proxy=args.behind_proxy,
    )  # fmt: skip
