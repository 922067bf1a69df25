#!/usr/bin/env python3
"""The project's only command. It sets up everything it needs on the first call (in `.dev`, a few minutes)."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit(
        "Developing this project needs Python 3.11 or newer (3.11 is what it is tested with), and this is %d.%d: "
        "start dev.py with a newer one, for example `python3.11 dev.py`." % sys.version_info[:2]
    )

from devtools import browser_setup, environment, host

PARTS = ("vae", "unet", "judge", "sprites", "export", "evaluate")
TRAINING = {part: f"train_{part}" if part in ("vae", "unet", "judge") else part for part in PARTS}
CHECKS = {"public": "devtools.checks.public", "manager": "devtools.checks.manager"}
BENCHMARKS = {
    "batch": "benchmarks.batch.run",
    "clean-end": "benchmarks.clean_end",
    "edit": "benchmarks.editbench.run",
    "first-edit": "benchmarks.first_edit",
    "key-frame": "benchmarks.key_frame",
    "long": "benchmarks.longclips.run",
    "mask": "benchmarks.mask",
    "memory": "benchmarks.memory",
    "null-text": "benchmarks.null_text",
    "recipes": "benchmarks.recipes",
    "speed": "benchmarks.speed.run",
}


def arguments() -> "tuple[argparse.Namespace, list[str]]":
    note = (
        "Environment variables. COMFYUI_PATH: the folder of a ComfyUI to use instead of fetching one. "
        'COMFYUI_FRONT_END: "newest", a version or a folder of the front end to show instead of ComfyUI\'s own.'
    )
    parser = argparse.ArgumentParser(description=__doc__, epilog=note)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = lambda name, text, **options: commands.add_parser(name, help=text, description=text, **options)
    demo = add("demo", "edit the bundled clip on a real ComfyUI server and measure the result")
    demo.add_argument("--output", default="demo-output", help="folder for the results (default: demo-output)")
    demo.add_argument(
        "--workflow",
        nargs="+",
        default=["quickstart_full"],
        metavar="NAME",
        help="files of workflows/api, run one after another (default: quickstart_full)",
    )
    add("batch", "edit many clips by a table; all arguments: batch --help, docs/batch.md", add_help=False)
    jobs = add("jobs", "render six clips and a table of three edits each, for `batch` to try")
    jobs.add_argument("folder", nargs="?", default="batch-demo", help="default: batch-demo")
    add("test", "run the tests; all other arguments go to pytest", usage="%(prog)s [pytest's arguments]")
    serve = add("serve", "start ComfyUI with this pack, to open in a browser; Ctrl-C stops it")
    serve.add_argument("--port", type=int, default=8188)
    check = add("check", "run the public checkers on the pack, or its life cycle with ComfyUI-Manager")
    check.add_argument("what", nargs="?", choices=CHECKS, default="public", help="default: public")
    train = add("train", "train or evaluate the miniature model; a script's own options: train PART -- --help")
    train.add_argument("part", choices=TRAINING)
    bench = add("bench", "run a benchmark; a benchmark's own options: bench WHAT -- --help")
    bench.add_argument("what", choices=BENCHMARKS)
    options, rest = parser.parse_known_args()
    if rest and options.command not in ("batch", "test", "check", "train", "bench"):
        parser.error("unknown argument " + rest[0])
    return options, rest


def command_line(options: argparse.Namespace, rest: "list[str]") -> "list[str]":
    """The command to run in the virtual environment."""
    if options.command == "test":
        return ["-m", "pytest", *rest]
    if options.command == "batch":
        return [str(environment.ROOT / "batch"), *rest]
    if options.command == "jobs":
        return ["-m", "miniature.jobs", os.path.abspath(options.folder)]
    if options.command == "check":
        return ["-m", CHECKS[options.what], *rest]
    if options.command == "train":
        return ["-m", "miniature." + TRAINING[options.part], *rest]
    if options.command == "bench":
        return ["-m", BENCHMARKS[options.what], *rest]
    if options.command == "serve":
        return ["-m", "devtools.serve", "--port", str(options.port)]
    output = os.path.abspath(options.output)
    return ["-m", "devtools.demo", "--output", output, "--workflow", *options.workflow]


def set_up(options: argparse.Namespace, rest: "list[str]") -> Path:
    """Installs what the command needs; returns ComfyUI's folder. Raises `SetupError`."""
    own = host.own()
    environment.prepare(own and own / "requirements.txt")
    folder = own or host.fetch()
    add_ray = lambda: environment.add("batch", "Installing Ray for the batch run")
    if options.command == "batch" or options.command == "bench" and options.what == "batch":
        add_ray()
    if options.command == "test" and collects(rest, "browser"):
        attempt(browser_setup.prepare, "The browser tests will be skipped.")
    if options.command == "test" and collects(rest, "batch"):
        attempt(add_ray, "The tests of the batch run that need Ray will be skipped.")
    if options.command == "train" and options.part == "sprites":
        environment.add("world", "Installing OpenMoji's pictures")
    return folder


def collects(rest: "list[str]", folder: str) -> bool:
    """Whether pytest, with these arguments, collects tests from that folder of tests/."""
    tests = environment.ROOT / "tests" / folder
    given = [
        argument.split("::")[0]
        for option, argument in zip(["", *rest], rest)
        if not argument.startswith("-") and option not in ("--ignore", "--deselect")
    ]
    paths = [path for path in ((environment.ROOT / name).resolve() for name in given) if path.exists()]
    return not paths or any(tests in (path, *path.parents) or path in tests.parents for path in paths)


def attempt(install: "Callable[[], None]", otherwise: str) -> None:
    """Installs what only some tests need; if that fails, prints the reason and the consequence."""
    try:
        install()
    except environment.SetupError as error:
        environment.say(f"{error}\n  {otherwise}")


def main() -> int:
    options, rest = arguments()
    try:
        with environment.alone():
            folder = set_up(options, rest)
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command continues.")
        return 130
    variables = dict(os.environ, COMFYUI_PATH=str(folder))
    if options.command == "train":
        variables["PYTHONPATH"] = os.pathsep.join([str(environment.ROOT), str(folder)])
    command = [str(environment.PYTHON), *command_line(options, rest)]
    if options.command != "batch":  # its paths are relative to the user's current folder
        os.chdir(environment.ROOT)
    if os.name == "posix":
        os.execve(command[0], command, variables)  # replaces this process, so signals and exit code need no forwarding
    try:
        return subprocess.call(command, env=variables)
    except KeyboardInterrupt:  # the command has got it, too
        return 130


if __name__ == "__main__":
    sys.exit(main())
