"""The development environment: a virtual environment in `.dev` with the exact packages of `requirements.txt`. A user's
own ComfyUI (`COMFYUI_PATH`) gets a second environment, with its own requirements on top.

Standard library only: it runs before anything is installed. A second call is instant: a stamp inside the virtual
environment holds a digest of all requirements.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from batch.host import python_in, user_path

ROOT = Path(__file__).resolve().parent.parent
DEV = (ROOT / ".dev").resolve()  # several clones may share one by links


def _environment_of(host: str) -> Path:
    """The virtual environment for the ComfyUI in the folder `host`; ours if it is empty. Each ComfyUI has its own,
    because it needs other versions of the same packages."""
    folder = user_path(host) if host else DEV
    if DEV in (folder, folder.parent):
        return DEV / "venv"
    return DEV / f"venv-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


VENV = _environment_of(os.environ.get("COMFYUI_PATH", "").strip())
PYTHON = python_in(VENV)
REQUIREMENTS = ROOT / "devtools" / "requirements.txt"
LAUNCHER = ROOT / "batch" / "launch_host.py"
NEEDED_BYTES = 4_000_000_000
TORCHAUDIO = "torchaudio==2.11.1"  # for a ComfyUI that imports it; works without its compiled part too

# pip's message -> what to do about it.
CAUSES = (
    ("No space left on device", "The disk is full: free some space (4 GB with CPU torch, 10 GB with CUDA torch)."),
    ("THESE PACKAGES DO NOT MATCH THE HASHES", "The downloaded file is not the expected one: is a proxy altering it?"),
    ("Failed to establish a new connection", "The package index cannot be reached: check the network or proxy."),
    ("Temporary failure in name resolution", "The package index cannot be reached: check the network or proxy."),
    ("ProxyError", "The proxy refuses the package index: check the proxy settings (HTTPS_PROXY)."),
    ("Read timed out", "The network is too slow or was interrupted: run the same command again to continue."),
    ("CERTIFICATE_VERIFY_FAILED", "The network's certificate is not trusted: set PIP_CERT to your certificate file."),
    ("(from versions: none)", "The package index was not reached or lacks the package: check network and proxy."),
    ("No matching distribution found", "No package fits this Python or system: Python 3.11 is the tested version."),
)


class SetupError(RuntimeError):
    """The set-up cannot continue; the message says why and what to do."""


@contextmanager
def alone() -> Iterator[None]:
    """Lets one set-up run at a time; the others wait."""
    DEV.mkdir(exist_ok=True)
    with open(DEV / "set-up.lock", "w") as file:
        if not _lock(file):
            say("Another dev.py is setting up; waiting for it ...")
            while not _lock(file):
                time.sleep(1)
        yield  # closing the file unlocks it, as its process's end does


def _lock(file: IO[str]) -> bool:
    """Whether it is locked for this process; also where the file system has no locks."""
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def prepare(host_requirements: Path | None = None) -> None:
    """Builds or completes the virtual environment. `host_requirements`: those of a user's own ComfyUI, installed on top
    (torch is not changed). Raises `SetupError`."""
    digest = _digest(host_requirements)
    stamp = VENV / "installed.sha256"
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == digest:
        return
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES and not stamp.exists():
        raise SetupError(
            f"Only {free / 1e9:.1f} GB are free on the disk of {ROOT}, and the set-up needs "
            f"{NEEDED_BYTES / 1e9:.0f} GB: free some space and run the command again."
        )
    stamp.unlink(missing_ok=True)
    say(f"Setting up the development environment in {VENV} (once; safe to interrupt and run again)")
    if not _works():
        _create()
    # torch comes with what it needs on this machine; everything else exactly as listed.
    pip("Installing torch, the largest download", "install", "torch", "--constraint", str(REQUIREMENTS))
    pip("Installing the other packages", "install", "--no-deps", "--requirement", str(REQUIREMENTS))
    if host_requirements is not None:
        _install_for_host(host_requirements)
    _check_imports()
    stamp.write_text(digest)


def add(name: str, what: str) -> None:
    """Installs the packages of `requirements-NAME.txt` unless they are installed. `what`: the line it prints. ComfyUI
    needs none of them. Raises `SetupError`."""
    requirements = REQUIREMENTS.with_name(f"requirements-{name}.txt")
    stamp, content = VENV / f"{name}.txt", requirements.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != content:
        pip(what, "install", "--no-deps", "--requirement", str(requirements))
        stamp.write_text(content, encoding="utf-8")


def pip(what: str, *arguments: str, python: Path = PYTHON) -> None:
    """Runs pip of the virtual environment (or of another `python`) and prints one line saying `what`; raises
    `SetupError`."""
    say(f"  {what} ...", end="")
    start = time.monotonic()
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    (DEV / "pip.log").write_text(result.stdout, encoding="utf-8")
    if result.returncode:
        say(" failed")
        causes = [advice for sign, advice in CAUSES if sign in result.stdout]
        tail = "\n".join(f"    {line}" for line in result.stdout.strip().splitlines()[-8:])
        advice = causes[0] if causes else "pip's last lines are above."
        raise SetupError(f"{what} failed:\n{tail}\n  {advice}\n  pip's full output: {DEV / 'pip.log'}")
    say(f" {time.monotonic() - start:.0f} s")


def say(text: str, end: str = "\n") -> None:
    """Prints and flushes, so output appears in pipes too."""
    print(text, end=end, flush=True)


def _digest(host_requirements: Path | None) -> str:
    parts = [sys.version.encode(), str(VENV).encode(), REQUIREMENTS.read_bytes()]
    if host_requirements is not None:
        parts += [str(host_requirements).encode(), host_requirements.read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _works() -> bool:
    """Whether the virtual environment exists, has pip and has this Python's version."""
    if not PYTHON.exists():
        return False
    probe = "import sys, pip; print(sys.version)"
    result = subprocess.run([str(PYTHON), "-c", probe], capture_output=True, text=True)
    return result.returncode == 0 and result.stdout.strip() == sys.version.strip()


def _create() -> None:
    DEV.mkdir(exist_ok=True)
    say("  Creating the virtual environment ...", end="")
    start = time.monotonic()
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        say(" failed")
        raise SetupError(
            f"{result.stdout.strip()}\n  {sys.executable} cannot create a virtual environment: install Python's venv "
            "module (on Debian and Ubuntu the package python3-venv)."
        )
    say(f" {time.monotonic() - start:.0f} s")


def _install_for_host(requirements: Path) -> None:
    """Installs the requirements of the user's own ComfyUI on top; torch and its companions stay at our versions."""
    lines = [line for line in requirements.read_text(encoding="utf-8").splitlines() if line.strip() != "torchaudio"]
    filtered, constraint = DEV / "host-requirements.txt", DEV / "host-constraint.txt"
    filtered.write_text("\n".join(lines), encoding="utf-8")
    pins = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line.startswith("torch")]
    constraint.write_text("\n".join(pins), encoding="utf-8")
    options = ("--requirement", str(filtered), "--constraint", str(constraint))
    pip(f"Installing what {requirements.parent} needs", "install", *options)
    if "torchaudio" in requirements.read_text(encoding="utf-8"):
        _install_torchaudio()


def _install_torchaudio() -> None:
    """ComfyUI 0.8 and later import torchaudio at startup. Its compiled part fits only one version of torch and CUDA; if
    it cannot be loaded it is removed, and torchaudio works without it."""
    pip("Installing torchaudio", "install", "--no-deps", TORCHAUDIO)
    if subprocess.run([str(PYTHON), "-c", "import torch, torchaudio"], capture_output=True).returncode:
        for library in [*VENV.glob("**/torchaudio/lib/*.so"), *VENV.glob("**/torchaudio/lib/*.pyd")]:
            library.unlink()


def _check_imports() -> None:
    """Checks that the packages that break most often can be imported."""
    probe = "import launch_host; launch_host.repair_torchvision(); import torch, torchvision, av, aiohttp, numpy"
    result = subprocess.run([str(PYTHON), "-c", probe], cwd=LAUNCHER.parent, capture_output=True, text=True)
    if result.returncode:
        raise SetupError(
            f"{result.stderr.strip()}\n  The installed packages do not work together: delete {VENV} and run again."
        )
