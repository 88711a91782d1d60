"""Every key that a document, a file or the database holds is described on a page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.pages import ROOT
from helpers.running import url_of

import ztp_search
from ztp_search import EvaluateSettings, SearchSettings, VisualizeSettings
from ztp_search.evaluation.ray_metrics import METRICS
from ztp_search.events import DECISIONS
from ztp_search.pruning.config import CHOICES
from ztp_search.space.space_document import SpaceDocument
from ztp_search.study import StudyReader
from ztp_search.validation import Section

REFERENCE = ROOT / "docs" / "reference"
OPEN = ("kwargs", "versions", "parameters", "scores")
"""Mappings whose keys are the user's, or names of parameters, packages and trials."""
NUMBERED = re.compile(r"^(\d+|[0-9a-f]{64}|block\d\d\..*)$")


def keys(value: Any) -> Iterator[str]:
    """All keys in a document, at whatever depth."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not NUMBERED.match(str(key)):
                yield str(key)
            if key not in OPEN:
                yield from keys(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from keys(each)


def described(*pages: str) -> set[str]:
    """What stands as code on these pages of the reference."""
    text = "\n".join((REFERENCE / f"{page}.md").read_text() for page in pages)
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    return set(re.split(r"[ ,:{}]+", code))


def missing(value: Any, *pages: str) -> list[str]:
    """Keys that are not described; the interval of a difference is where the difference is."""
    known = described(*pages)
    return sorted({key for key in keys(value) if not {key, key.removesuffix("_ci95")} & known})


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "best.json"
    ztp_search.export(path, out=finished.out)
    return path


def test_a_search_and_its_winner(finished: Finished, raced: Finished) -> None:
    for each in (finished, raced):
        assert not missing(each.document, "documents", "files")


def test_a_search_under_several_budgets(tmp_path: Path) -> None:
    settings = SearchSettings(
        space="digits", budget="50%,68%", trials=2, images=32, holdout=16, workers=0, out=tmp_path
    )
    assert not missing(ztp_search.search_front(settings).to_dict(), "documents", "files")


def test_what_the_other_commands_print(finished: Finished, exported: Path, tmp_path: Path) -> None:
    best = ztp_search.best(out=finished.out).to_dict()
    measured = ztp_search.evaluate(exported, EvaluateSettings(workers=0, out=finished.out))
    counted = ztp_search.cost(exported)
    drawn = ztp_search.visualize(
        exported, tmp_path / "x.png", VisualizeSettings(images=1, out=finished.out)
    )
    for document in (best, measured.to_dict(), counted.to_dict(), drawn.to_dict()):
        assert not missing(document, "documents", "files")


def test_attributes_of_a_study_and_its_trials(raced: Finished) -> None:
    with StudyReader.open(url_of(raced.out)) as study:
        assert not missing(dict.fromkeys(study.attributes()), "study")
        assert not missing({f"contract.{key}": None for key in study.contract}, "study")
        for trial in study.trials():
            assert not missing(dict.fromkeys(trial.attrs), "study")


def test_a_space_file() -> None:
    def stated(section: type[Section]) -> Iterator[str]:
        for name, field in section.model_fields.items():
            yield name
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from stated(kind)

    names = {*stated(SpaceDocument)}
    assert {"retention", "holdout_split", "preprocessing", *CHOICES} <= names
    assert not missing(dict.fromkeys(names), "files")


def test_what_a_log_holds() -> None:
    """Each event on a line of the page's table, with its fields and no others."""
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", (REFERENCE / "watching.md").read_text(), re.M)
    table = {
        event: re.findall(r"`(\w+)`", fields)
        for names, fields in rows for event in re.findall(r"`(\w+)`", names)
    }  # fmt: skip
    for kind in DECISIONS:
        fields = [each.name for each in dataclasses.fields(kind) if each.name != "trial"]
        assert table.pop(kind.name, None) == fields
    logged = {"stage": ["text"], "note": ["text"], "output": ["text"], "error": ["text", "status"]}
    assert table.items() >= logged.items()


def test_metrics() -> None:
    page = (REFERENCE / "watching.md").read_text()
    rows = dict(re.findall(r"^\| `(ray_ztp_\w+)` \| (\w+) \|", page, re.M))
    suffix = {"Counter": "_total"}
    assert rows == {
        f"ray_{name}{suffix.get(kind.type, '')}": kind.type.lower()
        for name, kind in METRICS.items()
    }  # fmt: skip


def test_a_key_that_no_page_has_is_found() -> None:
    assert missing({"images": 1, "layers": [{"after_block": 1, "warp": 2}]}, "files") == ["warp"]
