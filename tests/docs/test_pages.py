"""Whatever the documentation and the README have a reader type does what they say.

Searches of the embedded model are run with the few trials and images of SMALL in place of what the
page says, so that they take seconds; what needs a network, a cluster or files of the reader's own
is marked so in the page, and is read by the parser down to the settings.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import doctest
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.pages import PAGES, ROOT, SHELL, Block, blocks, commands

import ztp_search
from ztp_search import (
    EvaluateSettings,
    ModelSettings,
    SearchSettings,
    VisualizeSettings,
)
from ztp_search.backbones import BACKBONES
from ztp_search.cli.arguments import settings_of
from ztp_search.cli.main import main, parse
from ztp_search.objectives import OBJECTIVES, SIGNALS
from ztp_search.pruning.budget import check_budgets
from ztp_search.samplers import SAMPLERS
from ztp_search.space import parse_space

SMALL = {"trials": 8, "images": 64, "holdout": 64}
"""The most of each that is run, whatever the page says."""
SETTINGS = {
    "search": SearchSettings, "evaluate": EvaluateSettings, "visualize": VisualizeSettings,
    "cost": ModelSettings, "export": ModelSettings,
}  # fmt: skip
OPEN: list[Any] = [SAMPLERS, OBJECTIVES, SIGNALS, BACKBONES]
HOLD_THE_MODEL = {"onnx", "torch-export", "huggingface"}
"""Formats that take a minute; `tests/results/test_exported_models.py` runs them."""
OWN_SIZE = ("search", "best", "evaluate")
"""Commands whose output depends on how many trials and images there were."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHECKED_BY_CI = {"pytest", "ruff", "mypy", "lint-imports", "sphinx-build"}
RUN = [page for page in PAGES if blocks(page)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to type commands in, a terminal of 100 columns, and small searches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def small(**values: Any) -> SearchSettings:
        most = {name: min(values.get(name) or n, n) for name, n in SMALL.items()}
        return SearchSettings(**{"workers": 0, "speed": "off", **values, **most})

    monkeypatch.setattr(ztp_search, "SearchSettings", small, raising=False)
    before = [dict(mapping) for mapping in OPEN]
    yield tmp_path
    for mapping, members in zip(OPEN, before, strict=True):  # pages may add to them
        for name in mapping.keys() - members.keys():
            del mapping[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        try:
            do(block, folder, names)
        except Exception as error:
            raise AssertionError(f"{block}: {error}\n{block.text}") from error


def do(block: Block, folder: Path, names: dict[str, Any]) -> None:
    """Do what a block says: write a file, run commands, run Python, check a document."""
    if block.language == "yaml":
        stated = yaml.safe_load(block.text)
        if isinstance(stated, dict) and stated.get("format") == "ztp-search/space":
            parse_space(block.text, str(folder / "space.yaml"))
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "python":
        run_python(block, names)
    elif block.language == SHELL:
        *before, last = commands(block)
        for words in before:
            run_command(words, replace(block, output=""))
        run_command(last, block)
    else:
        assert block.language in ("text", "console", "html", "rst"), "a language nobody checks"
    if block.name:
        (folder / block.name).write_text(block.text, encoding="utf-8")


# ---- the shell -----------------------------------------------------------------------------


def run_command(words: list[str], block: Block) -> None:
    program, *arguments = words
    if program == "pip":
        assert_extras(words)
    elif program == "ztp-search":
        if block.refused:
            assert refusal(arguments).split() == block.output.split()
            return
        args = understand(arguments)
        if not block.not_run and getattr(args, "format", None) not in HOLD_THE_MODEL:
            printed = run_ztp_search(arguments, speed="Speed on" in block.output)
            check_output(printed, block, args.command)
    elif program == "python" and not block.not_run:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=120)
    else:
        assert program in CHECKED_BY_CI or block.not_run, f"{program} is not run by any test"


def run_ztp_search(arguments: list[str], speed: bool) -> str:
    """What a command line prints, run in this process, with the sizes of SMALL."""
    status, out, err = printed_by(shrunk(arguments, speed))
    assert status == 0, err.splitlines()[-1]
    return out


def refusal(arguments: list[str]) -> str:
    """The message that a mistake ends in."""
    status, out, err = printed_by(arguments)
    assert (status, out) == (2, ""), "it is no mistake"
    return err.splitlines()[-1]


def printed_by(arguments: list[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return main(arguments), out.getvalue(), err.getvalue()


def shrunk(arguments: list[str], speed: bool) -> list[str]:
    """The command line with no more trials and images than SMALL, in this process.

    speed: whether it is measured although nothing is said of it.
    """
    command = parse(arguments).command
    if command not in ("search", "evaluate"):
        return arguments
    words = list(arguments)
    most = SMALL if command == "search" else {}
    for name, value in {**most, "workers": 0}.items():
        option = f"--{name}"
        if option in words:
            place = words.index(option) + 1
            words[place] = str(min(int(words[place]), value))
        else:
            words += [option, str(value)]
    stated = any(word.startswith("--speed") for word in words)
    return words if speed or stated else [*words, "--speed", "off"]


def understand(arguments: list[str]) -> argparse.Namespace:
    """Read a command line by the real parser, down to the settings it states."""
    args = parse(arguments)
    if args.command in SETTINGS:
        settings = settings_of(SETTINGS[args.command], args)
        if isinstance(settings, SearchSettings):
            for budget in settings.budgets:
                check_budgets(budget)
    return args


def check_output(printed: str, block: Block, command: str) -> None:
    """What the page shows as output is what is printed; of searches, the headings of tables."""
    if not block.output:
        return
    shown, printed = (" ".join(text.split()) for text in (block.output, printed))
    if command not in OWN_SIZE:
        assert shown == printed, printed
    lines = block.output.splitlines()
    for line, after in zip(lines, lines[1:], strict=False):
        if set(after.strip()) == {"─"}:
            heading = numberless(" ".join(line.split()))
            assert heading in numberless(printed), f"no table is headed {heading!r}"


def numberless(text: str) -> str:
    """A text in which numbers do not matter: another trial has won."""
    return re.sub(r"\d+", "0", text)


def assert_extras(words: list[str]) -> None:
    """What is installed is this project, with extras that it has."""
    extras = {extra for word in words for extra in re.findall(r"\[([\w,]+)\]", word)}
    named = {name for each in extras for name in each.split(",")}
    assert named <= PROJECT["optional-dependencies"].keys(), f"no such extras: {named}"


# ---- Python --------------------------------------------------------------------------------


def run_python(block: Block, names: dict[str, Any]) -> None:
    if block.not_run:
        assert_names(block.text)
    elif ">>>" in block.text:
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        test = doctest.DocTestParser().get_doctest(block.text, names, block.where, None, 0)
        said = io.StringIO()
        failed, _ = doctest.DocTestRunner(optionflags=options).run(
            test, out=said.write, clear_globs=False
        )
        names.update(test.globs)
        assert not failed, said.getvalue()
    elif not block.name:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, block.where, "exec"), names)


def assert_names(text: str) -> None:
    """What a text imports or takes of ztp_search is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ztp_search"):
            for alias in node.names:
                getattr(import_module(str(node.module)), alias.name)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ztp_search":
            getattr(ztp_search, node.attr)


# ---- the rules themselves --------------------------------------------------------------------


def every_block() -> Iterator[Block]:
    for page in RUN:
        yield from blocks(page)


def test_most_commands_are_run() -> None:
    """What is only read has a reason, and is the smaller part."""
    lines = [
        (bool(block.not_run), words)
        for block in every_block()
        if block.language == SHELL
        for words in commands(block)
        if words[0] == "ztp-search"
    ]
    run = sum(not not_run for not_run, _ in lines)
    assert run > len(lines) / 2, [shlex.join(words) for not_run, words in lines if not_run]


def test_a_line_that_is_wrong_is_found(folder: Path) -> None:
    for text in ("ztp-search --budgt 50%", "ztp-search evaluate", "ztp-search export --format png",
                 "ztp-search --budget fifty", "frobnicate"):  # fmt: skip
        with pytest.raises(Exception, match=r"\S"):
            do(Block("x:1", SHELL, f"{text}\n", not_run="" if text == "frobnicate" else "test"),
               folder, {})  # fmt: skip
    with pytest.raises(AttributeError):
        do(Block("x:1", "python", "import ztp_search\nztp_search.serach()\n", not_run="test"),
           folder, {})  # fmt: skip
    with pytest.raises(AssertionError, match="no table is headed"):
        check_output("a b", Block("x:1", SHELL, "", output="c d\n ──── \n"), "search")
