"""Ray itself and its worker processes. Imports neither torch nor timm.

Starting Ray and importing torch in its workers takes as long as importing torch here, so the
command line begins with `connect` and `start_workers`, and the rest of the start runs beside it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from ztp_search.errors import ZtpError

MISSED_HEALTH_CHECKS = 60
"""Of a node that is this process's own, until Ray takes it for dead: three minutes."""

WORKER = "ztp-worker-"
"""What the names of workers begin with that are started early."""


def connect(address: str | None, threads: int, workers: int | None) -> bool:
    """Join the Ray cluster at `address`, or start one here that has room for the workers.

    Args:
        address: of a running cluster; None starts one.
        threads: CPU cores of one worker.
        workers: how many there will be; None: as many as there are cores.

    Returns:
        Whether this call has connected, so that its caller is to `disconnect`. False where this
        process is connected already: its session is left as it is.

    Raises:
        ZtpError: no cluster answers.
    """
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "configure_logging": False,
    }
    # Ray prints what happens to its own processes, hundreds of lines of state, to our stdout.
    ray._private.worker.print_to_stdstream = _print_nothing
    with _own_signals():
        _join_or_start(address, threads, workers, options)
    return True


def _join_or_start(
    address: str | None, threads: int, workers: int | None, options: dict[str, Any]
) -> None:
    if address is not None:
        _check_answers(address)
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RayError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise ZtpError(
                f"`address` {address}: no Ray cluster lets this process join there ({line}); where "
                "the cluster wants a token, as a newer `ray start` does, set RAY_AUTH_MODE=token, "
                "and RAY_AUTH_TOKEN unless ~/.ray/auth_token holds it"
            ) from None
        return
    # Ray's client ends the process when it is told that its node has died. That is found out here
    # sooner (`what_is_lost`), and ending what is left of Ray takes seconds.
    options["_system_config"] = {"health_check_failure_threshold": MISSED_HEALTH_CHECKS}
    # A worker of more threads than there are cores is slow, but it is what a study may ask for.
    options["num_cpus"] = max(threads * (workers or 1), os.cpu_count() or 1)
    ray.init(address="local", include_dashboard=False, **options)  # whatever RAY_ADDRESS says


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's way of ending at SIGTERM, if it has one: Ray puts its own there."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and before not in (signal.SIG_DFL, None):
            signal.signal(signal.SIGTERM, before)


def _check_answers(address: str) -> None:
    """ZtpError where nothing listens at HOST:PORT: Ray itself would go on trying for ever."""
    host, port = _host_and_port(address.removeprefix("ray://"))
    if not host or not port:
        return  # "auto"
    try:
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ZtpError(f"`address` {address}: no Ray cluster answers there ({error})") from None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0


def _print_nothing(*_: Any, **__: Any) -> None: ...


def metrics_endpoints() -> list[str]:
    """HOST:PORT where each node of the cluster serves metrics; none where Ray's agent is not."""
    return [
        f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
        for node in ray.nodes()
        if node["Alive"] and node.get("MetricsExportPort", -1) > 0
    ]


def check_metrics() -> None:
    """ZtpError where no node serves metrics."""
    if not metrics_endpoints():
        raise ZtpError(
            "`metrics` needs the agent of Ray, which is not running; install it with "
            "pip install 'ztp-search[metrics]', on every node of a cluster"
        )


def disconnect() -> None:
    """Leave the cluster; one that was started here ends."""
    with contextlib.suppress(Exception):
        ray.shutdown()


def abandon() -> None:
    """Leave a cluster that is gone: `disconnect`, now or at exit, would wait for its answer."""
    atexit.unregister(ray.shutdown)


@dataclass(frozen=True)
class Lost:
    """What of Ray is lost. for_good: it cannot come back."""

    what: str
    for_good: bool


def what_is_lost() -> Lost | None:
    """What this process cannot work without, of Ray, and has lost; None where all is there.

    Ray's own client ends the process some seconds after its node here has died, and a minute after
    the head of its cluster has gone silent, so that is found out here.
    """
    node = ray._private.worker._global_node
    if node is None:  # a client at a distance (ray://), which goes on trying by itself
        return None
    dead = [name for name, _ in node.dead_processes() if name in ("gcs_server", "raylet")]
    if dead:  # of a Ray that was started here
        return Lost(f"its {' and '.join(dead)} died", for_good=True)
    try:
        with socket.socket(socket.AF_UNIX) as raylet:
            raylet.connect(node.raylet_socket_name)
    except OSError as error:
        return Lost(f"its raylet on this machine is gone ({error})", for_good=True)
    try:
        socket.create_connection(_host_and_port(node.gcs_address), timeout=5).close()
    except OSError as error:
        return Lost(f"its head at {node.gcs_address} does not answer ({error})", for_good=False)
    return None


def is_of_this_process() -> bool:
    """Whether Ray was started by this process, so that it may start it again."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.all_processes)


def end_workers(workers: Iterable[Any]) -> None:
    """End these workers, of a cluster that goes on."""
    if not ray.is_initialized():  # Ray would start a cluster
        return
    for worker in workers:
        with contextlib.suppress(Exception):
            ray.kill(worker)


class Worker:
    """The Ray actor: imports torch when it starts, is given a job once, then evaluates tasks."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")  # of third parties: said once, in the driver, if at all
        import ztp_search.evaluation.tasks  # noqa: F401  (while the driver is still busy with its own)

        self._held: tuple[Any, Mapping[str, Any]] | None = None
        self._targets: dict[str, Any] = {}
        self._runner: Any = None

    def hold(self, job: Any, stored_images: Mapping[str, Any]) -> None:
        """Keep the `tasks.Job`, and its images where they come from Ray's object store."""
        self._held = job, stored_images

    def hold_targets(self, image_set: str, targets: Any) -> None:
        """Compare outputs on an image set with these from now on."""
        self._targets[image_set] = targets

    def run(self, task: Any) -> Any:
        from ztp_search.evaluation.tasks import evaluate_task

        if self._runner is None:  # here, so that what goes wrong is this task's error
            assert self._held is not None
            job, stored_images = self._held
            images = {name: ray.get(reference) for name, reference in stored_images.items()}
            self._runner = job.model_runner(images or None)
            self._runner.targets = self._targets
        return evaluate_task(self._runner, task)

    def pid(self) -> int:
        return os.getpid()

    def node(self) -> str:
        """The node that it is on, as Ray names it."""
        return str(ray.get_runtime_context().get_node_id())


def actor_class(**share: float) -> Any:
    """The Ray actor class of workers with this share of the machine (num_cpus or num_gpus).

    Ray is told not to restart them: with `max_task_retries=0`, tasks that are sent to an actor
    while Ray restarts it fail at once. `RayPool` starts a new worker in place of a dead one, and
    gives its tasks out again. By default it would have one that takes a GPU take a core as well,
    so that workers on cores could keep those on GPUs waiting.
    """
    return ray.remote(max_restarts=0, max_task_retries=0, **{"num_cpus": 0, **share})(Worker)


def start_workers(count: int, **share: float) -> list[Any]:
    """Workers 0 to count - 1: those that were started before, else new ones.

    More of them that were started before are ended.
    """
    actor = actor_class(**share)
    names = [f"{WORKER}{index}" for index in range(count)]
    for name in ray.util.list_named_actors():  # of this driver, unless its session has a namespace
        if name.startswith(WORKER) and name not in names:
            end_workers([ray.get_actor(name)])
    return [actor.options(name=name, get_if_exists=True).remote() for name in names]


def workers_of(threads: int) -> int:
    """How many workers of `threads` CPU cores each the cluster has room for."""
    return max(1, int(ray.cluster_resources().get("CPU", 0.0) / threads + 1e-9))


def free_workers_of(threads: int) -> int:
    """How many workers of `threads` CPU cores each can start now, beside those of others."""
    return int(ray.available_resources().get("CPU", 0.0) / threads + 1e-9)


def has_gpu() -> bool:
    """Whether the cluster has a GPU."""
    return bool(ray.cluster_resources().get("GPU", 0.0))
