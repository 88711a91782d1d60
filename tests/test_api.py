"""The Python API: examples run as written, results are what is printed, mistakes are refused."""

from __future__ import annotations

import doctest
import inspect
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.messages import one_line
from helpers.running import document

import ztp_search
from ztp_search import EvaluateSettings, ModelSettings, SearchSettings, api
from ztp_search.cli.main import main
from ztp_search.errors import ZtpError
from ztp_search.settings import options, resolve_search

# ---- examples ------------------------------------------------------------------------------

DOCUMENTED = {
    name: found
    for module in (options, api)
    for name, found in vars(module).items()
    if (inspect.isclass(found) or inspect.isfunction(found))
    and found.__module__ == module.__name__
    and ">>>" in (found.__doc__ or "")
}
"""What has an example, in the order of the files: each may build on those before it."""
Failures = dict[str, str]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Failures:
    """What went wrong in each example, "" where all went as written; all in one fresh folder."""
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        for name, found in DOCUMENTED.items():
            out = io.StringIO()
            runner = doctest.DocTestRunner(verbose=False)
            for example in doctest.DocTestFinder(recurse=False).find(found, name, globs={}):
                runner.run(example, out=out.write)
            said[name] = out.getvalue() if runner.tries else "no example was found"
    return said


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_example_runs_as_written(name: str, failures: Failures) -> None:
    assert not failures[name], failures[name]


def test_what_users_call_has_an_example() -> None:
    offered = {name: getattr(ztp_search, name) for name in ztp_search.__all__}
    functions = {name for name, each in offered.items() if each.__module__ == api.__name__}
    assert functions >= {"search", "search_front", "best", "cost", "evaluate", "export"}
    assert functions | {"SearchSettings", "EvaluateSettings"} <= DOCUMENTED.keys()


def test_every_name_is_there_and_no_other() -> None:
    assert len(set(ztp_search.__all__)) == len(ztp_search.__all__)
    assert set(ztp_search.__all__) <= set(dir(ztp_search))
    with pytest.raises(AttributeError, match="serach"):
        ztp_search.serach  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["import ztp_search", "from ztp_search import SearchSettings", "from ztp_search import search",
     "from ztp_search import SearchSettings; SearchSettings(budget='68%', space='digits')"],
)  # fmt: skip
def test_importing_it_and_stating_settings_waits_for_nothing_heavy(statement: str) -> None:
    code = f"{statement}\nimport sys; print(sorted({{'torch', 'timm', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- the same as the command line ----------------------------------------------------------

Printed = Callable[..., dict[str, Any]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """The document that a command line prints, run in this process."""

    def run(*argv: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*argv, "--json"]) == 0
        return document(capsys.readouterr().out)

    return run


def without_seconds(result: Any) -> Any:
    """A document as JSON has it, without how long things took."""
    if isinstance(result, dict):
        return {key: without_seconds(each) for key, each in result.items() if key != "seconds"}
    if isinstance(result, list | tuple):
        return [without_seconds(each) for each in result]
    return result


def test_a_search_is_the_document_that_is_printed(finished: Finished, printed: Printed) -> None:
    result = ztp_search.search(SearchSettings(**finished.settings))
    shown = printed(*finished.argv)
    assert without_seconds(result.to_dict()) == without_seconds(shown)
    assert without_seconds(shown) == without_seconds(finished.document)
    assert list(result.to_dict()) == list(shown)  # in the same order, too
    assert result.winner is not None and result.winner.to_dict() == shown["best"]
    assert list(result.finalists) == shown["holdout"]["candidates"]


def test_settings_in_python_mean_what_they_mean_on_the_command_line(
    tmp_path: Path, printed: Printed
) -> None:
    settings = SearchSettings(
        space="digits", budget=[0.05, "68%"], trials=2, images=32, holdout=0, workers=0,
        sampler="qmc", objective="agreement", tolerance=0.02, method="merge", out=tmp_path,
    )  # fmt: skip
    result = ztp_search.search_front(settings)
    shown = printed(
        "--space", "digits", "--budget", "0.05,68%", "--trials", "2", "--images", "32",
        "--holdout", "0", "--workers", "0", "--sampler", "qmc", "--objective", "agreement",
        "--tolerance", "2%", "--method", "merge", "--out", str(tmp_path),
    )  # fmt: skip
    assert without_seconds(result.to_dict()) == without_seconds(shown)
    assert result.figure is not None and Path(result.figure).is_file()


@pytest.mark.parametrize(
    ("changed", "name"),
    [({}, "digits-68%-seed0"), ({"method": "any"}, "digits-68%-seed0"),
     ({"method": "merge"}, "digits-68%-seed0-merge"),
     ({"method": "zero-tprune", "sampler": "tpe"}, "digits-68%-seed0-zero_tprune-tpe")],
)  # fmt: skip
def test_a_study_that_is_not_named_is_named_after_what_it_cannot_change(
    changed: dict[str, Any], name: str
) -> None:
    settings = SearchSettings(space="digits", budget="68%", **changed)
    assert resolve_search(settings).studies == {"68%": name}


def test_best_is_the_document_that_is_printed(finished: Finished, printed: Printed) -> None:
    result = ztp_search.best(out=finished.out, n=3)
    assert result.to_dict() == printed("best", "--out", str(finished.out), "-n", "3")


def test_an_export_is_the_text_that_is_printed(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.json"
    file = ztp_search.export(path, out=finished.out, study="s")
    assert main(["export", "--out", str(finished.out)]) == 0
    assert capsys.readouterr().out == path.read_text()
    assert api.export_text(out=finished.out) == (path.read_text(), file)
    assert file.to_dict() == json.loads(path.read_text()) == finished.document["best"]


def test_a_cost_is_the_document_that_is_printed(
    finished: Finished, tmp_path: Path, printed: Printed
) -> None:
    path = tmp_path / "best.json"
    file = ztp_search.export(path, out=finished.out)
    shown = printed("cost", str(path))
    model = ModelSettings(
        model=file.model["name"], model_kwargs=file.model["kwargs"], weights="digits"
    )
    for counted in (
        ztp_search.cost(path),
        ztp_search.cost(str(path)),
        ztp_search.cost(file),
        ztp_search.cost(file.config, model),
    ):
        assert without_seconds(counted.to_dict()) == shown


# ---- the user's mistakes -------------------------------------------------------------------

MISTAKES = [
    ({"trials": 0}, "`trials`"),
    ({"trials": "4"}, "`trials`"),
    ({"trails": 4}, "`trails`"),
    ({"workers": -1}, "`workers`"),
    ({"seed": 1.5}, "`seed`"),
    ({"holdout": -1}, "`holdout`"),
    ({"timeout": -1}, "`timeout`"),
    ({"tolerance": 0}, "`tolerance`"),
    ({"tolerance": float("nan")}, "`tolerance`"),
    ({"gpus_per_worker": 0}, "`gpus_per_worker`"),
    ({"budget_counts": "all"}, "`budget_counts`"),
    ({"precision": "fp64"}, "`precision`"),
    ({"device": "gpu"}, "`device`"),
    ({"data": 3}, "`data`"),
    ({"mean": "half"}, "`mean` must be a list"),
    ({"mean": 0.5}, "`mean` must be a list"),
    ({"std": ["half"]}, "`std`"),
    ({"input_size": 224}, "`input_size` must be a list"),
    ({"model_kwargs": "depth=3"}, "`model_kwargs`"),
    ({"skip_unreadable": "no"}, "`skip_unreadable`"),
    ({"budget": None}, "`budget`"),
    ({"budget": [None]}, "`budget`"),
    ({"budget": "3x"}, "`budget`"),
    ({"budget": 0}, "`budget`"),
    ({"budget": []}, "`budget`"),
    ({"budget": "50%,3x"}, "`budget`"),
    ({"budget": "50%,68%"}, "`budget` must be one budget for `search`"),
    ({"sampler": "random"}, "`sampler` must be one of monte-carlo, "),
    ({"racing": "fast"}, "`racing` must be one of both, "),
    ({"objective": "top5"}, "`objective` must be one of top1, "),
    ({"method": "tome"}, "`method` must be one of any, zero-tprune, merge, but got 'tome'"),
    ({"method": None}, "`method`"),
    ({"space": "any"}, "`model` is needed"),
    ({"weights": "/no/file"}, "`weights` /no/file"),
    ({"class_map": Path("/no/map")}, "`class_map` /no/map"),
    ({"data": "/no/folder"}, "`data` /no/folder"),
    ({"storage": "nope"}, "`storage`"),
]


@pytest.mark.parametrize(("changed", "says"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_setting(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    usual: dict[str, Any] = {
        "space": "digits", "budget": "68%", "trials": 1, "images": 8, "holdout": 0, "workers": 0,
        "out": tmp_path,
    }  # fmt: skip
    with pytest.raises(ZtpError) as refused:
        ztp_search.search(SearchSettings(**(usual | changed)))
    assert says in one_line(refused)
    assert "--" not in one_line(refused) and "pydantic" not in one_line(refused)
    assert not list(tmp_path.iterdir())  # before any work


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SearchSettings(), "`budget`"),
        (lambda: EvaluateSettings(image_set="all"), "`image_set`"),
        (lambda: EvaluateSettings(budget="68%"), "`budget`"),
        (lambda: ModelSettings(num_classes=0), "`num_classes`"),
    ],
)
def test_other_settings_are_checked_as_well(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ZtpError) as refused:
        make()
    assert says in one_line(refused)


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = SearchSettings(budget="68%")
    with pytest.raises(AttributeError):
        settings.trials = 3


def test_what_is_not_in_the_study_is_refused(finished: Finished, tmp_path: Path) -> None:
    out, path = finished.out, tmp_path / "x"
    calls: dict[str, Callable[[], object]] = {
        "got 99": lambda: ztp_search.export(path, out=out, trial=99),
        "`format` must be one of json": lambda: ztp_search.export(path, "tflite", out=out),
        "`output`": lambda: ztp_search.export(tmp_path, out=out),
        "'other'": lambda: ztp_search.best(out=out, study="other"),
        "run a search first": lambda: ztp_search.best(out=tmp_path / "nowhere"),
        "`n` must be 1 or above, but got 0": lambda: ztp_search.best(out=out, n=0),
        "`n` must be 1 or above, but got -1": lambda: ztp_search.best(out=out, n=-1),
        "give `model`": lambda: ztp_search.cost(ztp_search.PruningConfig()),
        "no_such_vit": lambda: ztp_search.cost(ztp_search.PruningConfig(), "no_such_vit"),
        "/no/file": lambda: ztp_search.evaluate("/no/file"),
    }
    for says, call in calls.items():
        with pytest.raises(ZtpError) as refused:
            call()
        assert says in one_line(refused)
    assert not path.exists()
