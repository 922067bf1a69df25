"""A worker: owns one real ComfyUI server with a private base folder, and runs workflows on it.

`cluster.py` makes it a Ray actor. `look` and `cancel` are called while `run` runs.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import host
from .base_folder import BaseFolder
from .client import Client, ClientError, Event, ExecutionError, Interrupted, PromptError
from .errors import BatchError
from .fingerprint import fingerprint
from .graph import only
from .plan import OWN
from .server import ServerError, ServerProcess
from .tasks import CANCELLED, INPUT, MEMORY, OK, SERVER, WORKER, Outcome, Setup, Task
from .watch import Watch

THREADS_VARIABLE = "OMP_NUM_THREADS"
# Messages that mean the device is too small, in addition to the exceptions for it: those of allocators and libraries
# (the same as `EXHAUSTED` in ei2/exhausted.py), and the nodes' own.
TOO_SMALL = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "could not create a memory object",
    "could not create a primitive",
    "alloc_failed",
    "of memory, but the device has only",
)


class Worker:
    """Call `start` first, and again after the worker has been restarted."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._server: ServerProcess | None = None
        self._client: Client | None = None
        self._base: BaseFolder | None = None
        self._folders: list[Path] = []  # of models
        self._run: str | None = None
        self._cancelled = False
        self._state: dict[str, object] = {}
        self._lock = threading.Lock()
        self._starts = 0

    def start(self) -> dict[str, object]:
        """Starts the server if none runs; returns its description. Raises `BatchError`."""
        try:
            self._ensure()
        except (ClientError, ServerError) as error:
            self._stop_server()
            raise BatchError(f"{socket.gethostname()}: {error}") from None
        return self._about

    def object_info(self) -> dict:
        """ComfyUI's description of its nodes."""
        return self._client.object_info()

    def run(self, task: Task, fetch: Callable[[object], bytes] | None = None) -> Outcome:
        """Runs a task to its end; never raises. `fetch`: resolves a reference (default: by Ray)."""
        start = time.monotonic()
        watch = Watch(task)
        with self._lock:
            self._cancelled = False
        try:
            self._ensure()
            self._place(task, fetch or _from_ray)
            outputs = self._execute(task, watch)
            outcome = self._collect(task, outputs)
        except Interrupted:
            outcome = Outcome(CANCELLED, "cancelled")
        except PromptError as error:
            outcome = Outcome(INPUT, str(error).replace("\n ", ";"))
        except ExecutionError as error:
            outcome = Outcome(MEMORY if _is_memory(error) else INPUT, _sentence(error))
        except (ClientError, TimeoutError, ServerError) as error:
            outcome = Outcome(SERVER, self._end_server(error))
        except (OSError, BatchError, ValueError, KeyError) as error:
            outcome = Outcome(WORKER, f"{socket.gethostname()}: {type(error).__name__}: {error}")
        outcome.seconds, outcome.stages, outcome.steps = time.monotonic() - start, watch.seconds, watch.steps
        outcome.about = dict(self._about) if self._server else {"host": socket.gethostname()}
        self._state = {}
        return outcome

    def look(self) -> dict[str, object]:
        """The progress of the current run: `task`, `title`, `done`, `total`, `server` (its process id), and `snapshot`:
        the name and time (ns) of the latest tuning snapshot."""
        state = dict(self._state)
        snapshot = self._base and self._base.snapshot()
        if state and snapshot:
            state["snapshot"] = (snapshot.name, snapshot.stat().st_mtime_ns)
        return state

    def take_snapshot(self) -> bytes | None:
        """The content of the latest tuning snapshot."""
        try:
            path = self._base and self._base.snapshot()
            return path.read_bytes() if path else None
        except OSError:
            return None

    def cancel(self) -> None:
        """Ends the current run at its next step."""
        with self._lock:
            self._cancelled = True
            run = self._run
        if run is not None:
            try:
                self._client.interrupt(run)
            except ClientError:
                pass  # it has ended

    def stop(self) -> None:
        """Ends the server and deletes its folder."""
        self._stop_server()
        if self._base is not None:
            self._base.remove()
            self._base = None

    def _ensure(self) -> None:
        """Ensures that a server runs, and starts a new one if the last has
        ended. Raises `ServerError`, `BatchError`."""
        if self._server is not None and self._server.runs() and self._client is not None:
            return
        self._stop_server()
        folder = host.locate(self._setup.comfyui)
        python = host.interpreter(folder)
        models = host.user_path(self._setup.models) if self._setup.models else folder / "models"
        if self._setup.models and not models.is_dir():
            raise BatchError(f"There is no folder of models {models} on {socket.gethostname()}: name another.")
        if self._base is None:
            self._base = BaseFolder(folder, self._setup.packs)
        paths = host.write_model_paths(self._base.path, models)
        if self._setup.threads:
            os.environ[THREADS_VARIABLE] = str(self._setup.threads)
        options = ("--extra-model-paths-config", str(paths), *self._setup.options)
        server = ServerProcess(folder, python, self._base.path, options=options)
        server.start()
        self._server = server  # before anything else can fail, so that the server is stopped then
        self._client = Client(server.url)
        self._folders = self._client.model_folders() or sorted(models.glob("*"))
        self._starts += 1
        stats = self._client.system_stats()
        self._about = {
            "host": socket.gethostname(),
            "server": server.pid,
            "worker": os.getpid(),
            "start": self._starts,
            "comfyui": stats["system"].get("comfyui_version"),
            "torch": stats["system"].get("pytorch_version"),
            "device": stats["devices"][0]["name"],
            "python": platform.python_version(),
        }

    def _place(self, task: Task, fetch: Callable[[object], bytes]) -> None:
        """Raises `OSError`, but not the `TimeoutError` of a network's disk: that is no fault of the server."""
        try:
            self._base.place(task.files, fetch)
        except TimeoutError as error:
            raise OSError(str(error)) from error

    def _execute(self, task: Task, watch: Watch) -> dict:
        """The outputs by node. Raises what `Client.run` raises."""
        self._state = {"task": task.name, "server": self._server.pid}
        try:
            return self._run_graph(task.graph, watch)
        except ExecutionError as error:
            if not task.scored or not error.node.startswith(OWN) or _is_memory(error):
                raise
            # The edit is there; only its scores are missing.
            return self._run_graph(only(task.graph, task.collect), watch)

    def _run_graph(self, graph: dict, watch: Watch) -> dict:
        def on_event(event: Event) -> None:
            watch(event)
            self._state |= watch.state

        with self._lock:
            if self._cancelled:
                raise Interrupted({"node_id": "", "node_type": "before it began"})
            self._run = self._client.submit(graph)
        try:
            return self._client.wait(self._run, on_event, self._setup.silence)
        finally:
            self._run = None
            self._client.forget()

    def _collect(self, task: Task, outputs: dict) -> Outcome:
        """Collects the run's files, and deletes them here. Raises `OSError`, `BatchError`."""
        outcome, used = Outcome(OK), []
        for node, what in task.collect.items():
            for entry in outputs.get(node, {}).values():
                for file in entry if isinstance(entry, list) else []:
                    if isinstance(file, dict) and file.get("filename"):
                        path = self._base.path / file["type"] / file["subfolder"] / file["filename"]
                        outcome.files.append((what, path.suffix, path.read_bytes()))
                        used.append(path)
        missing = set(task.collect.values()) - {what for what, _, _ in outcome.files}
        if missing:
            raise BatchError(f"the run wrote no file for: {', '.join(sorted(missing))}")
        for node, what in task.texts.items():
            text = outputs.get(node, {}).get("text")
            if text:
                outcome.texts[what] = "\n".join(text) if isinstance(text, (list, tuple)) else str(text)
        if task.tune:
            outcome.tune = self._base.keep_tune(task.tune)
        for path in used:
            path.unlink(missing_ok=True)
        outcome.models = {name: fingerprint(name, self._folders) for name in task.models}
        return outcome

    def _end_server(self, error: Exception) -> str:
        """Stops the rest of the server; returns what happened."""
        server = self._server
        if server is None:
            return str(error)
        ended = not server.runs()
        reason = "ComfyUI ended by itself" if ended else str(error)
        tail = server.tail(8)
        if ended and (code := server.exit_code) is not None:
            reason += f" (exit code {code})"
        self._stop_server(patience=2)
        return f"{reason}.{tail}"

    def _stop_server(self, patience: float = 10) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._server is not None:
            self._server.stop(patience)
            self._server = None


def _from_ray(reference: object) -> bytes:
    import ray

    return ray.get(reference)


def _is_memory(error: ExecutionError) -> bool:
    message = f"{error.kind} {error.message}"
    return (
        "OutOfMemory" in error.kind or "MemoryError" in error.kind or any(one in message.lower() for one in TOO_SMALL)
    )


def _sentence(error: ExecutionError) -> str:
    return f"{error.node_type}: {error.message.splitlines()[0] if error.message else error.kind}"
