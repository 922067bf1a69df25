"""Throwaway copies of the pack: its files, and git repositories made from them.

Standard library and git only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ..environment import ROOT, SetupError

# For repositories made here: commits need a name, and the user's own settings (signing, hooks) must not apply.
IDENTITY = {f"GIT_{who}_{what}": "check" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
OWN = IDENTITY | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> str:
    """Runs git in `folder` with additional environment `variables`; returns its output. Raises `SetupError`."""
    if shutil.which("git") is None:
        raise SetupError("The checks need git, which is not installed.")
    command = ["git", "-C", str(folder), *arguments]
    environment = os.environ | (variables or {})
    result = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise SetupError(f"git {' '.join(arguments)} failed in {folder}: {result.stderr.strip()}")
    return result.stdout


def copy_pack(target: Path, published: bool = False) -> None:
    """Puts the pack's files into the new folder `target`: those that git tracks or would add; `published`: only those
    that the registry distributes, without the ones in `.comfyignore`. Raises `SetupError`."""
    shutil.rmtree(target, ignore_errors=True)
    names = _names("--exclude-standard")
    if published:
        names -= _names("--ignored", "--exclude-from=.comfyignore")
    for name in sorted(names):
        if (ROOT / name).is_file():  # deleted ones are listed too
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _names(*options: str) -> set[str]:
    return set(filter(None, git(ROOT, "ls-files", "--cached", "--others", *options, "-z").split("\0")))


def commit(folder: Path, message: str) -> None:
    """Commits all files of `folder`, after making it a repository if necessary."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch", "main", variables=OWN)
    git(folder, "add", "--all", variables=OWN)
    git(folder, "commit", "--quiet", "--message", message, variables=OWN)
