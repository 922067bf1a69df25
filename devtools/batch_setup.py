"""What the batch run needs in the virtual environment: Ray, in an exact version. Standard library only: it runs before
anything is installed."""

from __future__ import annotations

from pathlib import Path

from .environment import ROOT, VENV, SetupError, pip, say

REQUIREMENTS = ROOT / "devtools" / "requirements-batch.txt"
TESTS = ROOT / "tests" / "batch"


def wanted(arguments: list[str]) -> bool:
    """Whether pytest, given these `arguments`, collects tests of the batch run."""
    paths = [Path(argument.split("::")[0]).resolve() for argument in arguments if not argument.startswith("-")]
    paths = [path for path in paths if path.exists()]
    return not paths or any(TESTS in (path, *path.parents) or path in TESTS.parents for path in paths)


def prepare() -> None:
    """Installs Ray unless it is there: none of its packages is among those of ComfyUI. Raises `SetupError`."""
    stamp, content = VENV / "batch.txt", REQUIREMENTS.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != content:
        pip("Installing Ray for the batch run", "install", "--no-deps", "--requirement", str(REQUIREMENTS))
        stamp.write_text(content, encoding="utf-8")


def prepare_for_tests() -> None:
    """The same. Never raises: says what is lacking, and the tests that need it are skipped."""
    try:
        prepare()
    except SetupError as error:
        say(f"{error}\n  The tests of the batch run that need Ray will be skipped.")
