"""A real ComfyUI server with this pack in it, as a child process with a base folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

from . import front_end, host
from .environment import DEV, LAUNCHER, ROOT

CLIP = ROOT / "assets" / "quickstart.mp4"
CPU_OPTIONS = ("--cpu", "--use-pytorch-cross-attention")  # a CPU's default attention is slower
PACK = "EI2"  # the pack's folder name inside custom_nodes


class ServerError(RuntimeError):
    """The server did not start or has ended; the message carries the end of its log."""


class Server:
    """Starts on `with Server() as server:` and ends with the block.

    `base`: its base folder (models, input, output, custom_nodes), kept afterwards; by default a temporary one below
    `.dev`, deleted at the end. `port`: default any free one. `clips`: files copied into the input folder.
    `options`: further ones for ComfyUI's `main.py`. `link`: whether this pack is put into custom_nodes.
    The front end is ComfyUI's own or the one that `front_end.py` tells of. Attributes: `url`, `base`, `log` (a file).
    """

    def __init__(
        self,
        base: Path | None = None,
        port: int | None = None,
        clips: tuple[Path, ...] = (CLIP,),
        options: tuple[str, ...] = (),
        link: bool = True,
    ):
        self._temporary = base is None
        self._given_base, self._clips, self._options, self._link = base, clips, options, link
        self._port = port
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout: float = 240) -> None:
        """Returns when the server answers. `timeout`: seconds. Raises `ServerError`, `SetupError`."""
        DEV.mkdir(exist_ok=True)
        self.base = self._given_base or Path(tempfile.mkdtemp(prefix="server-", dir=DEV))
        self.log = self.base / "host.log"
        port = _free_port() if self._port is None else self._port
        if self._port is not None and _answers(port):
            raise ServerError(f"Port {port} is in use already: end that program or choose another port.")
        self.url = f"http://127.0.0.1:{port}"
        self._fill_base()
        folder = host.locate()
        python = host.interpreter(folder)
        pages = front_end.chosen()
        command = [
            python, str(LAUNCHER), str(folder),
            "--base-directory", str(self.base), "--port", str(port), "--disable-auto-launch", "--disable-api-nodes",
            "--database-url", "sqlite:///:memory:", *([] if has_accelerator(python) else CPU_OPTIONS),
            *(["--front-end-root", str(pages)] if pages else []), *self._options,
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,  # its closing ends the server, whatever becomes of this process
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends the server
            )
        end = time.monotonic() + timeout
        while not self._ready():
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended while starting (exit code {self._process.returncode}).{self.tail()}")
            if time.monotonic() > end:
                raise ServerError(f"ComfyUI has not answered within {timeout:.0f} s.{self.tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends the server; by force after 15 s. Does nothing where it has ended already."""
        if self._process is not None:
            try:
                self._process.stdin.close()
            except OSError:
                pass  # it has ended by itself
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._temporary and hasattr(self, "base"):
            shutil.rmtree(self.base, ignore_errors=True)

    def check(self) -> None:
        """Raises `ServerError` where the server has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise ServerError(f"ComfyUI ended by itself (exit code {self._process.returncode}).{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The end of the server's log, to be appended to a message."""
        if not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return "\nThe end of its log:\n" + "\n".join(f"    {line}" for line in text)

    def _fill_base(self) -> None:
        packs, inputs = self.base / "custom_nodes", self.base / "input"
        for folder in (packs, inputs):
            folder.mkdir(parents=True, exist_ok=True)
        link = packs / PACK
        if self._link and not link.exists():
            link.unlink(missing_ok=True)  # one that leads nowhere any more
            try:
                link.symlink_to(ROOT, target_is_directory=True)
            except OSError:  # Windows without the right to make symbolic links
                import _winapi

                _winapi.CreateJunction(str(ROOT), str(link))
        for clip in self._clips:
            if clip.exists():
                shutil.copy(clip, inputs)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/system_stats", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


@lru_cache
def has_accelerator(python: str) -> bool:
    """Whether that interpreter's torch sees a GPU. Raises `ServerError` where it has no torch."""
    probe = (
        "import torch as t; print(t.cuda.is_available() or t.backends.mps.is_available() or t.xpu.is_available())"
    )
    result = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:]
        raise ServerError(
            f"{python} cannot run ComfyUI: {' '.join(last)}. Set COMFYUI_PYTHON to the interpreter your ComfyUI uses."
        )
    return result.stdout.strip() == "True"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
