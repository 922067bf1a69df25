"""The messages to and from a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from .graph import Graph

# How a task can end.
OK = "ok"
INPUT = "input"  # the workflow or its values are wrong: fails on every worker
MEMORY = "memory"  # the device is too small
SERVER = "server"  # ComfyUI died or stopped responding
WORKER = "worker"  # the worker could not do its part, for instance because of a full disk
CANCELLED = "cancelled"
LOST = "lost"  # the worker itself is gone; only the driver notices


@dataclass(frozen=True)
class Setup:
    """How a worker starts ComfyUI. `comfyui`, `models`: folders, or None for the worker's own choice; `packs`: names of
    other packs in ComfyUI's custom_nodes; `options`: for ComfyUI's `main.py`; `silence`: seconds without news after
    which a server counts as hung; `threads`: CPU threads, 0: torch's default."""

    comfyui: str | None = None
    models: str | None = None
    packs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    silence: float = 900.0
    threads: int = 0


@dataclass(frozen=True)
class Task:
    """A run of a workflow. `files`: the files needed in the server's base folder, by path in it: a URL, a list with a
    reference to bytes in Ray's store, or None if the worker already has it; `collect`: the nodes whose files to
    collect, by what these are; `texts`: the nodes whose text to collect; `tune`: the file in models/ei2_tunes to
    return; `models`: the model files that the graph names, whose fingerprints the record keeps; `scored`: whether
    scoring nodes were added, whose failure does not affect the edit."""

    name: str
    graph: Graph
    files: dict[str, object] = field(default_factory=dict)
    collect: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tune: str | None = None
    models: tuple[str, ...] = ()
    scored: bool = False


@dataclass
class Outcome:
    """`kind`: one of those above; `sentence`: what went wrong; `files`: what they are, extension, content; `texts` by
    what they are; `seconds`: of the run; `stages`: seconds by node title; `about`: the worker; `models`: fingerprints
    by file name; `tune`: the file's content; `steps`: tuning steps actually run."""

    kind: str
    sentence: str = ""
    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    about: dict[str, object] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    tune: bytes | None = None
    steps: int = 0
