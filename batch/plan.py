"""Splits an edit's workflow into two runs: one that tunes and saves the tune as a file, and one that edits with that
file, saves the edit, and scores it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .binding import CARRY, CONTROL, INVERT, SAMPLE, TUNE, clip_place, is_source, source_text
from .graph import Graph, ancestors, copy, descendants, is_link, key_of, new_node, of_class, only, relink

OWN = "batch_"  # prefix of the ids of added nodes
TUNE_FILE = "batch-{}.safetensors"  # in models/ei2_tunes
METRICS, CHECK = "EI2_Metrics", "EI2_ReconstructionCheck"
WINDOWS, HOSTS_WINDOWS = "EI2_ContextWindows", "ContextWindowsManual"
NOT_RESULTS = (METRICS, CHECK, "EI2_SaveTune", "EI2_InversionCache")
HOW_ONLY = ("snapshot_every", "resume_from", "preview_every")  # do not change the result of tuning
SHORTEST_WINDOW = 4  # frames
SOURCE, EDIT, SCORES, RECONSTRUCTION = "source", "edit", "scores", "reconstruction"


@dataclass(frozen=True)
class EditRun:
    """`graph`: what to run; `collect`: the nodes whose files to collect, by what these are; `texts`: the nodes whose
    text to collect; `scored`: whether scoring nodes were added, whose failure does not affect the edit."""

    graph: Graph
    collect: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    scored: bool = False


def tunes(graph: Graph) -> list[str]:
    """The tuning nodes that an edit needs, each after those it depends on."""
    needed = ancestors(graph, savers(graph))
    nodes = [node for node in of_class(graph, TUNE) if node in needed]
    return sorted(nodes, key=lambda node: len(ancestors(graph, [node])))


def tune_key(graph: Graph, node: str) -> str:
    """A key for what a node learns: the same for the same clip, prompt, model and settings."""
    return key_of(only(graph, [node]), HOW_ONLY)


def inversion_key(graph: Graph) -> str:
    """A key for everything a reconstruction depends on."""
    return key_of(only(graph, of_class(graph, INVERT)), HOW_ONLY)


def edits(graph: Graph) -> list[str]:
    """The nodes that sample an edit."""
    samplers = of_class(graph, SAMPLE)
    return [node for node in samplers if not is_source(graph, node)] or samplers


def savers(graph: Graph) -> list[str]:
    """The nodes at the end of the workflow that save an edit's results; the edit itself comes first."""
    behind = descendants(graph, [(node, 0) for node in edits(graph)])
    needed = {value[0] for entry in graph.values() for value in entry["inputs"].values() if is_link(value)}
    ends = [node for node in graph if node in behind and node not in needed]
    found = [node for node in ends if "Preview" not in graph[node]["class_type"] and node not in _notes(graph)]
    found = [node for node in found if graph[node]["class_type"] not in NOT_RESULTS]
    return sorted(found, key=lambda node: (_is_compared(graph, node), "Video" not in graph[node]["class_type"]))


def tune_run(
    graph: Graph, node: str, done: dict[str, str], key: str, snapshot_every: int, resume_from: str | None
) -> Graph:
    """Tunes with one node and saves the tune as a file of that `key`. `done`: the keys of available tunes, by node."""
    graph = with_tunes(graph, done)
    inputs, prompt = graph[node]["inputs"], source_text(graph)
    inputs["preview_every"] = 0
    if not is_link(inputs.get("snapshot_every", 0)) and not inputs.get("snapshot_every"):
        inputs["snapshot_every"] = snapshot_every
    inputs["resume_from"] = resume_from or "none"
    saver, name = OWN + "save_tune", TUNE_FILE.format(key).removesuffix(".safetensors")
    graph[saver] = new_node("EI2_SaveTune", tune=(node, 1), filename_prefix=name, prompt=prompt)
    return only(graph, [saver])


def with_tunes(graph: Graph, done: dict[str, str]) -> Graph:
    """The workflow with tuning replaced by tune files. `done`: the keys of the tunes, by node."""
    graph = copy(graph)
    for node, key in done.items():
        file, model = f"{OWN}tune_{node}", graph[node]["inputs"]["model"]
        for shown in descendants(graph, [(node, 2)]):  # the plot of the loss, which a tune file does not have
            del graph[shown]
        relink(graph, (node, 1), (file, 0))
        graph[file] = new_node("EI2_LoadTune", tune_name=TUNE_FILE.format(key))
        graph[node] = new_node(
            "EI2_ApplyTune", model=tuple(model), tune=(file, 0), temporal_strength=1.0, query_strength=1.0
        ) | {"_meta": graph[node].get("_meta", {})}
    return graph


def edit_run(graph: Graph, done: dict[str, str], name: str, first: bool, scores: bool) -> EditRun:
    """The run of an edit. `done`: the keys of the tunes, by node; `name`: prefix of its files' names; `first`: whether
    to save the source and measure the reconstruction too; `scores`: whether to measure anything."""
    ends = savers(graph)
    graph = with_tunes(graph, done)
    ends = [node for node in ends if node in graph]
    collect = {}
    picture = _pictures(graph, ends[0]) if ends else None
    if ends and _is_compared(graph, ends[0]):  # a comparison does not have the clip's size
        decoder = _decoder(graph, edits(graph)[0]) if edits(graph) else None
        picture = (decoder, 0) if decoder else None
    loader = clip_place(graph).node
    ours = graph[loader]["class_type"] == "EI2_LoadVideo"
    videos = [node for node in ends if _is_video(graph, node)]
    for number, node in enumerate(ends):
        collect[node] = EDIT if number == 0 and videos else f"{number}"
    if not videos and picture and ours:  # only pictures: add a video for viewing
        collect = {_save_video(graph, EDIT, picture, loader): EDIT, **collect}
    if first and ours:
        collect[_save_video(graph, SOURCE, (loader, 0), loader)] = SOURCE
    for node in collect:
        if "filename_prefix" in graph[node]["inputs"]:
            graph[node]["inputs"]["filename_prefix"] = f"{name}/{node}"
    texts, added = {}, False
    if scores:
        own = [node for node in of_class(graph, METRICS) if graph[node]["inputs"].get("edit") == list(picture or ())]
        if not own and picture and ours:
            graph[OWN + SCORES] = new_node(METRICS, source=(loader, 0), edit=picture)
            own, added = [OWN + SCORES], True
        texts |= dict.fromkeys(own[:1], SCORES)
        if first and ours:
            node = _check(graph, loader)
            texts |= {node: RECONSTRUCTION} if node else {}
            added |= node is not None
    return EditRun(only(graph, [*collect, *texts]), collect, texts, added)


def in_windows(graph: Graph, frames: int) -> tuple[Graph, int] | None:
    """For a device that is too small: the workflow with windows of half the previous number of frames, and the window's
    length. None if it needs the whole clip, or windows would be too short."""
    graph = copy(graph)
    null_text = any(graph[node]["inputs"].get("null_text") for node in of_class(graph, INVERT))
    if null_text or of_class(graph, CONTROL):
        return None
    existing = of_class(graph, WINDOWS, HOSTS_WINDOWS)
    seen = [graph[node]["inputs"].get("context_length") for node in existing]
    seen += [graph[node]["inputs"].get("window_frames") or 0 for node in of_class(graph, TUNE)]
    now = min([value for value in seen if isinstance(value, int) and value], default=frames)
    length = min(now, frames) // 2
    if length < SHORTEST_WINDOW:
        return None
    overlap = max(1, length // 4)
    for node in existing:
        graph[node]["inputs"] |= {"context_length": length, "context_overlap": overlap}
    for node in of_class(graph, TUNE):
        graph[node]["inputs"]["window_frames"] = length
        if existing:
            continue
        window = f"{OWN}windows_{node}"
        relink(graph, (node, 0), (window, 0), of_class(graph, INVERT, SAMPLE, CARRY))
        inputs = {"model": [node, 0], "context_length": length, "context_overlap": overlap}
        graph[window] = {"class_type": WINDOWS, "inputs": inputs}
    return graph, length


def models(graph: Graph) -> list[str]:
    """Names of model files that the workflow reads."""
    names = {
        value
        for entry in graph.values()
        for value in entry["inputs"].values()
        if isinstance(value, str) and value.lower().endswith((".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf"))
    }
    return sorted(name for name in names if not name.startswith(TUNE_FILE.split("{")[0]))


def cost(graph: Graph, frames: int | None, size: int, rows: int) -> float:
    """The estimated time for a clip, in arbitrary units: only the order matters."""
    place = clip_place(graph)
    inputs = graph[place.node]["inputs"]
    number = lambda value, default: value if isinstance(value, (int, float)) else default
    if frames is None:
        frames = 1 + size / 100_000  # at a URL: by the file's size
    start, stride = number(inputs.get("start_frame"), 0), max(1, number(inputs.get("frame_stride"), 1))
    frames = max(1, (frames - start) / stride)
    most = number(inputs.get("max_frames"), 0)
    frames = min(frames, most) if most else frames
    steps = lambda *classes: sum(number(graph[n]["inputs"].get("steps"), 300) or 300 for n in of_class(graph, *classes))
    return frames * (3 * steps(TUNE) + steps(INVERT) * (1 + 2 * rows))


def _check(graph: Graph, loader: str) -> str | None:
    """A node that measures the reconstruction: the workflow's own, or an added one; None if there can be none."""
    own = of_class(graph, CHECK)
    if own:
        return own[0]
    sampler = edits(graph)[0] if edits(graph) else None
    decoder = sampler and _decoder(graph, sampler)
    if decoder is None:
        return None
    inputs = graph[sampler]["inputs"]
    again = next(
        (
            node
            for node in of_class(graph, SAMPLE)
            if node != sampler
            and is_source(graph, node)
            and graph[node]["inputs"].get("inversion") == inputs.get("inversion")
        ),
        None,
    )
    if again is not None:
        output = (again, 0)
    elif "control" in inputs:
        output = (sampler, 1)
    else:
        inversion = graph[inputs["inversion"][0]]["inputs"]
        positive = inversion.get("null_source") or inversion.get("positive")
        if not is_link(positive):
            return None
        cfg = inversion.get("null_cfg", 7.5) if inversion.get("null_text") else 1.0
        graph[OWN + "again"] = {
            "class_type": SAMPLE,
            "inputs": {
                "model": inputs["model"],
                "inversion": inputs["inversion"],
                "positive": positive,
                "negative": inputs["negative"],
                "cfg": cfg,
            },
        }
        output = (OWN + "again", 0)
    graph[OWN + "decode"] = {
        "class_type": graph[decoder]["class_type"],
        "inputs": {**graph[decoder]["inputs"], "samples": list(output)},
    }
    graph[OWN + RECONSTRUCTION] = new_node(CHECK, source=(loader, 0), reconstruction=(OWN + "decode", 0))
    return OWN + RECONSTRUCTION


def _decoder(graph: Graph, sampler: str) -> str | None:
    """The node that decodes a node's samples, carried or not."""
    kinds = [node for node in graph if "VAEDecode" in graph[node]["class_type"]]
    samples = [[node, 0] for node in of_class(graph, CARRY) if graph[node]["inputs"].get("latent") == [sampler, 0]]
    samples.append([sampler, 0])
    return next((node for node in kinds if graph[node]["inputs"].get("samples") in samples), None)


def _save_video(graph: Graph, name: str, picture: tuple[str, int], loader: str) -> str:
    """Adds the two nodes that turn pictures into a video at the clip's rate; returns the one that saves it."""
    graph[f"{OWN}{name}_video"] = new_node("CreateVideo", images=tuple(picture), fps=(loader, 1))
    saver = f"{OWN}{name}_saved"
    graph[saver] = new_node(
        "SaveVideo", video=(f"{OWN}{name}_video", 0), filename_prefix=name, format="auto", codec="auto"
    )
    return saver


def _pictures(graph: Graph, saver: str) -> tuple[str, int] | None:
    """The output whose pictures a node saves, directly or as a video."""
    inputs = graph[saver]["inputs"]
    video = inputs.get("video")
    if is_link(video):
        inputs = graph[video[0]]["inputs"]
    picture = inputs.get("images", inputs.get("image"))
    return tuple(picture) if is_link(picture) else None


def _is_video(graph: Graph, node: str) -> bool:
    return "Video" in graph[node]["class_type"] or "VHS" in graph[node]["class_type"]


def _is_compared(graph: Graph, saver: str) -> bool:
    picture = _pictures(graph, saver)
    return picture is None or graph[picture[0]]["class_type"] == "EI2_Compare"


def _notes(graph: Graph) -> set[str]:
    """Nodes that save attention maps rather than an edit."""
    return {
        node
        for node in graph
        if (picture := _pictures(graph, node)) and picture[1] == 2 and graph[picture[0]]["class_type"] == SAMPLE
    }
