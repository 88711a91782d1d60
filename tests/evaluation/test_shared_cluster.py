"""Searches that share a Ray cluster: each has its share, and what one leaves the others take."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.running import SEARCH, argv_of, process, results, stored, until

pytestmark = pytest.mark.slow  # a cluster, and workers that import torch

ENDLESS = {**SEARCH, "trials": 100_000}


class Search:
    """A search on the cluster as a process, and what its log says so far."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.log: dict[str, list[dict[str, Any]]] = defaultdict(list)  # by event
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        with contextlib.suppress(ValueError):  # closed
            for line in self.child.stderr:
                event = json.loads(line)
                self.log[event["event"]].append(event)

    def until(self, condition: Callable[[], bool]) -> None:
        until(condition, self.child)

    def of(self, event: str) -> list[dict[str, Any]]:
        return list(self.log.get(event, ()))

    def shares(self) -> list[tuple[int, int, int]]:
        return [(e["workers"], e["room"], e["searches"]) for e in self.of("shared")]

    def at_work(self) -> int:
        """How many workers it had when one joined last."""
        joined = self.of("joined")
        return joined[-1]["workers"] if joined else 0

    def completes(self) -> None:
        """Wait for a trial that is complete from now on."""
        before = len(self.of("complete"))
        self.until(lambda: len(self.of("complete")) > before)


@contextlib.contextmanager
def search(address: str, out: Path, **settings: Any) -> Iterator[Search]:
    argv = argv_of({**settings, "address": address, "out": out})
    with process("--log-json", *argv) as child:
        yield Search(child)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster with two cores."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def first(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """A search that goes on and on, and had the cluster for itself."""
    with search(address, tmp_path_factory.mktemp("first"), **ENDLESS) as each:
        each.until(lambda: each.at_work() == 2)
        assert each.shares() == []
        yield each


def test_a_search_shares_with_one_that_comes_and_has_all_again_when_that_ends(
    first: Search, address: str, finished: Finished, tmp_path: Path
) -> None:
    with search(address, tmp_path, **SEARCH) as second:
        second.until(lambda: bool(second.of("complete")))
        assert first.shares() == second.shares() == [(1, 2, 2)]
        first.completes()
        assert second.child.wait() == 0
    first.until(lambda: first.shares() == [(1, 2, 2), (2, 2, 1)])
    first.until(lambda: len(first.of("joined")) == 3 and first.at_work() == 2)
    first.completes()
    assert results(stored(tmp_path)) == results(stored(finished.out))
    assert not first.of("retry") and not second.of("retry")


def test_what_a_killed_search_had_the_other_takes(
    first: Search, address: str, tmp_path: Path
) -> None:
    before, came = len(first.shares()), len(first.of("joined"))
    with search(address, tmp_path, **ENDLESS) as second:
        second.until(lambda: bool(second.of("complete")))
        assert first.shares()[before:] == second.shares() == [(1, 2, 2)]
        first.completes()
        os.kill(second.child.pid, signal.SIGKILL)
        first.until(lambda: first.shares()[before:] == [(1, 2, 2), (2, 2, 1)])
        first.until(lambda: len(first.of("joined")) == came + 1 and first.at_work() == 2)
    first.completes()
    assert not first.of("retry")
