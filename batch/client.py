"""ComfyUI's HTTP and websocket interface as blocking calls.

with Client(server.url) as client:
    outputs = client.run(prompt)  # prompt: a workflow in API format
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import requests

FINAL = ("execution_success", "execution_error", "execution_interrupted")


class ClientError(RuntimeError):
    """The server refused a request or cannot be reached."""


class PromptError(ClientError):
    """The server found the workflow invalid. `error`: the general error (`type`, `message`, `details`); `node_errors`:
    for each node id, `class_type` and `errors`, a list of such errors."""

    def __init__(self, error: dict, node_errors: dict):
        self.error, self.node_errors = error, node_errors
        lines = [f"The workflow is invalid: {error.get('message')} {error.get('details') or ''}".rstrip()]
        for node, found in node_errors.items():
            lines += [f"node {node} ({found['class_type']}): {e['message']} {e['details']}" for e in found["errors"]]
        super().__init__("\n  ".join(lines))


class ExecutionError(ClientError):
    """A node failed. `node`: its id; `node_type`; `kind`: the exception's type; `message`; `traceback`: text."""

    def __init__(self, data: dict):
        self.node, self.node_type = data["node_id"], data["node_type"]
        self.kind, self.message = data["exception_type"], data["exception_message"].strip()
        self.traceback = "".join(data["traceback"])
        super().__init__(f"node {self.node} ({self.node_type}) failed: {self.message} [{self.kind}]")


class Interrupted(ClientError):
    """The run was interrupted on request. `node`: the node it was in."""

    def __init__(self, data: dict):
        self.node = data["node_id"]
        super().__init__(f"interrupted in node {self.node} ({data['node_type']})")


@dataclass(frozen=True)
class Event:
    """One websocket message: `execution_start`, `execution_cached`, `executing`, `progress`, `progress_state`,
    `executed` or one of `FINAL`. `time`: seconds, by `time.monotonic()`."""

    kind: str
    data: dict
    time: float

    def progress(self) -> dict[str, tuple[float, float]]:
        """For each running node: steps done, total steps. Only `progress_state` has them."""
        if self.kind != "progress_state":
            return {}
        states = self.data["nodes"].items()
        return {node: (state["value"], state["max"]) for node, state in states if state["state"] == "running"}


class Client:
    """`url`: the server's, e.g. `http://127.0.0.1:8188`. Opens its websocket at once; use it in a `with` block."""

    def __init__(self, url: str, timeout: float = 60):
        self.url, self.id = url.rstrip("/"), uuid.uuid4().hex
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # a local server is not reached through the proxy
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._closed: str | None = None  # why there are no more events
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._open.wait(timeout)
        if self._closed is not None or not self._open.is_set():
            raise ClientError(f"No websocket to {self.url}: {self._closed or 'no answer'}.")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._socket.close(), self._loop)
            self._thread.join(5)
        self._session.close()

    def object_info(self, node: str | None = None) -> dict:
        """The server's nodes: node class -> inputs, outputs, help. Empty for an unknown `node`."""
        return self._request("GET", "/object_info" + (f"/{node}" if node else "")).json()

    def system_stats(self) -> dict:
        """Versions, devices and memory."""
        return self._request("GET", "/system_stats").json()

    def model_folders(self) -> list[Path]:
        """The folders where the server looks for models, those of `extra_model_paths.yaml` included. Empty if it does
        not say, because not every version of ComfyUI does."""
        answer = self._request("GET", "/experiment/models", accept=(404, 405))
        return [Path(folder) for kind in answer.json() for folder in kind["folders"]] if answer.ok else []

    def upload(self, file: Path, name: str | None = None) -> str:
        """Uploads a picture or video to the server's input folder; returns the name to use in a workflow."""
        with open(file, "rb") as content:
            files = {"image": (name or file.name, content)}
            answer = self._request("POST", "/upload/image", files=files, data={"overwrite": "true"}).json()
        return f"{answer['subfolder']}/{answer['name']}" if answer["subfolder"] else answer["name"]

    def submit(self, prompt: dict) -> str:
        """Queues a workflow and returns the run's id. Raises `PromptError` if any part of it is invalid."""
        answer = self._request("POST", "/prompt", accept=(400,), json={"prompt": prompt, "client_id": self.id})
        body = answer.json()
        if body.get("node_errors") and answer.ok:
            # Part of the workflow is valid and queued, but half a result is useless.
            self._request("POST", "/queue", json={"delete": [body["prompt_id"]]})
            self.interrupt(body["prompt_id"])
        if body.get("error") or body.get("node_errors"):
            general = body.get("error") or {"message": "some of its outputs cannot be computed."}
            raise PromptError(general, body.get("node_errors") or {})
        return body["prompt_id"]

    def events(self, run: str, timeout: float = 900) -> Iterator[Event]:
        """The run's events from its start, as they arrive; ends with one of `FINAL`. `timeout`: the longest silence in
        seconds. Raises `TimeoutError`, and `ClientError` if the connection breaks."""
        index = 0
        while True:
            with self._news:
                if not self._news.wait_for(lambda: len(self._events) > index or self._closed is not None, timeout):
                    raise TimeoutError(f"No news of the run for {timeout:.0f} s.")
                if len(self._events) == index:
                    raise ClientError(f"The server's connection broke: {self._closed}.")
                event = self._events[index]
            index += 1
            if event.data.get("prompt_id") == run:
                yield event
                if event.kind in FINAL:
                    return

    def wait(self, run: str, on_event: Callable[[Event], None] | None = None, timeout: float = 900) -> dict:
        """Waits for the run's end; returns its outputs (node id -> e.g. `images`: a list of files for `view`).
        `on_event` is called with every event. Raises `ExecutionError`, `Interrupted`, and what `events` raises."""
        for event in self.events(run, timeout):
            if on_event is not None:
                on_event(event)
        if event.kind == "execution_error":
            raise ExecutionError(event.data)
        if event.kind == "execution_interrupted":
            raise Interrupted(event.data)
        return self.history(run)["outputs"]

    def run(self, prompt: dict, on_event: Callable[[Event], None] | None = None, timeout: float = 900) -> dict:
        """`submit`, then `wait`."""
        return self.wait(self.submit(prompt), on_event, timeout)

    def history(self, run: str, timeout: float = 30) -> dict:
        """The finished run's record: `outputs`, `status`, `prompt`. It appears a moment after the last event."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            record = self._request("GET", f"/history/{run}").json().get(run)
            if record is not None:
                return record
            time.sleep(0.05)
        raise ClientError(f"The server's history has no run {run} after {timeout:.0f} s.")

    def forget(self) -> None:
        """Drops the events received so far, for long-lived clients. Do not call it while waiting for a run."""
        with self._news:
            self._events.clear()

    def interrupt(self, run: str | None = None) -> None:
        """Stops the run (default: the current one); returns before it has stopped."""
        self._request("POST", "/interrupt", json={"prompt_id": run} if run else {})

    def view(self, file: dict) -> bytes:
        """The content of an output file, as named in a run's outputs."""
        keys = ("filename", "subfolder", "type")
        return self._request("GET", "/view", params={key: file[key] for key in keys}).content

    def free(self) -> None:
        """Unloads the models and forgets cached results, before the next run at the latest."""
        self._request("POST", "/free", json={"unload_models": True, "free_memory": True})

    def _request(self, method: str, path: str, accept: tuple[int, ...] = (), **options) -> requests.Response:
        try:
            answer = self._session.request(method, self.url + path, timeout=self._timeout, **options)
        except requests.RequestException as error:
            raise ClientError(f"{self.url} does not answer: {error}") from error
        if not answer.ok and answer.status_code not in accept:
            raise ClientError(f"{method} {path} was refused ({answer.status_code}): {answer.text[:300]}")
        return answer

    def _listen(self) -> None:
        reason = "closed by the server"
        try:
            asyncio.run(self._receive())
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error)
        with self._news:
            self._closed = reason
            self._news.notify_all()
        self._open.set()

    async def _receive(self) -> None:
        self._loop = asyncio.get_running_loop()
        address = f"{self.url}/ws?clientId={self.id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as self._socket:
            self._open.set()
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue  # preview pictures
                content = message.json()
                with self._news:
                    self._events.append(Event(content["type"], content.get("data") or {}, time.monotonic()))
                    self._news.notify_all()
