"""What the arguments of commands have in common: the parser, their groups, values from text.

No argument has a default here: what the user does not state is left to the settings.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from ztp_search.errors import ModelError, ZtpError
from ztp_search.evaluation.engines import ENGINES
from ztp_search.files import read_text
from ztp_search.settings import ModelSettings

STORAGE = "ZTP_STORAGE"
"""The variable of the environment that names the database."""

SettingsT = TypeVar("SettingsT", bound=ModelSettings)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line like all others, and that keeps what is stated alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, argument_default=argparse.SUPPRESS, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """An option that there is not is told before any that is missing: it may be the same."""
        if self._subparsers is None:  # else they are a command's
            for word in args:
                if word == "--":
                    break
                option = word.partition("=")[0]
                if option.startswith("--") and option not in self._option_string_actions:
                    meant = difflib.get_close_matches(option, self._option_string_actions, 1)
                    hint = f" (is it {meant[0]}?)" if meant else ""
                    self.error(f"unrecognized arguments: {option}{hint}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise ZtpError(f"{message}; see `{self.prog} --help`")


def settings_of(cls: type[SettingsT], args: argparse.Namespace) -> SettingsT:
    """The settings that the arguments state; those of other names are not looked at."""
    stated = vars(args)
    names = {each.name for each in dataclasses.fields(cls)} & stated.keys()
    return cls(**{name: stated[name] for name in names})


def storage_of(args: argparse.Namespace) -> dict[str, Any]:
    """What is stated of the database, as the functions of the API take it."""
    return {name: vars(args)[name] for name in ("storage", "study", "out") if name in vars(args)}


# ---- groups of arguments -------------------------------------------------------------------


def add_model(parser: Parser, weights: bool = True) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="NAME", help="a timm model (default: that of the space or file)")
    add("--model-kwargs", nargs="*", metavar="K=V", action=_ModelKwargs,
        help="arguments of its constructor")
    if weights:
        add("--weights", metavar="FILE",
            help="safetensors or a state dict (default: timm's pretrained weights)")
    add("--num-classes", type=positive, metavar="N", help="number of classes of its head")


def add_data(parser: Parser) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--data", metavar="PATH|NAME",
        help="folder of images, or hfds/NAME, wds/PATH, torch/NAME as timm opens them")
    add("--split", metavar="S", help="split of a data set that has several")
    add("--holdout-split", metavar="S",
        help="take holdout images from another split (default: other images of --split)")
    add("--class-map", metavar="FILE",
        help="class name to index; folders named by wnid map to ImageNet by themselves")
    add("--skip-unreadable", action="store_true", help="go on without images that are broken")
    add = parser.add_argument_group("preprocessing (default: timm's data config)").add_argument
    add("--mean", type=float, nargs="+", metavar="X",
        help="what is taken off pixels from 0 to 1: one number, or one per channel")
    add("--std", type=float, nargs="+", metavar="X", help="what they are then divided by, likewise")
    add("--interpolation", metavar="NAME",
        help="how images are resized: bicubic, bilinear, lanczos, nearest, box or hamming")
    add("--crop-pct", type=float, metavar="X",
        help="share of the resized image's side that is cropped, above 0 to 1")
    add("--crop-mode", metavar="NAME", help="center, squash or border")
    add("--input-size", type=int, nargs=3, metavar=("C", "H", "W"),
        help="channels, height and width; must be what the model takes")


def add_running(parser: Parser, default: str) -> None:
    """How it runs, and on which workers. default: where precision, device and threads come from."""
    add = parser.add_argument_group("how it runs (belongs to the study)").add_argument
    add("--batch-size", type=positive, metavar="N",
        help="images per forward pass (default: that of the space or file)")
    add_runtime(add, default)
    add = parser.add_argument_group("workers (change no result)").add_argument
    add("--workers", type=natural, metavar="N",
        help="Ray workers; 0 works in this process (default: one per GPU, or per core)")
    add("--gpus-per-worker", type=positive_float, metavar="F",
        help="share of a GPU that one worker takes (default 1)")
    add("--cache-memory", type=size, metavar="SIZE",
        help="memory of each worker for what configurations share: 512MB, 2GB, 0 (default 1GB, "
             "less where many workers share little memory)")
    add("--address", metavar="RAY", help="Ray cluster to use (default: start one here)")


def add_runtime(add: Callable[..., object], default: str) -> None:
    """Precision, device and threads. add: of the group that they belong to."""
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"),
        help=f"of weights and activations (default: {default})")
    add("--device", choices=("auto", "cpu", "cuda"), help=f"where it runs (default: {default})")
    add("--threads", type=positive, metavar="N", help="CPU threads of one worker (default 1)")


def add_speed(parser: Parser) -> None:
    add = parser.add_argument_group(
        "speed of the pruned model, beside the unpruned one's (changes no result)"
    ).add_argument
    add("--speed", metavar="ENGINES",
        help=f"what it is measured in: {', '.join(ENGINES)}, or several with commas between; off "
             "(default: eager)")
    add("--speed-batch-sizes", type=positive, nargs="+", metavar="N",
        help="images per forward pass (default: 1, which is latency, and --batch-size)")
    add("--speed-repeats", type=positive, metavar="N",
        help="turns that each model takes (default: what a second allows, 5 to 50)")


def add_storage(parser: Parser, study: str = "(default: the one that was searched last)") -> None:
    add = parser.add_argument_group("storage").add_argument
    add("--storage", metavar="URL|@FILE", type=database,
        help="database, or a file whose first line is its URL (default: the environment's "
             f"{STORAGE}, else SQLite in --out)")
    if os.environ.get(STORAGE):
        parser.set_defaults(storage=os.environ[STORAGE])
    add("--study", metavar="NAME", help=f"name of the study {study}")
    add("--out", metavar="DIR",
        help="folder for the database and decoded images (default ztp-runs)")


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", default=False,
                        help="print one JSON document on stdout")


# ---- values from text ----------------------------------------------------------------------


def database(text: str) -> str:
    """A database's URL, or what a file that is named with @ before it says.

    With a password in it, the URL does not belong on a command line, which others can read.
    """
    if not text.startswith("@"):
        return text
    lines = read_text(text[1:], "storage file", ZtpError).splitlines()
    if not lines or not lines[0].strip():
        raise ZtpError(f"storage file {text[1:]} must have a database's URL in its first line")
    return lines[0].strip()


def positive(text: str) -> int:
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but got {text}")
    return value


def natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"must be a whole number, but got {text!r}")
    if len(text) > 12:
        raise argparse.ArgumentTypeError(f"must be below 10^12, but got {text}")
    return int(text)


def port(text: str) -> int:
    value = natural(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be 65535 or less, but got {text}")
    return value


def positive_float(text: str) -> float:
    value = number(text)
    if not 0 < value < float("inf"):  # nan is neither
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return value


def share(text: str) -> float:
    value = number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1 (or 0% and 100%), got {text}")
    return value


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, but got {text!r}") from None


def seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must read as 90s, 30m, 2h or 1d, but got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{0,15}\.?[0-9]{1,15})\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"must read as 512MB, 2GB or 0, but got {text!r}")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2] or " "))


def parse_model_kwargs(items: Sequence[str]) -> dict[str, Any]:
    """`["img_size=40", "qk_norm=true"]` -> `{"img_size": 40, "qk_norm": True}`.

    Values are Python literals (and true, false, none in any case), otherwise strings.
    """
    kwargs: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key.isidentifier():
            raise ModelError(f"`model_kwargs` must be name=value, but got {item!r}")
        if key in kwargs:
            raise ModelError(f"`model_kwargs` must name each argument once, but got {key} twice")
        literal = value.title() if value.lower() in ("true", "false", "none") else value
        try:
            kwargs[key] = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


class _ModelKwargs(argparse.Action):
    """--model-kwargs as the mapping that settings take."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, option: object = None
    ) -> None:
        namespace.model_kwargs = parse_model_kwargs(values)
