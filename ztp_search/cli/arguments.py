"""The command line: what can be said. Imports nothing heavy, so that --help is there at once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ztp_search.errors import ZtpError
from ztp_search.racing import RACING
from ztp_search.results.exporters import EXPORTERS
from ztp_search.samplers import SAMPLERS

COMMANDS = {
    "search": "search for the best configuration under a budget (the default)",
    "best": "table of the best trials with their evidence",
    "evaluate": "accuracy, GFLOPs and images/s of one configuration file",
    "cost": "GFLOPs per block of one configuration file, beside fvcore's count",
    "export": "the best trial, or any, as a file for other tools",
    "dashboard": "Optuna dashboard on the storage",
    "spaces": "the shipped search spaces",
}

class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise ZtpError(f"{message}; see `{self.prog} --help`")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments of one command; without a command's name they are those of `search`."""
    arguments = list(argv)
    if not arguments or (arguments[0] not in COMMANDS and arguments[0].startswith("-")):
        arguments.insert(0, "search")
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise ZtpError(f"{command!r} is no command; there are {', '.join(COMMANDS)}")
    namespace = _parser(command).parse_args(rest)
    namespace.command = command
    return namespace


def storage_url(args: argparse.Namespace) -> str:
    """The storage; by default SQLite in the output folder."""
    url: str = args.storage or f"sqlite:///{Path(args.out) / 'studies.db'}"
    return url


def _parser(command: str) -> Parser:
    description = COMMANDS[command]
    epilog = None
    if command == "search":
        description = (
            "Finds the best Zero-TPrune configuration of a vision transformer under a GFLOPs "
            "budget. The same command again resumes the study. Try it without network or GPU: "
            "ztp-search --space digits --budget 68%"
        )
        lines = [f"  ztp-search {name:10} {text}" for name, text in COMMANDS.items()]
        epilog = "commands (each with its own --help):\n" + "\n".join(lines)
    parser = Parser(
        prog="ztp-search" if command == "search" else f"ztp-search {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter if epilog else argparse.HelpFormatter,
        allow_abbrev=False,
    )
    {
        "search": _search_arguments,
        "best": _best_arguments,
        "evaluate": _evaluate_arguments,
        "cost": _cost_arguments,
        "export": _export_arguments,
        "dashboard": _dashboard_arguments,
        "spaces": _json_argument,
    }[command](parser)
    return parser


def _search_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("search").add_argument
    add("--budget", required=True, metavar="B",
        help="GFLOPs per image (3.08), or a share of the unpruned model (67%%); several: "
             "2.5,3.0,3.5, or 2.5:4.0:6 for six from 2.5 to 4.0")
    add("--tolerance", type=_share, default=0.01, metavar="T",
        help="how far below the budget a configuration may stay (default 1%%)")
    add("--budget-counts", choices=("total", "backbone"), default="total",
        help="bound what runs (default), or leave out what pruning adds, as papers print it")
    add("--space", metavar="NAME|FILE", help="search space (default: that of the model)")
    add("--objective", choices=("top1", "agreement"), default="top1",
        help="accuracy, or agreement with the unpruned model, which needs no labels")
    add("--trials", type=_positive, metavar="N",
        help="configurations to evaluate in all (default: the space's)")
    add("--timeout", type=_seconds, metavar="TIME",
        help="start no more trials than can be raced to the end in 90s, 30m or 2h")
    add("--seed", type=_natural, default=0, metavar="N", help="of configurations and image order")
    add("--sampler", choices=tuple(SAMPLERS), default="monte-carlo",
        help="how configurations are proposed (default monte-carlo)")
    add("--refine", type=_natural, default=0, metavar="N",
        help="N more trials close to the best ones found")
    add("--racing", choices=tuple(RACING), default="both",
        help="who goes on to more images: the better half (halving), who is not shown to be worse "
             "(evidence), both (default), or everybody (off)")
    add("--candidates", type=_positive, default=5, metavar="N",
        help="how many of the best are measured again on holdout (default 5)")
    _model_arguments(parser)
    _data_arguments(parser)
    add = parser.add_argument_group("images").add_argument
    add("--images", type=_positive, metavar="N",
        help="images that choose the winner (default: the space's)")
    add("--holdout", type=_natural, metavar="N",
        help="other images that report on it (default: the space's)")
    _worker_arguments(parser, "auto")
    _storage_arguments(parser, "(default: made of space, budget and seed)")
    _json_argument(parser)


def _model_arguments(parser: Parser, weights: bool = True) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="NAME", help="a timm model (default: that of the space or file)")
    add("--model-kwargs", nargs="*", metavar="K=V", help="arguments of its constructor")
    if weights:
        add("--weights", metavar="FILE",
            help="safetensors or a state dict (default: timm's pretrained weights)")
    add("--num-classes", type=_positive, metavar="N", help="of its head")


def _data_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--data", metavar="PATH|NAME",
        help="folder of images, or hfds/NAME, wds/PATH, torch/NAME as timm opens them")
    add("--split", metavar="S", help="of a data set that has several")
    add("--holdout-split", metavar="S",
        help="take holdout images from another split (default: other images of --split)")
    add("--class-map", metavar="FILE",
        help="class name to index; folders named by wnid map to ImageNet by themselves")
    add("--skip-unreadable", action="store_true", help="go on without images that are broken")
    add = parser.add_argument_group("preprocessing (default: timm's data config)").add_argument
    add("--mean", type=float, nargs="+", metavar="X")
    add("--std", type=float, nargs="+", metavar="X")
    add("--interpolation", metavar="NAME")
    add("--crop-pct", type=float, metavar="X")
    add("--crop-mode", metavar="NAME")
    add("--input-size", type=int, nargs=3, metavar=("C", "H", "W"))


def _worker_arguments(parser: Parser, default: str | None) -> None:
    """default: what --precision and --device say unless stated; None takes the file's."""
    add = parser.add_argument_group("how it runs (belongs to the study)").add_argument
    add("--batch-size", type=_positive, metavar="N",
        help="images per forward (default: that of the space or file)")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default=default)
    add("--device", choices=("auto", "cpu", "cuda"), default=default)
    add("--threads", type=_positive, default=1 if default else None, metavar="N",
        help="CPU threads of one worker (default 1)")
    add = parser.add_argument_group("workers (change no result)").add_argument
    add("--workers", type=_natural, metavar="N",
        help="Ray workers; 0 works in this process (default: one per GPU, or per core)")
    add("--gpus-per-worker", type=_positive_float, default=1.0, metavar="F",
        help="share of a GPU that one worker takes (default 1)")
    add("--cache-memory", type=_bytes, metavar="SIZE",
        help="memory of each worker for what configurations share: 512MB, 2GB, 0 (default 1GB, "
             "less where many workers share little memory)")
    add("--address", metavar="RAY", help="Ray cluster to use (default: start one here)")


def _storage_arguments(
    parser: Parser, study: str = "(default: the one that was searched last)"
) -> None:
    add = parser.add_argument_group("storage").add_argument
    add("--storage", metavar="URL", help="database (default: SQLite in --out)")
    add("--study", metavar="NAME", help=study)
    add("--out", default="ztp-runs", metavar="DIR",
        help="folder for the database and decoded images (default ztp-runs)")


def _json_argument(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _best_arguments(parser: Parser) -> None:
    parser.add_argument("-n", type=_positive, default=10, metavar="N", help="rows (default 10)")
    _storage_arguments(parser)
    _json_argument(parser)


def _evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="configuration file")
    parser.add_argument("--predictions", metavar="FILE", help="write a CSV row per image")
    parser.add_argument("--image-set", choices=("search", "holdout"), default=None,
                        help="of the file's images (default holdout)")
    parser.add_argument("--images", type=_positive, metavar="N", help="with --data: how many")
    parser.add_argument("--seed", type=_natural, metavar="N", help="with --data: their order")
    parser.add_argument("--out", default="ztp-runs", metavar="DIR", help="for decoded images")
    _model_arguments(parser)
    _data_arguments(parser)
    _worker_arguments(parser, None)
    _json_argument(parser)


def _cost_arguments(parser: Parser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="configuration file")
    parser.set_defaults(weights=None)  # they cost the same, whatever they are
    _model_arguments(parser, weights=False)
    _json_argument(parser)


def _export_arguments(parser: Parser) -> None:
    parser.add_argument("--format", choices=tuple(EXPORTERS), default="json")
    parser.add_argument("-o", "--output", metavar="FILE", help="(default: stdout)")
    parser.add_argument("--trial", type=_natural, metavar="N", help="(default: the best)")
    _storage_arguments(parser)


def _dashboard_arguments(parser: Parser) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="it has no password: think before you leave loopback")
    parser.add_argument("--port", type=_port, default=8080, metavar="N")
    parser.add_argument("--allow-edit", action="store_true",
                        help="let visitors change and delete studies (default: read-only)")
    _storage_arguments(parser, "whose page to announce (default: the list of all)")


# ---- values ------------------------------------------------------------------------------


def _positive(text: str) -> int:
    value = _natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but got {text}")
    return value


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"must be a whole number, but got {text!r}")
    if len(text) > 12:
        raise argparse.ArgumentTypeError(f"must be below 10^12, but got {text}")
    return int(text)


def _port(text: str) -> int:
    value = _natural(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be 65535 or less, but got {text}")
    return value


def _positive_float(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):  # nan is neither
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return value


def _share(text: str) -> float:
    value = _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1 (or 0% and 100%), got {text}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, but got {text!r}") from None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must read as 90s, 30m, 2h or 1d, but got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{0,15}\.?[0-9]{1,15})\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"must read as 512MB, 2GB or 0, but got {text!r}")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2] or " "))
