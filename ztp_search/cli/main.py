"""`ztp-search`: parse, call, print. Results go to stdout, everything else to stderr.

The commands import what they need when they run: torch and timm take seconds.
Exit status: 0 done, 2 the user's mistake (one line), 1 our fault, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from ztp_search.cli.arguments import parse, storage_url
from ztp_search.errors import WorkerError, ZtpError
from ztp_search.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    warnings.simplefilter("ignore")  # third parties' deprecations are no message to the user
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except ZtpError as error:
        message = str(error)
        for word in arguments:  # an argument that is not understood is quoted in the message
            message = message.replace(word, _without_password(word))
        return _fail(message, 2)
    except WorkerError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:  # `ztp-search best | head`
        _silence_stdout()
        return 0
    except KeyboardInterrupt:
        words = [_without_password(word) for word in ["ztp-search", *arguments]]
        resume = " ".join(shlex.quote(word) for word in words)
        return _fail(f"interrupted; what is complete is stored. To go on: {resume}", 130)


def _without_password(word: str) -> str:
    """An argument for printing; `--storage=URL` too."""
    if "://" not in word:
        return word
    from ztp_search.study import redact

    option, equals, url = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + redact(url)


def _run(arguments: Sequence[str]) -> int:
    args = parse(arguments)
    COMMANDS[args.command](args)
    return 0


def _search(args: argparse.Namespace) -> None:
    from ztp_search.cli.resolve import settings
    from ztp_search.cli.terminal import TerminalProgress

    asked = settings(args)
    early_ray = _early_ray(args) if _work_is_left(asked) else contextlib.nullcontext()
    with (
        _only_results_on_stdout(),
        TerminalProgress(Console(stderr=True)) as progress,
        early_ray,
    ):
        from ztp_search.cli.tables import search_tables
        from ztp_search.driver.run import run

        document = run(asked, progress)
        if "front" in document:
            from ztp_search.results.figures import front_figure

            name = args.study or f"{Path(asked.space.name).stem}-seed{args.seed}"
            path = Path(args.out) / f"front-{name.replace('/', '_')}.svg"
            try:
                front_figure(document, path)
                document["figure"] = str(path)
            except ZtpError as error:  # the result is not lost for want of a picture
                progress.note(str(error))
    _print(args, document, search_tables)


def _work_is_left(asked: Settings) -> bool:
    """Whether there are trials to evaluate, as far as is known before the model is.

    Raises StudyError where a study was made with other settings.
    """
    from ztp_search.study import existing

    left = False
    for name in asked.studies.values():
        with existing(asked.storage, name) as study:
            if study is not None:
                study.check(asked.contract())
            left |= study is None or study.finished() < asked.trials + asked.refine
    return left


@contextlib.contextmanager
def _early_ray(args: argparse.Namespace) -> Iterator[None]:
    """Start Ray before torch is imported here, so that its workers import it meanwhile."""
    if args.workers == 0:
        yield
        return
    from ztp_search.evaluation import ray_cluster as cluster

    try:
        cluster.connect(args.address, args.threads, args.workers)
        early = []
        if args.device != "cuda" and not cluster.has_gpu():
            count = cluster.workers_of(args.threads)
            count = min(count, args.workers or count)
            early = cluster.start_workers(count, num_cpus=args.threads)
        yield
        del early  # held until here: Ray ends a worker that nobody holds
    finally:
        cluster.disconnect()


def _best(args: argparse.Namespace) -> None:
    from ztp_search.cli.tables import best_table
    from ztp_search.results.documents import best_document
    from ztp_search.study import StudyReader

    with StudyReader.open(storage_url(args), args.study) as study:
        _print(args, best_document(study, args.n), best_table)


def _evaluate(args: argparse.Namespace) -> None:
    from ztp_search.cli.resolve import file_sources
    from ztp_search.cli.tables import evaluation_table
    from ztp_search.cli.terminal import TerminalProgress
    from ztp_search.pruning.config_file import read_config_file

    file = read_config_file(args.config)
    sources, image_set = file_sources(args, file)
    from ztp_search.cli.commands import evaluate

    with _only_results_on_stdout(), TerminalProgress(Console(stderr=True)) as progress:
        document = evaluate(args, file, sources, image_set, progress)
    _print(args, document, evaluation_table)


def _cost(args: argparse.Namespace) -> None:
    from ztp_search.cli.resolve import file_model
    from ztp_search.cli.tables import cost_table
    from ztp_search.pruning.config_file import read_config_file

    file = read_config_file(args.config)
    model = file_model(args, file)
    from ztp_search.cli.commands import cost

    _print(args, cost(model, file), cost_table)


def _export(args: argparse.Namespace) -> None:
    from ztp_search.results.documents import config_file, find_trial
    from ztp_search.results.exporters import EXPORTERS
    from ztp_search.study import StudyReader

    with StudyReader.open(storage_url(args), args.study) as study:
        text = EXPORTERS[args.format](config_file(study, find_trial(study, args.trial)))
        name = study.name
    if args.output is None:
        _write(text)
        return
    try:
        Path(args.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ZtpError(f"--output {args.output} cannot be written: {error.strerror}") from None
    print(f"wrote {args.output} (of study {name})", file=sys.stderr)


def _dashboard(args: argparse.Namespace) -> None:
    from ztp_search.results.dashboard import serve

    serve(storage_url(args), args.host, args.port, study=args.study, allow_edit=args.allow_edit)


def _spaces(args: argparse.Namespace) -> None:
    from ztp_search.cli.tables import spaces_table
    from ztp_search.space import load_space, shipped_spaces

    spaces = [load_space(name) for name in shipped_spaces()]
    document = {
        "spaces": [
            {"name": s.name, "model": s.model.get("name"), "data": s.data.get("source"),
             "about": s.about}
            for s in spaces
        ]
    }  # fmt: skip
    _print(args, document, spaces_table)


COMMANDS = {
    "search": _search,
    "best": _best,
    "evaluate": _evaluate,
    "cost": _cost,
    "export": _export,
    "dashboard": _dashboard,
    "spaces": _spaces,
}


def _print(args: argparse.Namespace, document: Mapping[str, Any], table: Any) -> None:
    """One JSON document, or a table for people."""
    if args.json:
        _write(json.dumps(document, indent=1, allow_nan=False) + "\n")
        return
    shown: RenderableType = table(document)
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:  # a file or another program loses nothing by long lines
        parts = shown.renderables if isinstance(shown, Group) else [shown]
        endless = console.options.update(width=10_000)
        tables = [part for part in parts if isinstance(part, Table)]
        widths = [Measurement.get(console, endless, table).maximum for table in tables]
        console.width = max([console.width, *widths])
    width = console.width  # of the terminal, so before the console writes elsewhere
    console.file = buffer = io.StringIO()  # rich itself exits with 1 where the reader has left
    console.print(shown, width=width)
    _write(buffer.getvalue())


def _write(text: str) -> None:
    """To stdout, at once: a full disk is noticed here."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence_stdout()
        raise ZtpError(f"stdout cannot be written: {error.strerror}") from None


def _silence_stdout() -> None:
    """What is left in its buffer cannot be written, and Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _only_results_on_stdout() -> contextlib.redirect_stdout[Any]:
    """Ray prints there that a worker died, and what a library prints is no result."""
    return contextlib.redirect_stdout(sys.stderr)


def _fail(message: str, status: int) -> int:
    print(f"ztp-search: {as_options(' '.join(message.split()))}", file=sys.stderr)
    return status


def as_options(message: str) -> str:
    """A message that names settings as Python does, `batch_size`, with options: --batch-size."""
    return re.sub("`([a-z_]+)`", lambda match: "--" + match[1].replace("_", "-"), message)


if __name__ == "__main__":
    sys.exit(main())
