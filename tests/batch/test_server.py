"""How a server starts and how it is ended: the real process and the real launcher, with small programs in place of
ComfyUI; ComfyUI's own parser checks the options."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from batch.base_folder import folder_of_process
from batch.errors import BatchError
from batch.server import CPU_OPTIONS, PACK, ServerError, ServerProcess, cpu_options, link_pack
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


def test_a_pack_is_linked_in_place_of_another_ones_link(tmp_path):
    """As in the copy of a clone, whose links still point to the first one. A folder of that name stays."""
    first, second = tmp_path / "first", tmp_path / "second"
    for pack in (first, second):
        pack.mkdir()
        link_pack(tmp_path, pack)
        link_pack(tmp_path, pack)
        assert (tmp_path / "custom_nodes" / PACK).resolve() == pack.resolve()
    (tmp_path / "custom_nodes" / "installed").mkdir()
    link_pack(tmp_path, first, "installed")
    assert not (tmp_path / "custom_nodes" / "installed").is_symlink()


def test_folders_of_killed_processes_go(tmp_path):
    """Not those of other machines, where the process may be running."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed, others, running = (
        tmp_path / f"work-{machine}-{process}-x"
        for machine, process in ((socket.gethostname(), ended.pid), ("other", ended.pid), (socket.gethostname(), 1))
    )
    for folder in (killed, others, running):
        folder.mkdir()
    own = folder_of_process("work-", tmp_path)
    assert set(tmp_path.iterdir()) == {others, running, own}
