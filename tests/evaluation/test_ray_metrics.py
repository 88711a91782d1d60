"""What a search tells becomes metrics, and the dashboard shows all of them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import ROOT
from helpers.running import RACE, SECONDS, ray_workers

import ztp_search
from ztp_search import SearchSettings, ZtpError
from ztp_search.driver.progress import Progress
from ztp_search.driver.watch import Watch
from ztp_search.evaluation import ray_cluster, ray_metrics
from ztp_search.evaluation.pools import open_metrics
from ztp_search.evaluation.ray_metrics import METRICS, RayMetrics, ServiceDiscovery
from ztp_search.events import (
    Back,
    Begin,
    Best,
    Cohort,
    Complete,
    Confirmed,
    End,
    Evaluated,
    Event,
    Failed,
    Finalists,
    Pruned,
    Retry,
    Rung,
    Sampled,
    Stored,
    Winner,
)
from ztp_search.settings import resolve_search

DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "dashboards" / "grafana" / "ztp-search.json").read_text()
)
SCRAPING = ROOT / "dashboards" / "prometheus.yml"
BEGIN = Begin("sqlite:///x", "50%", 8, complete=3, pruned=2, failed=0, running=1)


def queries() -> list[tuple[str, str]]:
    """(title of the panel, query) of every query of every panel."""
    return [
        (panel["title"], target["expr"])
        for panel in DASHBOARD["panels"] for target in panel["targets"]
    ]  # fmt: skip


def exported(name: str) -> str:
    """What Prometheus calls a metric."""
    suffix = {"Counter": "_total", "Histogram": "_bucket", "Gauge": ""}
    return f"ray_{name}{suffix[METRICS[name].type]}"


class Kept:
    """A metric of Ray's that keeps what it is given, by the values of its tags."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], list[float]] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values.setdefault(tuple(tags.values()), []).append(value)

    inc = observe = set


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Kept]:
    made: dict[str, Kept] = {}
    monkeypatch.setattr(
        ray_metrics.Kind, "make", lambda self, name: made.setdefault(name, Kept())
    )
    return made


Opened = Callable[[], RayMetrics]


@pytest.fixture
def opened(kept: dict[str, Kept]) -> Iterator[Opened]:
    """Opens metrics, which are closed at the end."""
    with contextlib.ExitStack() as held:
        yield lambda: held.enter_context(contextlib.closing(RayMetrics([])))


def last(metric: Kept) -> dict[tuple[str, ...], float]:
    return {tags: values[-1] for tags, values in metric.values.items()}


def test_trials_are_counted_by_state_from_what_is_stored(
    kept: dict[str, Kept], opened: Opened
) -> None:
    metrics = RayMetrics([])
    pruned = Pruned(6, 0, 8, ("halving",), 3, 1, 5, None, None)
    for event in (
        BEGIN, *(Sampled(number, "known", 0.1, {}) for number in (6, 7)),
        Complete(5, 8, 0.5, False), pruned, Failed(7, "no"),
    ):  # fmt: skip
        metrics.record("s", event)
    metrics.record("t", Sampled(0, "known", 0.1, {}))
    assert last(kept["ztp_trials"]) == {
        ("s", "running"): 0, ("s", "complete"): 4, ("s", "pruned"): 3, ("s", "failed"): 1,
        ("t", "running"): 1,
    }  # fmt: skip


def test_each_measure_is_one_metrics(
    kept: dict[str, Kept], opened: Opened
) -> None:
    metrics = opened()
    events: list[Event] = [
        BEGIN, Evaluated(64, 5, 3), Evaluated(0, 2, 4), Retry(3, 2, 0, 1, "x"),
        Retry(None, 1, 1, 1, "x"), Stored(0.25), Best(3, 0.5, 0.125), Best(4, 0.75, None), Back(1),
    ]  # fmt: skip
    for event in events:
        metrics.record("s", event)
    values = {name: metric.values for name, metric in kept.items() if name != "ztp_trials"}
    assert values == {
        "ztp_queue": {("s", "waiting"): [5, 2], ("s", "running"): [3, 4]},
        "ztp_image_evaluations": {("s",): [64]},
        "ztp_retries": {("s",): [0, 2, 3]},
        "ztp_database_seconds": {("s",): [0.25]},
        "ztp_best_accuracy": {("s",): [0.5, 0.75]},
        "ztp_best_loss": {("s",): [0.125]},
    }


def test_gauges_are_set_again_until_the_end(
    kept: dict[str, Kept], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray forgets what is not."""
    monkeypatch.setattr(ray_metrics, "REPEAT_SECONDS", 0.001)
    metrics = opened()
    metrics.record("s", Best(3, 0.5, 0.125))
    metrics.record("s", Best(4, 0.75, 0.25))
    accuracy, loss = kept["ztp_best_accuracy"].values, kept["ztp_best_loss"].values
    began = time.monotonic()
    while len(loss["s",]) < 5 and time.monotonic() - began < SECONDS:
        time.sleep(0.001)
    metrics.close()
    assert accuracy["s",][0] == 0.5 and set(accuracy["s",][-3:]) == {0.75}
    count = len(loss["s",])
    time.sleep(0.02)
    assert len(loss["s",]) == count >= 5


def test_what_is_told_before_workers_are_there_is_recorded_then(
    kept: dict[str, Kept], opened: Opened
) -> None:
    watch = Watch(Progress())
    watch.tell(Stored(0.5))  # of no study
    watch.tell(Stored(1.0), "s")
    watch.study = "t"
    watch.tell(Stored(2.0))
    metrics = opened()
    assert not kept["ztp_database_seconds"].values
    watch.use(metrics)
    watch.tell(Stored(3.0))
    assert kept["ztp_database_seconds"].values == {("s",): [1.0], ("t",): [2.0, 3.0]}


def test_nothing_is_kept_where_nobody_serves_metrics() -> None:
    watch = Watch(Progress())
    watch.tell(Stored(1.0), "s")
    assert open_metrics(0, None) is None
    watch.use(None)
    watch.tell(Stored(1.0), "s")
    assert not watch._unrecorded


def test_metrics_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZtpError, match="`metrics` must be served by Ray, but `workers` 0"):
        resolve_search(SearchSettings(space="digits", budget="50%", workers=0, metrics=True))
    node = {"NodeManagerAddress": "10.0.0.1", "Alive": True, "MetricsExportPort": -1}
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [node])
    with pytest.raises(ZtpError, match=r"pip install 'ztp-search\[metrics\]'"):
        ray_cluster.check_metrics()
    monkeypatch.setattr(
        ray_cluster.ray, "nodes",
        lambda: [node, {**node, "MetricsExportPort": 81}, {**node, "Alive": False}],
    )  # fmt: skip
    ray_cluster.check_metrics()
    assert ray_cluster.metrics_endpoints() == ["10.0.0.1:81"]


def test_prometheus_is_told_of_a_ray_for_as_long_as_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    ServiceDiscovery(["10.0.0.1:81"]).close()  # there is no folder: no metrics, and no error
    (tmp_path / "ray").mkdir()
    discovery = ServiceDiscovery(["10.0.0.1:81"])
    (file,) = (tmp_path / "ray").iterdir()
    assert json.loads(file.read_text()) == [{"labels": {"job": "ray"}, "targets": ["10.0.0.1:81"]}]
    patterns = re.findall(r"- /tmp/ray/(\S+)", SCRAPING.read_text())
    assert any(file.match(pattern) for pattern in patterns)
    discovery.close()
    assert not [*(tmp_path / "ray").iterdir()]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    text = " ".join(query for _, query in queries())
    assert {exported(name) for name in METRICS} == set(re.findall(r"\bray_\w+", text))


def test_panels_lie_side_by_side() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y) for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }  # fmt: skip
        assert not taken & cells
        taken |= cells


# ---- a real Prometheus ---------------------------------------------------------------------

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or importlib.util.find_spec("opencensus") is None,
    reason="there is no Prometheus, or no agent of Ray",
)
DECIDED = (Cohort, Sampled, Rung, Pruned, Complete, Finalists, Confirmed, Winner)
"""What a search decides, on whatever workers."""


class Prometheus:
    """One that scrapes what the shipped configuration says, every other second."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query has now, each with its `metric` and `value`."""
        text = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{text}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def values(self, query: str) -> list[float]:
        return [float(series["value"][1]) for series in self.ask(query)]


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    text = SCRAPING.read_text().replace("/tmp/ray/", f"{os.environ['RAY_TMPDIR']}/ray/")
    text = re.sub(r"(scrape|refresh)_interval: \d+s", r"\1_interval: 2s", text)
    (folder / "prometheus.yml").write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(command, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


@pytest.mark.prometheus
@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_prometheus_takes_the_configuration() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(SCRAPING)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Told(Progress):
    """Keeps the events of a search."""

    def __init__(self) -> None:
        self.told: list[Event] = []

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def event(self, study: str | None, event: Event) -> None:
        assert study == "s"
        self.told.append(event)


class Asking(Told):
    """Kills a worker in the middle; at the end, waits until Prometheus has read all, and asks."""

    def __init__(self, server: Prometheus) -> None:
        super().__init__()
        self.server = server
        self.answers: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def event(self, study: str | None, event: Event) -> None:
        super().event(study, event)
        if isinstance(event, Rung) and len(self.of(Rung)) == 8:
            os.kill(ray_workers(os.getpid())[0], signal.SIGKILL)
        if isinstance(event, End):
            began = time.monotonic()
            evaluations = "sum(ray_ztp_image_evaluations_total)"
            while self.server.values(evaluations) != [event.image_evaluations]:
                assert time.monotonic() - began < SECONDS, self.server.values(evaluations)
                time.sleep(0.5)
            for title, query in queries():
                asked = query.replace("$study", ".*").replace("$__rate_interval", "5m")
                assert "$" not in asked
                self.answers[title, query] = self.server.ask(asked)
            for name in ("ray_ztp_trials", "ray_ztp_retries"):
                self.answers["", name] = self.server.ask(name)


@pytest.mark.prometheus
@pytest.mark.slow
@needs_prometheus
def test_every_query_of_the_dashboard_has_an_answer(tmp_path: Path) -> None:
    """Of a search on two Ray workers, of which one is killed in the middle."""
    settings = SearchSettings(**{**RACE, "workers": 2, "metrics": True, "out": tmp_path / "runs"})
    with prometheus(tmp_path) as server:
        asking = Asking(server)
        result = ztp_search.search(settings, asking)
    for (title, query), found in asking.answers.items():
        assert found, f"{title}: {query}"
        for series in found:
            assert math.isfinite(float(series["value"][1])), (title, query, series)
            assert series["metric"].get("study", "s") == "s"

    def answer(title: str, query: str, label: str = "study") -> dict[str, float]:
        found = asking.answers[title, query]
        return {each["metric"][label]: float(each["value"][1]) for each in found}

    assert answer("", "ray_ztp_trials", "state") == result.to_dict()["trials"]
    retries = sum(event.tasks for event in asking.of(Retry))
    assert answer("", "ray_ztp_retries") == {"s": retries} and retries > 0
    best = asking.of(Best)[-1]
    (accuracy,) = (query for title, query in queries() if title == "Best accuracy so far")
    (loss,) = (query for title, query in queries() if title == "Loss of the best so far")
    assert answer("Best accuracy so far", accuracy) == pytest.approx({"s": best.accuracy})
    assert answer("Loss of the best so far", loss) == pytest.approx({"s": best.loss})

    alone = Told()
    ztp_search.search(SearchSettings(**{**RACE, "workers": 0, "out": tmp_path / "alone"}), alone)
    for kind in DECIDED:  # in an order that is the workers'
        assert sorted(map(repr, asking.of(kind))) == sorted(map(repr, alone.of(kind))) != []
