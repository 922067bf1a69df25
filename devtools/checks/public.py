"""Runs the public checkers of ComfyUI packs and prints one table; docs/checks.md explains what remains.

Exit code 1: there is a finding that the page does not explain, or the page explains one that no longer exists.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from ..environment import SetupError, say
from ..server import ServerError
from . import checkers
from .findings import Finding, explanations, judge

CHECKERS: dict[str, Callable[[], list[Finding]]] = {
    "ruff": checkers.ruff,
    "comfy-test lint": checkers.comfy_test_lint,
    "comfy-import-guard": checkers.import_guard,
    "comfy-cli node validate": checkers.node_validate,
    "comfy-cli workflow validate": checkers.workflow_validate,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--newest", action="store_true", help="also against the newest ComfyUI, cloned from GitHub for this"
    )
    parser.add_argument("--all", action="store_true", help="show the explained findings too")
    options = parser.parse_args()
    runs = dict(CHECKERS)
    if options.newest:
        runs["comfy-import-guard, newest ComfyUI"] = lambda: checkers.import_guard(newest=True)
    try:
        checkers.prepare()
        findings = {}
        for name, run in runs.items():
            say(f"{name} ...", end="")
            start = time.monotonic()
            findings[name] = run()
            say(f" {time.monotonic() - start:.0f} s")
    except (SetupError, ServerError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    rows = explanations()
    unexplained, stale, table = judge(findings, rows)
    say(f"\n{table}")
    if options.all:
        for row in rows:
            fitting = [finding for group in findings.values() for finding in group if row.fits(finding)]
            say(f"\n{len(fitting)} explained: {row.why}")
            say("\n".join(f"  {finding}" for finding in fitting))
    for finding in unexplained:
        say(f"UNEXPLAINED  {finding}")
    for row in stale:
        say(f"OUT OF DATE  docs/checks.md explains what was not found: {row.checker}, {row.where}, {row.what}")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
