"""How a server starts and how it is ended: the real process and the real launcher, with small programs in place of
ComfyUI; ComfyUI's own parser checks the options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from batch.errors import BatchError
from batch.server import CPU_OPTIONS, ServerError, ServerProcess, cpu_options
from batch.tasks import Setup
from batch.worker import Worker

ANSWERS = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/system_stats" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
SILENT = "import time; time.sleep(300)"


@pytest.fixture
def program(tmp_path):
    """Makes a folder that looks like ComfyUI's, whose main.py is this text."""

    def make(text: str) -> Path:
        folder = tmp_path / "ComfyUI"
        (folder / "comfy").mkdir(parents=True)
        (folder / "main.py").write_text(text, encoding="utf-8")
        return folder

    return make


def running(folder: Path) -> list[int]:
    """The children of this process that run a program in this folder."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if child.is_running() and str(folder) in child.cmdline()]


def test_a_proxy_is_not_asked_for_a_local_server(program, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing answers there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ServerProcess(program(ANSWERS), sys.executable, tmp_path)
    server.start(20)
    assert server.runs()
    server.stop()


def test_a_server_that_is_slow_to_start_is_ended(program, tmp_path):
    folder = program(SILENT)
    server = ServerProcess(folder, sys.executable, tmp_path)
    with pytest.raises(ServerError, match="has not answered within 1 s"):
        server.start(1)
    assert not server.runs() and not running(folder)


def test_a_server_without_a_websocket_is_ended(program, monkeypatch):
    folder = program(ANSWERS)
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    worker = Worker(Setup(str(folder)))
    try:
        with pytest.raises(BatchError, match="No websocket"):
            worker.start()
        assert not running(folder)
    finally:
        worker.stop()


@pytest.mark.parametrize(
    "given, added",
    [
        ((), CPU_OPTIONS),
        (("--fast",), CPU_OPTIONS),
        (("--lowvram", "--fast"), CPU_OPTIONS[1:]),
        (("--cpu",), CPU_OPTIONS[1:]),
        (("--directml=0",), CPU_OPTIONS[1:]),
        (("--use-split-cross-attention",), CPU_OPTIONS[:1]),
    ],
)
def test_comfyui_accepts_the_default_options_with_the_users(given, added, comfyui):
    assert tuple(cpu_options(given)) == added
    parse = "import comfy.options; comfy.options.enable_args_parsing(); import comfy.cli_args"
    command = [sys.executable, "-c", parse, *cpu_options(given), *given]
    result = subprocess.run(
        command, cwd=comfyui, env={**os.environ, "PYTHONPATH": str(comfyui)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
