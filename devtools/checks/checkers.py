"""Public checkers of ComfyUI packs, each as a function that returns its findings.

They are installed into `.dev/checkers`, separate from ComfyUI's own packages. They send no data and do not write
outside that folder. `public.py` runs them.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

from batch.client import Client
from batch.host import python_in

from ..environment import DEV, ROOT, SetupError, pip, say
from ..host import locate
from ..server import PACK, Server
from .findings import Finding
from .throwaway import commit, copy_pack

FOLDER = DEV / "checkers"
VENV = FOLDER / "venv"
PYTHON = python_in(VENV)
REQUIREMENTS = ROOT / "devtools" / "requirements-checks.txt"
INSTALL = FOLDER / "install"  # looks like a ComfyUI with one pack in it
COPY = INSTALL / "custom_nodes" / PACK
HOST_PARTS = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "app", "utils", "*.py")
WORKFLOWS = ROOT / "workflows"

LINTED = re.compile(r"^ *(?P<file>\S+\.py):$|^ +Line (?P<line>\d+)(?:, col \d+)?: (?P<what>.+)$")
CONCISE = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+):\d+: (?P<what>.+)$")
OUTSIDE = "outside cp1252, "


def prepare() -> None:
    """Installs the checkers and copies the pack. Raises `SetupError`."""
    stamp = VENV / "installed.txt"
    content = REQUIREMENTS.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != content:
        say(f"Setting up the checkers in {FOLDER}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip("Installing the checkers", "install", "--requirement", str(REQUIREMENTS), python=PYTHON)
        stamp.write_text(content, encoding="utf-8")
    copy_pack(COPY)


def ruff() -> list[Finding]:
    """The project's own rules and formatting."""
    commands = (("check", "."), ("format", "--check", "."))
    outputs = [_run("ruff", *command, "--output-format", "json", accept=(0, 1)).stdout for command in commands]
    return [
        Finding("ruff", _inside(fault["filename"]), f"{fault['code']} {fault['message']}", fault["location"]["row"])
        for output in outputs
        for fault in json.loads(output)
    ]


def comfy_test_lint() -> list[Finding]:
    """Structure, characters outside Windows code page 1252, constructs with a better alternative in ComfyUI, and
    the JavaScript. It stops at the first failing rule, so the characters are reported, and then replaced in the copy
    for a second pass."""
    first = _lint()
    names = sorted({finding.where for finding in first if finding.what.endswith("not encodable in cp1252")})
    if not names:
        return first
    findings = []
    for name in names:
        file = COPY / name
        content = file.read_text(encoding="utf-8")
        findings += [Finding("comfy-test lint", name, OUTSIDE + kind, line) for kind, line in odd_characters(content)]
        file.write_text(content.encode("cp1252", "replace").decode("cp1252"), encoding="utf-8")
    return findings + _lint()


def odd_characters(source: str) -> list[tuple[str, int]]:
    """The characters of a Python source outside code page 1252: one entry "in comments and docstrings", and one "in
    text: …" for every other token with such characters; with its (first) line."""
    odd = lambda text: "".join(c for c in text if c not in c.encode("cp1252", "ignore").decode("cp1252"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = (node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds) and ast.get_docstring(node))
    docstrings = {node.body[0].lineno for node in documented}
    remarks, texts = [], []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if odd(token.string):
            remark = token.type == tokenize.COMMENT or (token.type == tokenize.STRING and line in docstrings)
            (remarks if remark else texts).append((f"in text: {odd(token.string)}", line))
    return ([("in comments and docstrings", remarks[0][1])] if remarks else []) + texts


def import_guard(newest: bool = False) -> list[Finding]:
    """Checks every reference to ComfyUI's modules and every call of its functions against ComfyUI's source: the version
    this pack is developed with, or the `newest` of its repository, cloned for this."""
    checker = "comfy-import-guard" + (", newest ComfyUI" if newest else "")
    cache = FOLDER / ("newest" if newest else "fetched")
    arguments = ["--cache-dir", str(cache), "check", "--comfy-dir", str(INSTALL), "--json", "--quiet"]
    if not newest:
        _host_repository(cache / "ComfyUI")
        arguments += ["--offline", "--target", "HEAD"]
    report = json.loads(_run("comfy-import-guard", *arguments, accept=(0, 1)).stdout)
    (pack,) = report["packs"]
    if pack["vendored_comfy"] or not pack["references"]:
        raise SetupError(f"comfy-import-guard has not looked at anything: {pack}")
    findings = [Finding(checker, fault["file"], f"cannot be parsed: {fault['error']}") for fault in pack["unparseable"]]
    for group, text in (
        ("breaking", "not in ComfyUI"),
        ("soft", "guarded, and not in ComfyUI"),
        ("unresolvable", "cannot be told"),
        ("signature_drift", "replaced by what takes fewer arguments"),
    ):
        for fault in pack[group]:
            what = f"{text}: {fault['dotted']} {fault['detail'] or ''}"
            findings.append(Finding(checker, fault["file"], what, fault["line"]))
    return findings


def node_validate() -> list[Finding]:
    """The registry's checks when a pack is published: the fields of pyproject.toml, and the use of exec and similar."""
    checker = "comfy-cli node validate"
    result = _run("comfy", "--skip-prompt", "node", "validate", accept=(0, 1))
    findings = []
    for line in (result.stdout + result.stderr).splitlines():
        if line.startswith(("Warning:", "Error:")):
            findings.append(Finding(checker, "pyproject.toml", line))
        elif match := CONCISE.match(line):
            findings.append(Finding(checker, _inside(match["file"]), match["what"], int(match["line"])))
    passed = "All validation checks passed" in result.stdout + result.stderr
    if not findings and (result.returncode or not passed):
        raise SetupError(f"comfy node validate gave an unknown answer:\n{result.stdout}{result.stderr}")
    return findings


def workflow_validate() -> list[Finding]:
    """Checks every bundled workflow, in the editor's format and in API format, against a real server's nodes."""
    checker = "comfy-cli workflow validate"
    nodes = FOLDER / "object_info.json"
    with Server() as server, Client(server.url) as client:
        nodes.write_text(json.dumps(client.object_info()), encoding="utf-8")
    findings = []
    for file in sorted(WORKFLOWS.rglob("*.json")):
        arguments = ("--skip-prompt", "--json", "workflow", "validate", "--workflow", str(file), "--input", str(nodes))
        result = _run("comfy", *arguments, accept=(0, 1))
        answer = json.loads(result.stdout)
        data = answer.get("data") or {}
        problems = [*data.get("errors", ()), *data.get("warnings", ())]
        if not problems and not data.get("valid"):
            problems = [answer["error"]]
        for problem in problems:
            keys = [key for key in ("node_id", "field") if problem.get(key)]
            place = "".join(f"{key[:5].rstrip('_')} {problem[key]}: " for key in keys)
            findings.append(Finding(checker, _inside(file), place + problem["message"]))
    return findings


def _lint() -> list[Finding]:
    result = _run("comfy-test", "lint", str(COPY), "--strict", accept=(0, 1))
    findings, file = [], None
    for line in result.stdout.splitlines():
        match = LINTED.match(line)
        if match and match["file"]:
            file = match["file"].replace("\\", "/")
        elif match and file:
            findings.append(Finding("comfy-test lint", file, match["what"], int(match["line"])))
    if "[SYNTAX]" not in result.stdout or (result.returncode and not findings):
        raise SetupError(f"comfy-test lint gave an unknown answer:\n{result.stdout}{result.stderr}")
    return findings


def _host_repository(target: Path) -> None:
    """ComfyUI's source as a repository with one commit, in which comfy-import-guard looks up names."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for part in HOST_PARTS:
        for path in locate().glob(part):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, target / path.name)
    commit(target, "ComfyUI")


def _run(program: str, *arguments: str, accept: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess:
    """Runs a checker in the repository's root. Raises `SetupError` for exit
    codes that mean the checker itself failed."""
    home = FOLDER / "home"
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "DO_NOT_TRACK": "1",
        "COMFY_NO_TELEMETRY": "1",
        "COLUMNS": "1000",
        "NO_COLOR": "1",
        "PYTHONIOENCODING": "utf-8",
        "RUFF_OUTPUT_FORMAT": "concise",
        "RUFF_NO_CACHE": "true",
        "PATH": os.pathsep.join([str(PYTHON.parent), os.environ.get("PATH", "")]),
    }
    command = [shutil.which(program, path=variables["PATH"]) or program, *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, encoding="utf-8"
    )
    if result.returncode not in accept:
        raise SetupError(f"{' '.join(command)} failed ({result.returncode}):\n{result.stdout}{result.stderr}")
    return result


def _inside(path: str | Path) -> str:
    return Path(os.path.relpath(ROOT / path, ROOT)).as_posix()
