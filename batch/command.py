"""The command: `python batch jobs.csv --workflow workflow.json --out results`."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

from . import cluster, plan
from .errors import BatchError
from .graph import Graph, read_graph, title
from .host import PACK_ROOT, locate, user_path
from .page import summary, write_page
from .progress import Progress
from .results import Results
from .schema import check_classes
from .sources import is_url, read
from .store import WORK, LocalStore, open_store
from .table import Table, read_table, show_problems
from .tasks import Setup
from .unit import Home, make_units

PAGE_SECONDS = 30.0  # between two updates of the page during the run


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="batch",
        description="Edits many clips with one workflow, on one machine or on several.",
        epilog="The table is a CSV file whose first line names its columns: clip, source_prompt, edit_prompt, and any "
        "input of the workflow: its name where only one node has it, otherwise 'Title.input' or 'id.input'. "
        "Run it again to continue where it stopped. More: docs/batch.md.",
    )
    add = parser.add_argument
    add("table", help="the table, a path or a URL")
    add("--workflow", required=True, help="a workflow in API format, a path or a URL")
    add("--out", required=True, help="folder for the results, a path or a URL that fsspec writes to")
    add("--address", help="of a Ray cluster, ray://HEAD:10001 or HEAD:6379; without it Ray is started on this machine")
    add("--workers", type=int, help="how many (default: one per GPU; without GPUs one per four CPU cores)")
    add("--cpus-per-worker", type=int, help="CPU cores of each worker")
    add("--comfyui", help="ComfyUI's folder (default: COMFYUI_PATH, or the one this pack is installed in)")
    add("--models", help="folder of models (default: ComfyUI's own)")
    add("--packs", nargs="+", default=[], metavar="NAME", help="further packs of ComfyUI's custom_nodes to load")
    add(
        "--comfyui-options",
        type=_words,
        default=(),
        metavar="TEXT",
        help="for ComfyUI's main.py, in one text after an equals sign: --comfyui-options='--fast --reserve-vram 2'",
    )
    add("--snapshot-every", type=int, default=50, metavar="STEPS", help="of tuning (default: 50; 0: never)")
    add("--snapshot-seconds", type=float, default=60, metavar="S", help="the least time between two that are kept")
    add("--silence", type=float, default=900, metavar="S", help="without news, after which a server counts as hung")
    add("--patience", type=float, default=600, metavar="S", help="without any worker, after which the run ends")
    add("--keep-tunes", action="store_true", help="of finished clips, for further edits")
    add("--no-scores", dest="scores", action="store_false", help="neither EI2 Metrics nor the reconstruction's PSNR")
    add("--dashboard", action="store_true", help="start Ray's dashboard, too (needs pip install 'ray[default]')")
    add(
        "--check",
        action="store_true",
        help="check the table and the workflow as far as possible without ComfyUI; run nothing",
    )
    options = parser.parse_args(given)
    for name in ("workers", "cpus_per_worker"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}: it must be 1 or more")
    if options.snapshot_every < 0:
        parser.error("--snapshot-every is negative: 0 means never")
    return options


def _words(text: str) -> tuple[str, ...]:
    """The words of a command line; quotes keep spaces. A backslash is itself, because Windows has it in paths."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return tuple(lexer)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a quotation mark is missing in {text}") from None


def main(given: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end the run
    options = arguments(given)
    try:
        return run(options)
    except BatchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 all finished, 1 something failed, 130 stopped by Ctrl-C.
    Raises `BatchError` if nothing could start."""
    workflow = _read(options.workflow)
    graph = read_graph(workflow, options.workflow)
    _check_workflow(graph)
    table = read_table(options.table, graph, _comfyui(options), options.scores)
    _raise_problems(table, options.table)
    if options.check:
        print(f"{len(table.rows)} edits of {len({row.clip.digest for row in table.rows})} clips: nothing wrong so far.")
        return 0
    cluster.prepare(not options.address, options.address or "")
    if not options.address:
        locate(options.comfyui)
    store = open_store(options.out)
    about = {
        "workflow": {"file": options.workflow, "sha256": hashlib.sha256(workflow.encode()).hexdigest()},
        "pack": pack_version(),
    }
    results = Results(store, table.rows, about)
    home = Home(results)
    before = len(results.records)
    units = make_units(table.rows, results, home, options)
    if not units:
        print(f"All {len(table.rows)} edits are finished.")
        return _end(results)
    clips = len({row.clip.digest for row in table.rows})
    print(f"{len(table.rows)} edits of {clips} clips, {before} edits finished before. Starting ComfyUI ...", flush=True)
    return _work(options, graph, table, results, units, before)


def _work(options, graph: Graph, table: Table, results: Results, units: list, before: int) -> int:
    import ray

    from .schedule import Schedule

    setup = make_setup(options)
    log = results.store.root / WORK / "log.jsonl" if isinstance(results.store, LocalStore) else None
    try:
        found = cluster.connect(options, setup, len(units))
        if found.dashboard:
            print(f"Ray's dashboard: {found.dashboard}")
        progress = Progress(len(table.rows), before, log)
        written = time.monotonic()

        def listen(event: str, **about) -> None:
            nonlocal written
            progress(event, **about)
            if results.changed and time.monotonic() - written > PAGE_SECONDS:
                _write_page(results)
                written = time.monotonic()

        schedule = Schedule(found.workers, units, listen, options.patience, options.snapshot_seconds)
        interrupted = _stop_on_interrupt(schedule, progress)
        try:
            schedule.ready()
            first = next(slot for slot in schedule.slots if slot.state == "idle")
            info = ray.get(first.actor.object_info.remote())
            _check_schema(graph, table, info, options.table)
            schedule.run()
        except RuntimeError as error:
            if interrupted:
                raise KeyboardInterrupt from error
            raise BatchError(str(error)) from error
        finally:
            progress.close()
            _stop_workers(schedule)
    finally:
        ray.shutdown()
    code = _end(results)
    if schedule.stopped:
        print(f"Stopped: {schedule.stopped}. Run the same command again to continue.", file=sys.stderr)
        return 130 if interrupted else 1
    return code


def make_setup(options: argparse.Namespace) -> Setup:
    """How the workers start ComfyUI. Raises `BatchError` if it is not found on this machine and there is no cluster."""
    comfyui, models = options.comfyui, options.models
    if not options.address:  # the workers have another current folder; with a cluster, the paths are its machines'
        comfyui, models = str(locate(comfyui)), models and str(user_path(models))
    return Setup(comfyui, models, tuple(options.packs), options.comfyui_options, options.silence)


def _end(results: Results) -> int:
    """Writes the page, prints a summary, and lists the failures."""
    _write_page(results)
    print(summary(results))
    entries = [entry for entry in results.entries() if entry["status"] == "failed"]
    for entry in entries:
        print(f"  line {entry['line']}, {entry['clip']}: {entry['why'].splitlines()[0]}", file=sys.stderr)
    print(f"See {results.store.address}/index.html")
    return 1 if entries else 0


def _write_page(results: Results) -> None:
    results.changed = False
    try:
        write_page(results)
    except OSError as error:
        print(f"The page cannot be written: {error}", file=sys.stderr)


def _stop_on_interrupt(schedule, progress: Progress) -> list:
    """Ctrl-C cancels at the next step; a second one ends at once. Returns a list
    that is no longer empty after the first."""
    pressed: list[float] = []

    def handle(number, frame) -> None:
        pressed.append(time.monotonic())
        if len(pressed) > 1:
            raise KeyboardInterrupt
        progress.say("Stopping at the next step; press Ctrl-C again to end at once.")
        schedule.stop("Ctrl-C")

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return pressed


def _stop_workers(schedule, seconds: float = 20) -> None:
    """Lets the servers end by themselves and deletes their folders; the remaining ones end with Ray."""
    import ray

    references = [slot.actor.stop.remote() for slot in schedule.slots if slot.state in ("idle", "busy")]
    if references:
        ray.wait(references, num_returns=len(references), timeout=seconds)


def _comfyui(options: argparse.Namespace) -> Path | None:
    """ComfyUI's folder on this machine, which need not have one if there is a cluster, or for `--check`. Raises
    `BatchError` if the folder given for this machine is none."""
    try:
        return locate(options.comfyui)
    except BatchError:
        if options.comfyui and not options.address:
            raise
        return None


def _check_workflow(graph: Graph) -> None:
    if not plan.savers(graph):
        raise BatchError(
            "No node of the workflow saves an edit: connect a Save Video to the frames of EI2 Edit Sample, and "
            "export the workflow again."
        )


def _check_schema(graph: Graph, table: Table, info: dict, name: str) -> None:
    """Raises `BatchError`."""
    unknown = check_classes(graph, info)
    if unknown:
        where = ", ".join(title(graph, node) for node in graph if graph[node]["class_type"] in unknown)
        raise BatchError(
            f"ComfyUI has no nodes {', '.join(unknown)} (in the workflow: {where}): name the packs they come "
            "from with --packs."
        )
    table.check(info)
    _raise_problems(table, name)


def _raise_problems(table: Table, name: str) -> None:
    if table.problems:
        raise BatchError(f"Nothing was started. Problems in {name}:\n{show_problems(table.problems)}")


def pack_version() -> str:
    """The pack's own."""
    text = (PACK_ROOT / "ei2" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^VERSION = "(.+?)"', text, re.MULTILINE)
    return match.group(1) if match else ""


def _read(address: str) -> str:
    try:
        return read(address if is_url(address) else os.path.expanduser(address)).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError(f"{address} cannot be read: {error}.") from error
