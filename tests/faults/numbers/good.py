"""A graph in which every node of the pack gets good inputs, small and quick, and the part of it that one node needs."""

from __future__ import annotations

from ...server.graphs import Graph, changed, controlled, edit_graph, node, reconstruct

CONTROLS = {"control", "edit"}


def good_graph() -> Graph:
    """Every input of every node is written down, so that each can be exchanged."""
    graph = controlled(reconstruct(edit_graph(tune_steps=2, invert_steps=3)), blend=("car", "tractor"))
    graph = changed(
        graph,
        {
            "tune.snapshot_every": 0,
            "tune.resume_from": "none",
            "tune.preview_every": 0,
            "tune.window_frames": 0,
            "invert.null_text": False,
            "invert.null_inner_steps": 1,
            "invert.null_cfg": 7.5,
            "invert.trajectory": False,
            "invert.empty": ("negative", 0),
        },
    )
    pictures = ("video", 0), ("decode", 0)
    advanced = dict(
        spatial="ffam",
        coarse_factor=2,
        coarse_pool="average",
        temporal="stam",
        centering="frames",
        normalization="bounded",
        normalization_scope="qkvo",
        position="after_feed_forward",
        group_norm="frame",
    )
    return {
        **graph,
        "advanced": node("EI2_InflateUNetAdvanced", model=("mini", 0), **advanced),
        "recipe": node("EI2_Recipe", recipe="subtle", model_kind="bundled miniature"),
        "save_tune": node("EI2_SaveTune", tune=("tune", 1), filename_prefix="faults/tune", prompt="a blue square"),
        "apply": node("EI2_ApplyTune", model=("mini", 0), tune=("tune", 1), temporal_strength=1.0, query_strength=1.0),
        "cache": node("EI2_InversionCache", clear=False),
        "check": node("EI2_ReconstructionCheck", source=pictures[0], reconstruction=("decode_reconstruction", 0)),
        "compare": node(
            "EI2_Compare", video_1=pictures[0], video_2=pictures[1], labels="source\nedit", layout="side by side"
        ),
        "metrics": node("EI2_Metrics", source=pictures[0], edit=pictures[1], prompt="a red circle"),
        "probe": node(
            "EI2_ShiftProbe", model=("tune", 0), latent=("encode", 0), positive=("source_prompt", 0), timesteps="500"
        ),
        **{f"show_{name}": node("PreviewAny", source=(name, 0)) for name in ("recipe", "advanced", "apply", "probe")},
    }


def only_for(graph: Graph, name: str) -> Graph:
    """What the node needs, and a node that asks for its first output where nothing else makes it run."""
    wanted, found = [name], {}
    while wanted:
        one = wanted.pop()
        if one in found:
            continue
        found[one] = graph[one]
        links = [value[0] for value in graph[one]["inputs"].values() if is_link(value)]
        wanted += [link for link in links if link in graph]
    return {**found, "asks": node("PreviewAny", source=(name, 0))}


def is_link(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
