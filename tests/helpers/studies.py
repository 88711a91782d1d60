"""Studies for the tests of the database: their settings, their trials, and Optuna's view."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.study import NewTrial, StudyDriver, Update

CONTRACT = {"seed": 0, "geometry": {"depth": 12, "heads": 6}, "space_sha256": "ab" * 32}
BLOCKS = (3, 7)
RANGES: dict[str, tuple[float, float] | tuple[str, ...]] = {
    "block03.retention": (0.3, 0.9),
    "block03.s_tokens": (2, 50),
    "block03.wpr_iterations": (30, 50),
    "block03.merge_share": (0.0, 1.0),
    "block07.retention": (0.3, 0.9),
    "block07.s_tokens": (0, 20),
    "block07.wpr_iterations": (5, 10),
    "block07.merge_share": (0.0, 0.5),
    "sizes": ("ignore", "track"),
    "v_min": (0.0, 0.5),
    "v_max": (1.0, 20.0),
}
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ztp_search.study"])  # imported once, not by every process


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/study.db"


def open_study(url: str, name: str = "s", **changes: object) -> StudyDriver:
    return StudyDriver.open(url, name, {**CONTRACT, **changes}, blocks=BLOCKS, ranges=RANGES)


def config_of(number: int) -> PruningConfig:
    layer = PruningLayer(3, 0.3 + number / 1000, s_tokens=10, wpr_iterations=30, merge_share=0.25)
    sizes = "track" if number % 2 else "ignore"
    return PruningConfig((layer,), v_min=0.25, v_max=2.5, sizes=sizes)


def start(study: StudyDriver, *numbers: int, **attrs: Any) -> None:
    """In one transaction."""
    study.start([NewTrial(number, config_of(number), attrs) for number in numbers])


def complete(study: StudyDriver, number: int, value: float, **attrs: Any) -> None:
    study.update([Update(number, "complete", value, attrs)])


@contextmanager
def optuna_study(url: str, name: str = "s") -> Iterator[optuna.Study]:
    """The study as Optuna and its tools see it."""
    storage = optuna.storages.RDBStorage(url)
    yield optuna.load_study(study_name=name, storage=storage)
    storage.remove_session()
    storage.engine.dispose()
