"""Installs, updates and uninstalls the pack with ComfyUI-Manager, on a separate copy of ComfyUI.

    python3 dev.py check manager

The copy and its Python packages are in `.dev/manager` and are rebuilt every time; nothing outside it
is changed. Exit code 1: a check failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import tomllib

from batch.client import Client, ClientError
from batch.host import python_in

from ..environment import DEV, ROOT, SetupError, pip, say
from ..host import locate
from ..server import PACK, Server, ServerError
from .throwaway import commit, copy_pack

MANAGER = "comfyui-manager==4.3"
FOLDER = DEV / "manager"
VENV = FOLDER / "venv"
PYTHON = python_in(VENV)
COMFYUI = FOLDER / "ComfyUI"
ORIGIN = FOLDER / "origin" / PACK  # the repository that the Manager installs from
INSTALLED = COMFYUI / "custom_nodes" / PACK
MODEL = COMFYUI / "models" / "checkpoints" / "mine.safetensors"  # stands for the user's own files
USERS = ("models/", "input/", "output/", "temp/", "user/", "host.log")  # what an uninstalled pack may leave behind
ABSENT = "matplotlib"  # the one of our requirements that ComfyUI does not include: the Manager must install it
NEW_VERSION = "999.0.0"
STEPS = 2


class Checks:
    """Prints the result of each check; `failed` counts the failures."""

    def __init__(self):
        self.failed = 0

    def __call__(self, what: str, holds: bool, otherwise: object = "") -> None:
        self.failed += not holds
        say(f"  {'ok    ' if holds else 'FAILED'}  {what}" + ("" if holds else f": {otherwise}"))


def main() -> int:
    try:
        failed = live_through()
    except (SetupError, ServerError, ClientError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    say(f"{failed} checks failed" if failed else "All checks passed.")
    return 1 if failed else 0


def live_through() -> int:
    """Runs the pack's life cycle from installation to uninstallation; returns the number of failed checks."""
    check = Checks()
    say(f"Copying ComfyUI and its packages to {FOLDER}")
    prepare()
    files, packages, model = files_of(COMFYUI), packages_of(), MODEL.read_bytes()
    check("the environment is consistent before", *consistent())

    say("Installing")
    answer = manager("install", f"file://localhost{ORIGIN.as_posix()}", "--exit-on-fail")
    check("installed", (INSTALLED / "__init__.py").is_file(), answer)
    check("the missing requirement was installed", ABSENT in packages_of())
    check_packages(check, packages)
    check("our requirements do not ask for torch", *asks_for_no_torch())

    say("Starting ComfyUI and running the quickstart")
    with server() as running, Client(running.url) as client:
        check_nodes(check, client)
        check("the quickstart runs", bool(client.run(quickstart())))
    used = packages_of()

    say("Updating")
    release_new_version()
    answer = manager("update", PACK)
    check("updated", version_in(INSTALLED) == NEW_VERSION, answer)
    check_packages(check, packages)
    with server() as running, Client(running.url) as client:
        check_nodes(check, client)

    say("Uninstalling")
    answer = manager("uninstall", PACK)
    check("uninstalled", not INSTALLED.exists(), answer)
    now = files_of(COMFYUI)
    strays = sorted(name for name in now - files if not name.startswith(USERS))
    check("only the user's own files are left", not strays, strays)
    check("nothing else is gone", files <= now, sorted(files - now))
    check("the user's model is untouched", MODEL.exists() and MODEL.read_bytes() == model)
    check("the packages are as before", packages_of() == used)
    check("the environment is consistent after", *consistent())
    mine = sorted(name for name in now - files if not name.startswith("user/"))
    say("Left, the user's: " + (", ".join(mine) or "nothing"))
    return check.failed


def prepare() -> None:
    """Makes the copy of ComfyUI, its packages with the Manager, and the repository to install from."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    host = locate()
    FOLDER.mkdir(parents=True)
    emptied = {"custom_nodes", "input", "output", "temp", "user", "models", "venv", ".venv", ".git"}
    shutil.copytree(host, COMFYUI, ignore=lambda folder, names: emptied & set(names) if Path(folder) == host else ())
    MODEL.parent.mkdir(parents=True)
    MODEL.write_bytes(b"a model of the user's own")
    (COMFYUI / "custom_nodes").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], check=True)
    probe = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_output([str(PYTHON), "-c", probe]).strip())
    shutil.rmtree(packages)
    # Links instead of copies: pip replaces files and never modifies them.
    shutil.copytree(sysconfig.get_path("purelib"), packages, copy_function=_link)
    pip(f"Installing {MANAGER}", "install", MANAGER, python=PYTHON)
    pip(f"Uninstalling {ABSENT}", "uninstall", "--yes", ABSENT, python=PYTHON)
    os.environ |= {"COMFYUI_PATH": str(COMFYUI), "COMFYUI_PYTHON": str(PYTHON)}  # for processes started from here on
    copy_pack(ORIGIN, published=True)
    commit(ORIGIN, "as it is")


def manager(*arguments: str) -> str:
    """Runs the Manager's command line and returns its output. Raises `SetupError`."""
    command = [str(PYTHON), "-m", "cm_cli", *arguments, "--mode", "local"]
    return _output(command, cwd=FOLDER)


def server() -> Server:
    return Server(base=COMFYUI, link=False)


def check_nodes(check: Checks, client: Client) -> None:
    """Checks that the server knows all nodes of the source."""
    texts = (file.read_text(encoding="utf-8") for file in (ROOT / "nodes").glob("*.py"))
    ours = {node for text in texts for node in re.findall(r'node_id="(\w+)"', text)}
    missing = ours - set(client.object_info())
    check(f"{len(ours)} nodes are registered", bool(ours) and not missing, sorted(missing))


def check_packages(check: Checks, before: dict[str, str]) -> None:
    """Checks that no package changed, only the missing one was added, and all are compatible."""
    now = packages_of()
    moved = {name: (version, now.get(name)) for name, version in before.items() if now.get(name) != version}
    check(f"torch is still {before['torch']}, and no other package has changed", not moved, moved)
    check("no other package was added", set(now) - set(before) <= {ABSENT}, set(now) - set(before))
    check("the environment is consistent", *consistent())


def consistent() -> tuple[bool, str]:
    """Whether `pip check` passes, and its output."""
    result = _pip("check")
    return result.returncode == 0, result.stdout + result.stderr


def asks_for_no_torch() -> tuple[bool, str]:
    """Whether an installation of requirements.txt into an empty environment does
    without torch, and what it installs."""
    options = ("--dry-run", "--ignore-installed", "--quiet", "--report", "-")
    result = _pip("install", *options, "--requirement", str(ROOT / "requirements.txt"))
    if result.returncode:
        return False, result.stderr
    names = sorted(package["metadata"]["name"].lower() for package in json.loads(result.stdout)["install"])
    return ABSENT in names and not any(name.startswith("torch") for name in names), ", ".join(names)


def packages_of() -> dict[str, str]:
    """The copy's Python packages: name -> version."""
    result = _pip("list", "--format", "json")
    if result.returncode:
        raise SetupError(f"pip list failed: {result.stderr}")
    return {package["name"].lower(): package["version"] for package in json.loads(result.stdout)}


def files_of(folder: Path) -> set[str]:
    """All files below `folder`, relative to it, without Python's compiled ones."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if not file.is_dir())
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def quickstart() -> dict:
    """The bundled workflow in API format, with few steps everywhere."""
    prompt = json.loads((ROOT / "workflows" / "api" / "quickstart.json").read_text(encoding="utf-8"))
    for node in prompt.values():
        if isinstance(node["inputs"].get("steps"), int):
            node["inputs"]["steps"] = STEPS
    return prompt


def release_new_version() -> None:
    """Makes a later commit in the repository that the pack was installed from."""
    project = ORIGIN / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{NEW_VERSION}"', text), encoding="utf-8")
    commit(ORIGIN, "a new version")


def version_in(pack: Path) -> str:
    return tomllib.loads((pack / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def _pip(*arguments: str) -> subprocess.CompletedProcess:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def _output(command: list[str], cwd: Path | None = None) -> str:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    result = subprocess.run(command, cwd=cwd, **streams)
    if result.returncode:
        raise SetupError(f"{' '.join(command)} failed ({result.returncode}):\n{result.stdout}")
    return result.stdout


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


if __name__ == "__main__":
    sys.exit(main())
