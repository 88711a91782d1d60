"""What several test files share: the embedded model with images, and one finished search."""

import copy
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# The models here are small: several threads of PyTorch only get in one another's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:  # tests of the core need no torch
    from ztp_search.evaluation.tasks import Job


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with most slow tests first, so that no process is left with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[None]:
    """Ray leaves its logs behind; here they go with the tests.

    Not in pytest's folder, as the path of a socket in it may not exceed 107 bytes.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("RAY_TMPDIR", folder)
            yield


@pytest.fixture(autouse=True)
def speed_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches measure the speed of their winner: as briefly as can be, wherever torch is loaded,
    which tests of the core do without."""
    if "torch" in sys.modules:
        for name in ("WARM_UP_SECONDS", "TURN_SECONDS", "SECONDS"):
            monkeypatch.setattr(f"ztp_search.evaluation.speed.{name}", 0.0)
        monkeypatch.setattr("ztp_search.evaluation.speed.LEAST", 2)


@dataclass(frozen=True)
class Digits:
    """The embedded model with 160 search and 64 holdout images."""

    loaded: Any
    sets: Any

    def job(
        self,
        precision: str = "fp32",
        batch_size: int = 64,
        cache_bytes: int = 0,
        **paths: Path,
    ) -> "Job":
        from ztp_search.evaluation.runtime import Runtime
        from ztp_search.evaluation.tasks import Job

        return Job(
            copy.deepcopy(self.loaded.model),  # an evaluator converts it
            {"search": self.sets.search.path, "holdout": self.sets.holdout.path, **paths},
            self.loaded.data_config["mean"],
            self.loaded.data_config["std"],
            Runtime("cpu", precision, batch_size),
            "top1",
            cache_bytes,
        )


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    from ztp_search import SearchSettings
    from ztp_search.backbones.loading import load_model
    from ztp_search.driver.evaluator import decode_images
    from ztp_search.driver.progress import Progress
    from ztp_search.settings import resolve_search

    out = tmp_path_factory.mktemp("digits")
    settings = SearchSettings(space="digits", budget="68%", images=160, holdout=64, out=out)
    sources = resolve_search(settings).sources
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    return Digits(loaded, decode_images(sources, loaded, Progress()))


@dataclass(frozen=True)
class Finished:
    """A search that ran to its end, undisturbed, in this process."""

    out: Path
    settings: dict[str, Any]
    document: dict[str, Any]

    @property
    def argv(self) -> list[str]:
        """The command line for it."""
        from helpers.running import argv_of

        return argv_of(self.settings)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Without racing."""
    from helpers.running import SEARCH

    return run_to_its_end(SEARCH, tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """With racing."""
    from helpers.running import RACE

    return run_to_its_end(RACE, tmp_path_factory.mktemp("raced"))


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search under two budgets (`digits-50%-seed0`, `digits-65%-seed0`) of 90
    trials with made-up results, of one of them that was interrupted, and of another seed's."""
    from helpers.made_up import made_up_search

    out = tmp_path_factory.mktemp("made-up")
    made_up_search(out, budget="50%,65%")
    made_up_search(out, study="another seed", seed=1, trials=8)
    made_up_search(out, tasks=20, study="interrupted")
    return out


def run_to_its_end(settings: Mapping[str, Any], out: Path) -> Finished:
    import ztp_search

    settings = {**settings, "workers": 0, "out": out}
    result = ztp_search.search(ztp_search.SearchSettings(**settings))
    return Finished(out, settings, json.loads(json.dumps(result.to_dict())))
