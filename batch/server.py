"""A real ComfyUI server as a child process with a base folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch_host.py")
CPU_OPTIONS = ("--cpu", "--use-pytorch-cross-attention")  # a CPU's default attention is slower
# ComfyUI refuses a second option of the same group: where to compute, and how to attend.
DEVICE_OPTIONS = ("--cpu", "--directml", "--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram")
ATTENTIONS = ("split-cross", "quad-cross", "pytorch-cross", "sage", "flash")
ATTENTION_OPTIONS = tuple(f"--use-{kind}-attention" for kind in ATTENTIONS)
PACK = "EI2"  # the pack's folder name inside custom_nodes
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a local server is not reached through a proxy


class ServerError(RuntimeError):
    """The server did not start or has ended; the message includes the end of its log."""


class ServerProcess:
    """`folder`: ComfyUI's; `python`: its interpreter; `base`: its base folder (models, input, output, custom_nodes);
    `port`: default any free one; `options`: more options for ComfyUI's `main.py`. Attributes: `url`, `log` (a file).
    """

    def __init__(self, folder: Path, python: str, base: Path, port: int | None = None, options: tuple[str, ...] = ()):
        self.folder, self.python, self.base, self.options = folder, python, base, options
        self.port = port
        self.log = base / "host.log"
        self._process: subprocess.Popen | None = None

    def start(self, timeout: float = 240) -> None:
        """Returns when the server answers. `timeout`: seconds. Raises `ServerError`."""
        port = free_port() if self.port is None else self.port
        if self.port is not None and _answers(port):
            raise ServerError(f"Port {port} is in use already: end that program or choose another port.")
        self.url = f"http://127.0.0.1:{port}"
        command = [
            self.python,
            str(LAUNCHER),
            str(self.folder),
            "--base-directory",
            str(self.base),
            "--port",
            str(port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--database-url",
            "sqlite:///:memory:",
            *([] if has_accelerator(self.python) else cpu_options(self.options)),
            *self.options,
        ]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.PIPE,  # closing it ends the server, whatever happens to this process
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends the server
            )
        try:
            self._wait(timeout)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int | None:
        """The process id, or None if it does not run."""
        return self._process.pid if self.runs() else None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a process that has ended by itself."""
        return None if self._process is None else self._process.poll()

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, patience: float = 15) -> None:
        """Ends the server; kills it after `patience` seconds. Does nothing if it has already ended."""
        if self._process is None:
            return
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended by itself
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def check(self) -> None:
        """Raises `ServerError` if the server has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise ServerError(f"ComfyUI ended by itself (exit code {self._process.returncode}).{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The end of the server's log, to append to a message."""
        if not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return "\nThe end of its log:\n" + "\n".join(f"    {line}" for line in text)

    def _wait(self, timeout: float) -> None:
        """Returns when the server answers. Raises `ServerError`."""
        end = time.monotonic() + timeout
        while not self._ready():
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended while starting (exit code {self._process.returncode}).{self.tail()}")
            if time.monotonic() > end:
                raise ServerError(f"ComfyUI has not answered within {timeout:.0f} s.{self.tail()}")
            time.sleep(0.2)

    def _ready(self) -> bool:
        try:
            with DIRECT.open(f"{self.url}/system_stats", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


def link_pack(base: Path, pack: Path, name: str = PACK) -> None:
    """Links a pack into the custom_nodes of a base folder, in place of a link to another one."""
    link = base / "custom_nodes" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() in (pack.resolve(), link.parent.resolve() / name):  # the latter is no link
        return
    if os.path.lexists(link):
        try:
            link.unlink()
        except PermissionError:  # Windows: a link to a folder counts as one
            link.rmdir()
    try:
        link.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows without permission to create symbolic links
        import _winapi

        _winapi.CreateJunction(str(pack), str(link))


@lru_cache
def has_accelerator(python: str) -> bool:
    """Whether that interpreter's torch sees a GPU. Raises `ServerError` if it has no torch."""
    probe = "import torch as t; print(t.cuda.is_available() or t.backends.mps.is_available() or t.xpu.is_available())"
    result = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:]
        raise ServerError(
            f"{python} cannot run ComfyUI: {' '.join(last)}. Set COMFYUI_PYTHON to the interpreter your ComfyUI uses."
        )
    return result.stdout.strip() == "True"


def cpu_options(given: tuple[str, ...]) -> list[str]:
    """The default options for a machine without a GPU: of each group, only if none of it is `given`."""
    names = {option.partition("=")[0] for option in given}
    groups = zip(CPU_OPTIONS, (DEVICE_OPTIONS, ATTENTION_OPTIONS))
    return [default for default, group in groups if not names & set(group)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
