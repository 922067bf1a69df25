"""Runs the public checkers of ComfyUI packs and prints one table; docs/checks.md explains what is left standing.

Exit code 1: something was found that the page does not explain, or the page explains what is no longer found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from . import checkers
from .environment import SetupError, say
from .findings import Finding, explanations, judge
from .server import ServerError

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
    parser.add_argument("--all", action="store_true", help="show the explained findings, too")
    options = parser.parse_args()
    chosen = dict(CHECKERS)
    if options.newest:
        chosen["comfy-import-guard, newest ComfyUI"] = lambda: checkers.import_guard(newest=True)
    try:
        checkers.prepare()
        found = {}
        for name, run in chosen.items():
            say(f"{name} ...", end="")
            start = time.monotonic()
            found[name] = run()
            say(f" {time.monotonic() - start:.0f} s")
    except (SetupError, ServerError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    rows = explanations()
    unexplained, stale, table = judge(found, rows)
    say(f"\n{table}")
    if options.all:
        for row in rows:
            fitting = [one for ones in found.values() for one in ones if row.fits(one)]
            say(f"\n{len(fitting)} explained: {row.why}")
            say("\n".join(f"  {one}" for one in fitting))
    for one in unexplained:
        say(f"UNEXPLAINED  {one}")
    for row in stale:
        say(f"OUT OF DATE  docs/checks.md explains what was not found: {row.checker}, {row.where}, {row.what}")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
