"""Sets up the browser tests: Playwright in the virtual environment, and a Chromium with a Chinese font.

Playwright comes from the package index. Its own browsers are not used: they come from elsewhere, and most machines have
a Chromium or Chrome. If there is none, an automatic run (the environment variable CI is set) installs Debian's; on a
user's machine nothing is installed into the system. `dev.py test` prints what is missing, and the browser tests are
then skipped. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time

from .environment import DEV, SetupError, add, say

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_PACKAGE = "chromium"  # Debian's, as those of the fonts
# By family. Layouts are measured with Liberation Sans, as wide as Arial, which pages name; the other has all Chinese
# characters.
FONT_PACKAGES = {"Liberation Sans": "fonts-liberation", "WenQuanYi Micro Hei": "fonts-wqy-microhei"}
LOG = DEV / "apt.log"
APT_SECONDS = 600
APT_SETTINGS = ("Acquire::Retries=2", "Acquire::http::Timeout=30", "DPkg::Lock::Timeout=120")


def program() -> str | None:
    """The browser's path, or None; the environment variable CHROMIUM overrides it."""
    return next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *PROGRAMS))), None)


def missing() -> str | None:
    """What this interpreter lacks for the browser tests, and what to do; None if nothing is missing."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: pip install --no-deps -r devtools/requirements-browser.txt"
    if program() is None:
        return (
            "There is no Chromium or Chrome: install one (Debian: apt-get install chromium), or name it in the "
            "environment variable CHROMIUM"
        )
    return None


def prepare() -> None:
    """Installs what can be installed. Raises `SetupError` if something is still missing."""
    add("browser", "Installing Playwright for the browser tests")
    packages = [package for family, package in FONT_PACKAGES.items() if not _has_font(family)]
    if program() is None:
        packages.insert(0, BROWSER_PACKAGE)
    if packages:
        _install(packages)


def _has_font(family: str) -> bool:
    """Also where nothing can be asked, as on Windows."""
    if shutil.which("fc-list") is None:
        return program() is not None
    return bool(subprocess.run(["fc-list", family], capture_output=True, text=True).stdout)


def _install(packages: list[str]) -> None:
    """Installs Debian's packages in an automatic run; otherwise says how. Raises `SetupError` without a browser."""
    try:
        _install_as(_right_to_install(f"apt-get install {' '.join(packages)}"), packages)
    except SetupError as error:
        if program() is None:
            raise
        say(f"{error}\n  The tests of layouts may fail without these fonts.")


def _install_as(become: list[str], packages: list[str]) -> None:
    """`become`: the words to put before apt-get. Raises `SetupError`."""
    say(f"  Installing {' and '.join(packages)} with apt-get, because CI is set ...", end="")
    start = time.monotonic()
    apt = [*become, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    for setting in APT_SETTINGS:
        apt += ["-o", setting]
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", *packages]):
        _run(command)
    if program() is None:
        say(" failed")
        raise SetupError(f"  apt-get has installed no program called {' or '.join(PROGRAMS)}.")
    say(f" {time.monotonic() - start:.0f} s")


def _right_to_install(how: str) -> list[str]:
    """The words to put before apt-get. Raises `SetupError` if nothing may be installed here."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        raise SetupError(f"  Something is missing for the browser tests. On Debian: {how}")
    if shutil.which("apt-get") is None:
        raise SetupError("  Something is missing for the browser tests, and there is no apt-get to install it with.")
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if become and (shutil.which("sudo") is None or subprocess.run([*become, "true"], capture_output=True).returncode):
        raise SetupError(f"  Something is missing for the browser tests, and there is no right to do: {how}")
    return become


def _run(command: list[str]) -> None:
    """Runs apt-get with its output in a file; raises `SetupError` with the end of the output."""
    try:
        with open(LOG, "w", encoding="utf-8") as log:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=APT_SECONDS
            )
    except subprocess.TimeoutExpired:
        say(" failed")
        raise SetupError(f"  apt-get has not ended within {APT_SECONDS} s; its output: {LOG}") from None
    if result.returncode:
        say(" failed")
        lines = LOG.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-4:]
        raise SetupError("\n".join(f"    {line}" for line in lines) + f"\n  apt-get failed; its full output: {LOG}")
