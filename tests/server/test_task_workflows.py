"""The bundled workflows for single tasks, shortened: compare two methods, edit inside a mask, reuse a tune, edit by
depth; and those for a Stable Diffusion checkpoint, as far as a server without one can take them."""

from __future__ import annotations

import io

import av
import pytest
import torch.nn.functional as F

from devtools.demo.workflows import VIDEOS, files_of
from miniature.clips import KEY_FRAME, bundled_key_frame, bundled_truth
from miniature.scene import object_mask
from tests.small_control_net import provide_control_net

from .graphs import BUNDLED, bundled, changed, fail, names, node, only, run, skip_if_older

pytestmark = pytest.mark.server

FRAMES, STEPS, SIZE = 3, 3, 128
TUNE = "learned_00001_.safetensors"
SD15, SDXL = "v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"
WITH_CHECKPOINT = {"sd15_object_swap": SD15, "sd15_restyle": SD15, "sd15_depth": SD15, "sdxl_object_swap": SDXL}
LOADERS = {  # and their inputs that name a file
    "CheckpointLoaderSimple": "ckpt_name",
    "ControlNetLoader": "control_net_name",
    "LoadBackgroundRemovalModel": "bg_removal_name",
    "EI2_LoadTune": "tune_name",
}
WORKFLOWS = sorted(path.stem for path in BUNDLED.glob("*.json"))
MISSING = "missing.safetensors"


def frames_of(client, graph, result, prefix: str) -> list:
    """The saved video's frames, `h w 3` in 0..255."""
    (file,) = files_of(graph, result.outputs, prefix)
    with av.open(io.BytesIO(client.view(file))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_two_methods_beside_the_source(client):
    graph = bundled("compare_tune_a_video", FRAMES, STEPS, STEPS)
    presets = [graph[name]["inputs"]["preset"] for name in names(graph, "EI2_InflateUNet")]
    assert presets == ["EI2", "Tune-A-Video"]
    decoders = names(graph, "VAEDecode")
    frames = {f"frames{name}": node("SaveImage", images=(name, 0), filename_prefix="compared") for name in decoders}
    result = run(client, {**graph, **frames})

    ours, theirs = (result.pictures(f"frames{name}") for name in decoders)
    assert (ours - theirs).abs().max() > 0.1, "both rows gave the same edit"
    pictures = frames_of(client, graph, result, "EI2/compare_tune_a_video")
    assert len(pictures) == FRAMES and pictures[0].shape[1] > 3 * SIZE
    tables = [result.outputs[name]["text"][0] for name in names(graph, "EI2_Metrics")]
    assert all("flicker" in table for table in tables) and tables[0] != tables[1]


def test_only_the_masked_part_changes(client):
    """Inside, the edit's latents differ from the clip's; outside, the frames are the clip's own, to the last bit, where
    no decoded latents could be: not even the reconstruction, nor the same edit before it is composed."""
    graph = bundled("masked_edit", FRAMES, STEPS, STEPS)
    (edit,) = [name for name in names(graph, "EI2_EditSample") if "mask" in graph[name]["inputs"]]
    (reconstruction,) = [name for name in names(graph, "EI2_EditSample") if name != edit]
    mask = graph[edit]["inputs"]["mask"]
    (shown,) = [name for name in names(graph, "MaskToImage") if graph[name]["inputs"]["mask"] == mask]
    decoder = {graph[name]["inputs"]["samples"][0]: name for name in names(graph, "VAEDecode")}
    saved = {graph[name]["inputs"]["filename_prefix"]: name for name in names(graph, "SaveVideo")}
    (video,) = graph[saved["EI2/masked_edit_edit"]]["inputs"]["video"][:1]
    graph = changed(graph, {f"{edit}.cfg": 6.0})
    pictures = {
        "mask": (shown, 0),
        "clip": (only(graph, "EI2_LoadVideo"), 0),
        "reconstruction": (decoder[reconstruction], 0),
        "decoded": (decoder[edit], 0),
        "edit": tuple(graph[video]["inputs"]["images"]),
    }
    for name, images in pictures.items():
        graph[f"{name}_frames"] = node("SaveImage", images=images, filename_prefix=name)
    result = run(client, graph)

    white, clip, *others = (result.pictures(f"{name}_frames") for name in pictures)
    coverage = white.mean((1, 2, 3))
    assert ((coverage > 0.2) & (coverage < 0.7)).all(), "the object and some room around it, in every frame"
    assert all((one - other).abs().max() > 0.5 for one, other in zip(white, white[1:])), "it follows the object"
    outside = (white == 0).float()
    error = lambda frames: ((frames - clip).square() * outside).sum() / outside.sum()
    restored, decoded, edited = map(error, others)
    assert edited == 0 < decoded and edited < restored
    deep = 1 - F.max_pool2d(outside, 13, 1, 6)  # inside, away from the soft edge
    assert ((others[2] - others[1]).abs() * deep).max() < 0.01, "inside, it is the edit"
    assert ((others[2] - clip).abs() * deep).sum() / deep.sum() > 0.05
    for name in VIDEOS:
        assert len(frames_of(client, graph, result, f"EI2/masked_edit_{name}")) == FRAMES, name


def test_a_drawn_frame_is_carried_through_the_clip(client):
    graph = bundled("key_frame", KEY_FRAME + 2, STEPS, STEPS)
    own, drawn = names(graph, "EI2_CarryKeyFrame")
    assert "key_frame" in graph[drawn]["inputs"] and "key_frame" not in graph[own]["inputs"]
    for name in (own, drawn):
        graph[f"{name}_pasted"] = node("SaveImage", images=(name, 1), filename_prefix="pasted")
        graph[f"{name}_report"] = node("PreviewAny", source=(name, 2))
    result = run(client, graph)
    assert result.outputs[f"{drawn}_report"]["text"][0].startswith(f"Your frame {KEY_FRAME} was carried to ")
    assert result.outputs[f"{own}_report"]["text"][0].startswith("Frame ")
    pasted = result.pictures(f"{drawn}_pasted")
    drawn_object = object_mask(bundled_truth("key_frame")[KEY_FRAME : KEY_FRAME + 1])[0, 0] > 0.5
    assert (pasted[KEY_FRAME] - bundled_key_frame())[:, drawn_object].abs().mean() < 0.03
    assert (pasted - result.pictures(f"{own}_pasted")).abs().max() > 0.3
    for name in ("comparison", "carried"):
        assert len(frames_of(client, graph, result, f"EI2/key_frame_{name}")) == KEY_FRAME + 2


def test_one_workflow_keeps_a_tune_and_the_other_one_uses_it(client, server):
    kept = server.base / "models" / "ei2_tunes" / TUNE
    assert not kept.exists()
    graph = bundled("load_and_edit", FRAMES, STEPS, STEPS)
    load = only(graph, "EI2_LoadTune")
    assert graph[load]["inputs"]["tune_name"] == TUNE
    failure = fail(client, graph)
    assert (failure.where, failure.node) == ("node_errors", load) and "There is no tune" in failure.message

    run(client, bundled("learn_and_keep", FRAMES, STEPS, STEPS))
    assert kept.is_file()
    result = run(client, graph)
    assert {load, *names(graph, "EI2_ApplyTune", "EI2_EditSample", "EI2_Compare")} <= result.executed()
    assert len(frames_of(client, graph, result, "EI2/load_and_edit")) == FRAMES


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_missing_models_are_named(client, workflow):
    """A checkpoint of one's own in place of the miniature, too."""
    graph = with_checkpoint(bundled(workflow))
    skip_if_older(workflow, {entry["class_type"] for entry in graph.values()} - client.object_info().keys())
    loaders = names(graph, *LOADERS)
    missing = {f"{loader}.{LOADERS[graph[loader]['class_type']]}": MISSING for loader in loaders}
    failure = fail(client, changed(graph, missing))
    assert failure.where == "node_errors" and set(failure.node.split(", ")) == set(loaders), failure
    assert failure.message.count(MISSING) >= len(loaders)


def with_checkpoint(graph):
    """The graph with Load Checkpoint for the miniature's loader: both have the same outputs."""
    loader = node("CheckpointLoaderSimple", ckpt_name=MISSING)
    return {name: loader if entry["class_type"] == "EI2_LoadMini" else entry for name, entry in graph.items()}


@pytest.mark.parametrize("workflow", WITH_CHECKPOINT)
def test_with_any_file_of_the_checkpoints_name_only_its_content_is_missed(client, server, control_net, workflow):
    """The server accepts every input and link of the graph, and begins with it."""
    graph = bundled(workflow)
    for name in graph:
        if graph[name]["class_type"] == "ControlNetLoader":
            graph = changed(graph, {f"{name}.control_net_name": control_net})
    loader = only(graph, "CheckpointLoaderSimple")
    assert graph[loader]["inputs"]["ckpt_name"] == WITH_CHECKPOINT[workflow]
    file = server.base / "models" / "checkpoints" / WITH_CHECKPOINT[workflow]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"no checkpoint")
    try:
        failure = fail(client, graph)
    finally:
        file.unlink()
    assert (failure.where, failure.node) == ("execution_error", loader), failure


@pytest.fixture(scope="module")
def control_net(server) -> str:
    """The name of a small ControlNet that the server can load."""
    return provide_control_net(server.base)


def test_depth_steers_the_edit(client, control_net):
    """On the miniature, with a small ControlNet of random weights: each of its inputs changes the edit, and the tuning
    and the inversion do without it."""
    graph = bundled("sd15_depth", FRAMES, STEPS, STEPS)
    net, apply = only(graph, "ControlNetLoader"), only(graph, "ControlNetApplyAdvanced")
    depth = graph[apply]["inputs"]["image"][0]
    source = next(name for name in names(graph, "EI2_LoadVideo") if name != depth)
    smaller = {f"{name}.{side}": SIZE for name in (depth, source) for side in ("width", "height")}
    graph = changed(graph, smaller | {f"{net}.control_net_name": control_net, f"{apply}.strength": 4.0})
    graph[only(graph, "CheckpointLoaderSimple")] = node("EI2_LoadMini")
    decode = only(graph, "VAEDecode")
    graph["frames"] = node("SaveImage", images=(decode, 0), filename_prefix="steered")

    first = run(client, graph)
    assert len(frames_of(client, graph, first, "EI2/sd15_depth_edit")) == FRAMES
    (picture, *_) = frames_of(client, graph, first, "EI2/sd15_depth_comparison")
    assert picture.shape[1] > 3 * SIZE  # source, depth, edit
    for change in ({f"{apply}.strength": 0.0}, {f"{apply}.image": (source, 0)}):
        other = run(client, changed(graph, change))
        assert not other.executed() & set(names(graph, "EI2_OneShotTune", "EI2_Invert"))
        assert (other.pictures("frames") - first.pictures("frames")).abs().max() > 0.02, change
