"""Starts Ray on this machine or connects to a cluster, and makes the workers."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import BatchError
from .host import PACK_ROOT
from .tasks import Setup

HOW_TO_GET = (
    "The batch run needs Ray: run `pip install -r requirements-batch.txt` (a file of this pack) in ComfyUI's Python. "
    "It changes no package that is there."
)
STORE_BYTES = 512 << 20  # of memory for data between driver and workers; the rest goes to the disk
CPUS_PER_WORKER = 4  # on machines without a GPU
# Not sent to other machines, which need only the pack's code and the miniature model.
LEFT_OUT = [
    "/.git",
    "/.dev",
    "/tests",
    "/benchmarks",
    "/docs",
    "/assets",
    "/test-output",
    "/demo-output",
    "/batch-demo",
    "**/__pycache__",
]


@dataclass(frozen=True)
class Cluster:
    """`workers`: handles of actors; `dashboard`: an address, may be empty."""

    workers: list
    dashboard: str


def prepare(local: bool, address: str = "") -> None:
    """Call it before anything imports Ray. `local`: whether Ray is reachable from this machine only; `address`: of a
    cluster. Raises `BatchError` if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise BatchError(HOW_TO_GET)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave CUDA_VISIBLE_DEVICES alone
    if local:  # Ray's setting for no cluster, so all of its ports are on 127.0.0.1
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if address.startswith("ray://") and (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray's client does not do this by default


def connect(options, setup: Setup, clips: int) -> Cluster:
    """Starts or connects to Ray and makes the workers, at most `clips` of them. `options`: of
    the command line. Raises `BatchError`."""
    import ray

    try:
        if options.address:
            context = ray.init(
                address=options.address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"working_dir": str(PACK_ROOT), "excludes": LEFT_OUT},
            )
        else:
            context = ray.init(
                address="local",
                num_cpus=_local_cpus(options),
                object_store_memory=STORE_BYTES,
                include_dashboard=options.dashboard,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": str(PACK_ROOT)}},
            )
    except Exception as error:  # Ray raises plain ones too
        where = f"at {options.address}" if options.address else "on this machine"
        raise BatchError(f"Ray {where} does not start or answer: {error}") from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    most = [int(node.get("CPU", 0)) for node in nodes]
    if gpus:
        number, cpus = min(options.workers or gpus, gpus), options.cpus_per_worker or 1
    elif options.workers and not options.cpus_per_worker:
        number, cpus = options.workers, max(1, sum(most) // options.workers)
        cpus = min(cpus, max(most, default=1))
    else:
        cpus = min(options.cpus_per_worker or CPUS_PER_WORKER, max(most, default=1) or 1)
        number = options.workers or max(1, sum(one // cpus for one in most))
    number = min(number, clips)
    if sum(one // cpus for one in most) < number:
        room = sum(one // cpus for one in most)
        raise BatchError(f"There is room for {room} workers of {cpus} CPUs: lower --workers or --cpus-per-worker.")
    url = getattr(context, "dashboard_url", None) or ""
    setup = setup if gpus else replace(setup, threads=cpus)
    workers = make_workers([setup] * number, bool(gpus), cpus)
    return Cluster(workers, f"http://{url}" if url else "")


def _local_cpus(options) -> int:
    """The number of CPUs, or the number the user wants to share among the workers."""
    return max(os.cpu_count() or 1, (options.workers or 1) * (options.cpus_per_worker or 1))


def make_workers(setups: list[Setup], gpus: bool, cpus: int, kind: type | None = None) -> list:
    """An actor for each setup; Ray replaces lost ones. Ray does not repeat lost tasks, because the schedule counts a
    clip's tries. `kind`: a class other than `Worker`."""
    import ray

    from .worker import Worker

    how = dict(
        num_cpus=cpus,
        num_gpus=1 if gpus else 0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=4,
        scheduling_strategy="SPREAD",
    )
    actor = ray.remote(kind or Worker).options(**how)
    return [actor.remote(setup) for setup in setups]
