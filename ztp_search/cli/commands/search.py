"""`ztp-search --budget …`: a search under one budget or several."""

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
    add_storage,
    natural,
    positive,
    seconds,
    settings_of,
    share,
)
from ztp_search.cli.output import logged, print_result, shown
from ztp_search.objectives import OBJECTIVES, SIGNALS
from ztp_search.racing import RACING
from ztp_search.results.tables import search_tables
from ztp_search.samplers import SAMPLERS
from ztp_search.settings import SearchSettings
from ztp_search.space import CORNERS

NAME = "search"
HELP = "search for the best configuration under a budget (the default)"
DESCRIPTION = (
    "Finds the best way to drop and merge tokens of a vision transformer under a GFLOPs budget. "
    "The same command again resumes the study. Try it without network or GPU: "
    "ztp-search --space digits --budget 50%"
)


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("search").add_argument
    add("--budget", required=True, metavar="B",
        help="GFLOPs per image (3.08), or a share of the unpruned model (67%%); several: "
             "2.5,3.0,3.5, or 2.5:4.0:6 for six from 2.5 to 4.0")
    add("--tolerance", type=share, metavar="T",
        help="how far below the budget a configuration may stay (default 1%%)")
    add("--budget-counts", choices=("total", "backbone"),
        help="bound what runs (default: total), or leave out what pruning adds, as papers print it")
    add("--space", metavar="NAME|FILE", help="search space (default: that of the model)")
    add("--method", choices=("any", *CORNERS),
        help="search all of the space (any, the default), the paper's part of it (zero-tprune: "
             "tokens are dropped), or the part that drops none (merge)")
    add("--objective", choices=tuple(OBJECTIVES),
        help="accuracy (default: top1), or agreement with the unpruned model, which needs no "
             "labels")
    add("--trials", type=positive, metavar="N",
        help="configurations to evaluate in all (default: the space's)")
    add("--enqueue", nargs="+", metavar="FILE",
        help="configuration files that are the first trials, as the hand-set schedules are")
    add("--timeout", type=seconds, metavar="TIME",
        help="start no more trials than can be raced to the end in 90s, 30m or 2h")
    add("--max-failures", type=natural, metavar="N",
        help="end when more trials of a study have failed (default: when all have, of 16)")
    add("--seed", type=natural, metavar="N",
        help="seed of configurations and image order (default 0)")
    add("--sampler", choices=tuple(SAMPLERS),
        help="how configurations are proposed (default monte-carlo)")
    add("--refine", type=natural, metavar="N",
        help="N more trials close to the best ones found (default 0)")
    add("--racing", choices=tuple(RACING),
        help="who goes on to more images: the best third (halving), who is not shown to be worse "
             "(evidence), both (default), or everybody (off)")
    add("--racing-signal", choices=tuple(SIGNALS),
        help="what trials are told apart by: how far their outputs are from the unpruned model's "
             "(total-variation, default) or from the label (label-probability), or right and "
             "wrong alone (correct)")
    add("--candidates", type=positive, metavar="N",
        help="how many of the best are measured again on holdout images (default 5)")
    add_model(parser)
    add_data(parser)
    add = parser.add_argument_group("images").add_argument
    add("--images", type=positive, metavar="N",
        help="images that choose the winner (default: all beside the holdout, up to the space's "
             "bound)")
    add("--holdout", type=natural, metavar="N",
        help="other images that report on it (default: the space's)")
    add_running(parser, "auto")
    parser.add_argument_group("metrics").add_argument(
        "--metrics", action="store_true",
        help="refuse to search where Ray serves no metrics for Prometheus, and say where it does")
    add_speed(parser)
    add_storage(parser, "(default: made of space, budget and seed)")
    add_json(parser)
    parser.add_argument("--log-json", action="store_true", default=False,
                        help="log every decision on stderr, a JSON object per line, in place of "
                             "progress")


def run(args: argparse.Namespace) -> None:
    settings = settings_of(SearchSettings, args)
    search = api.search if len(settings.budgets) == 1 else api.search_front
    with logged() if args.log_json else shown() as progress:
        document = search(settings, progress).to_dict()
    print_result(document, search_tables, args.json)
