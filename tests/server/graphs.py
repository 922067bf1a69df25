"""Workflows in ComfyUI's API format, built from names, and what a run of one shows."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from batch.client import Client, Event, ExecutionError, PromptError
from devtools.demo.results import decode
from devtools.demo.workflows import VIDEOS
from devtools.environment import ROOT
from miniature.clips import source_prompt, target_prompt

BUNDLED = ROOT / "workflows" / "api"
QUICKSTART = BUNDLED / "quickstart_full.json"
SOURCE_PROMPT, EDIT_PROMPT = source_prompt(), target_prompt("quickstart_full")
PROMPTS = {"source": "source", "target": "edit"}  # EI2 Attention Control's names for them, and these graphs'
NEWER = {"subject_mask": {"LoadBackgroundRemovalModel", "RemoveBackground"}}  # nodes that older hosts lack
# width and height of the bundled workflows' videos; the comparison is two pictures side by side, below their labels
VIDEO_SIZES = {name: (258, 148) if name == "comparison" else (128, 128) for name in VIDEOS}
LONG = ("EI2_OneShotTune", "EI2_Invert", "EI2_EditSample")  # the nodes that take long with real models
# inputs that newer hosts' "Context Windows (Manual)" requires, and older ones do not look at
NEWER_WINDOWS = dict(
    freenoise=False,
    cond_retain_index_list="",
    split_conds_to_windows=False,
    latent_retain_index_list="",
    causal_window_fix=True,
)

Graph = dict[str, dict]


def node(class_type: str, **inputs) -> dict:
    """One node. A link is written `(name, output)`."""
    return {"class_type": class_type, "inputs": {key: _link(value) for key, value in inputs.items()}}


def edit_graph(
    video: str = "short.mp4",
    size: int = 64,
    frames: int = 4,
    tune_steps: int = 4,
    invert_steps: int = 4,
    refine: int = 0,
    preset: str = "EI2",
    source_prompt: str = SOURCE_PROMPT,
    edit_prompt: str = EDIT_PROMPT,
    cfg: float = 7.5,
    learning_rate: float = 3e-4,
    cache: bool = False,
) -> Graph:
    """Load, encode, inflate, tune, invert, edit, decode, and save the edit's frames as PNG; small and quick. `cache`:
    of inversions, which tests that look at the inversion must do without."""
    clip = dict(fit="crop", start_frame=0, frame_stride=1, max_frames=frames)
    training = dict(steps=tune_steps, learning_rate=learning_rate, seed=0, precision="auto")
    return {
        "video": node("EI2_LoadVideo", video=video, width=size, height=size, **clip),
        "mini": node("EI2_LoadMini"),
        "source_prompt": node("CLIPTextEncode", clip=("mini", 1), text=source_prompt),
        "edit_prompt": node("CLIPTextEncode", clip=("mini", 1), text=edit_prompt),
        "negative": node("CLIPTextEncode", clip=("mini", 1), text=""),
        "encode": node("VAEEncode", pixels=("video", 0), vae=("mini", 2)),
        "inflate": node("EI2_InflateUNet", model=("mini", 0), preset=preset),
        "tune": node(
            "EI2_OneShotTune",
            model=("inflate", 0),
            latent=("encode", 0),
            positive=("source_prompt", 0),
            gradient_checkpointing="auto",
            **training,
        ),
        "invert": node(
            "EI2_Invert",
            model=("tune", 0),
            latent=("encode", 0),
            positive=("source_prompt", 0),
            steps=invert_steps,
            refine=refine,
            cache=cache,
        ),
        "edit": node(
            "EI2_EditSample",
            model=("tune", 0),
            inversion=("invert", 0),
            positive=("edit_prompt", 0),
            negative=("negative", 0),
            cfg=cfg,
        ),
        **save_frames("", ("edit", 0)),
    }


def save_frames(name: str, latent: tuple[str, int]) -> Graph:
    """Decodes a latent and saves its frames as PNG: nodes `decode<name>` and `save<name>`."""
    return {
        f"decode{name}": node("VAEDecode", samples=latent, vae=("mini", 2)),
        f"save{name}": node("SaveImage", images=(f"decode{name}", 0), filename_prefix=f"frames{name}"),
    }


def reconstruct(graph: Graph, name: str = "_reconstruction") -> Graph:
    """The graph, also sampling its inversion with the source prompt at cfg 1 and saving that as `save<name>`."""
    sampler = node(
        "EI2_EditSample",
        model=("tune", 0),
        inversion=("invert", 0),
        positive=("source_prompt", 0),
        negative=("negative", 0),
        cfg=1.0,
    )
    return {**graph, f"edit{name}": sampler, **save_frames(name, (f"edit{name}", 0))}


def controlled(graph: Graph, blend: tuple[str, str] = ("", ""), **choices) -> Graph:
    """The graph, its edit with attention control between its two prompts. `blend`: words of each for LocalBlend;
    `choices`: other inputs of EI2 Attention Control."""
    defaults = dict(
        mode="auto",
        cross_replace=0.2,
        self_replace=0.5,
        self_maps="temporal",
        reweight="",
        blend_threshold=0.3,
        blend_start=0.2,
        unconditional="decoupled",
    )
    prompts = {f"{name}_prompt": graph[f"{text}_prompt"]["inputs"]["text"] for name, text in PROMPTS.items()}
    control = node(
        "EI2_AttentionControl",
        clip=("mini", 1),
        **prompts,
        blend_source=blend[0],
        blend_target=blend[1],
        **{**defaults, **choices},
    )
    return {**changed(graph, {"edit.control": ("control", 0)}), "control": control}


def changed(graph: Graph, changes: dict[str, object]) -> Graph:
    """A copy with other inputs: `{"tune.steps": 3, "edit.model": ("mini", 0)}`."""
    copy = json.loads(json.dumps(graph))
    for place, value in changes.items():
        name, key = place.split(".")
        copy[name]["inputs"][key] = _link(value)
    return copy


def bundled(name: str = "quickstart_full", frames: int = 4, tune_steps: int = 10, invert_steps: int = 10) -> Graph:
    """A bundled workflow, shortened, whose inversion is computed whatever ran before."""
    graph = json.loads((BUNDLED / f"{name}.json").read_text(encoding="utf-8"))
    shorter = {
        "EI2_LoadVideo": ("max_frames", frames),
        "EI2_OneShotTune": ("steps", tune_steps),
        "EI2_Invert": ("steps", invert_steps),
    }
    for entry in graph.values():
        if entry["class_type"] in shorter:
            key, value = shorter[entry["class_type"]]
            entry["inputs"][key] = value
        if entry["class_type"] == "EI2_Invert":
            entry["inputs"]["cache"] = False
    return graph


def skip_if_older(workflow: str, lacking: set[str]) -> None:
    """Skips a test of the bundled workflow if what the host lacks is just what older hosts do. `lacking`: types of
    nodes."""
    if lacking and lacking == NEWER.get(workflow):
        pytest.skip(f"This ComfyUI is older than {', '.join(sorted(lacking))}.")


def names(graph: Graph, *class_types: str) -> list[str]:
    """The nodes of these types, of which there must be some."""
    matches = [name for name, entry in graph.items() if entry["class_type"] in class_types]
    assert matches, class_types
    return matches


def only(graph: Graph, class_type: str) -> str:
    """The one node of this type."""
    (name,) = names(graph, class_type)
    return name


@dataclass
class Run:
    """A finished run: its events and its outputs (node -> list of files)."""

    client: Client
    events: list[Event]
    outputs: dict

    def executed(self) -> set[str]:
        """Names of the nodes that really ran; the others' results came from the cache."""
        return {event.data["node"] for event in self.events if event.kind == "executing"} - {None}

    def files(self, name: str) -> list[bytes]:
        """What the node saved."""
        return [self.client.view(file) for file in self.outputs[name]["images"]]

    def shown(self) -> set[str]:
        """The nodes that show files. A run from the host's memory repeats these, but no other node's text."""
        return {node for node, output in self.outputs.items() if "images" in output}

    def pictures(self, name: str = "save"):
        """The frames a SaveImage node saved, `f 3 h w` in 0..1."""
        return decode(self.files(name))

    def progress(self, name: str) -> list[tuple[float, float]]:
        """The node's progress, (done, total), without repetitions."""
        return progress(self.events, name)


def run(client: Client, graph: Graph, timeout: float = 300) -> Run:
    """Runs a graph to its end. Raises what `Client.run` raises."""
    events: list[Event] = []
    outputs = client.run(graph, events.append, timeout)
    return Run(client, events, outputs)


def forget_results(client: Client) -> None:
    """Makes the server unload its models and forget all results.

    It does so after the run that it works at: a small one here, since a request alone may come while it is busy.
    """
    client.free()
    picture = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ("picture", 0)}}
    client.run({"picture": picture, "shown": shown})


@dataclass
class Failure:
    """A refused or failed run. `where`: `node_errors` (refused) or `execution_error`; `node`: the one blamed."""

    where: str
    node: str
    message: str
    kind: str
    events: list[Event]

    def progress(self, name: str) -> list[tuple[float, float]]:
        return progress(self.events, name)


def fail(client: Client, graph: Graph, timeout: float = 300) -> Failure | None:
    """Runs a graph that should fail; None if it does not."""
    events: list[Event] = []
    try:
        client.run(graph, events.append, timeout)
    except PromptError as error:
        blamed = {name: answer["errors"] for name, answer in error.node_errors.items() if answer["errors"]}
        texts = [f"{fault['message']} {fault['details']}" for faults in blamed.values() for fault in faults]
        return Failure("node_errors", ", ".join(blamed), " | ".join(texts), "", events)
    except ExecutionError as error:
        return Failure("execution_error", error.node, error.message, error.kind, events)
    return None


def same_pictures(a, b, exact: bool) -> bool:
    """Whether two clips are equal: to the last bit where the server computes exactly, else within a few grey levels."""
    return a.shape == b.shape and (a - b).abs().max().item() <= (0 if exact else 0.02)


def progress(events: list[Event], name: str) -> list[tuple[float, float]]:
    """A node's progress (done, total) in these events, without repetitions."""
    seen = [event.progress()[name] for event in events if name in event.progress()]
    return [state for i, state in enumerate(seen) if i == 0 or state != seen[i - 1]]


def _link(value):
    return list(value) if isinstance(value, tuple) else value
