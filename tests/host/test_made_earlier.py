"""Files and graphs made by earlier versions still work: `tests/data/saved` was written by version 0.1.0 and never is
written again.

They were made with a UNet of random weights, so that they are small: a tune of 2 steps, its snapshot, and an inversion
in 2 steps, all of 4 frames of 64 x 64 pixels.
"""

from __future__ import annotations

import json
import shutil

import folder_paths
import pytest
import torch

from devtools.environment import ROOT
from miniature.architecture import UNET

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

SAVED = ROOT / "tests" / "data" / "saved"
VALUES = json.loads((SAVED / "values.json").read_text(encoding="utf-8"))
WRITTEN_BY = "0.1.0"
STEPS, RATE, SEED, TEXT_WIDTH = 2, 1e-2, 7, 32
LAYOUT = {
    **UNET,
    "model_channels": 32,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "context_dim": TEXT_WIDTH,
    "num_heads": -1,
    "num_head_channels": 16,
}


@pytest.fixture(scope="module")
def small(random_unet):
    """The MODEL that the files were made with."""
    return random_unet("SD15", LAYOUT)


@pytest.fixture(scope="module")
def prompt() -> list:
    return [[torch.randn(1, 77, TEXT_WIDTH, generator=torch.Generator().manual_seed(1)), {}]]


@pytest.fixture
def tunes(pack, tmp_path):
    """A folder of tunes and snapshots that holds the saved ones."""
    key = pack("host.folders").TUNES
    (tmp_path / "snapshots").mkdir()
    shutil.copy(SAVED / "tune.safetensors", tmp_path)
    shutil.copy(SAVED / "snapshot.safetensors", tmp_path / "snapshots")
    folder_paths.add_model_folder_path(key, str(tmp_path), is_default=True)
    yield tmp_path
    folder_paths.folder_names_and_paths[key][0].remove(str(tmp_path))


def same(numbers, name: str) -> None:
    torch.testing.assert_close(torch.as_tensor(numbers), torch.tensor(VALUES[name]), atol=0, rtol=0)


def close(numbers, name: str) -> None:
    """What was computed, maybe on another processor."""
    torch.testing.assert_close(torch.as_tensor(numbers), torch.tensor(VALUES[name]), atol=1e-4, rtol=1e-3)


def some(tensor: torch.Tensor) -> torch.Tensor:
    """A few numbers of a tensor, and its mean square."""
    flat = tensor.float().flatten()
    return torch.cat([flat[:: max(1, len(flat) // 8)][:8], flat.square().mean()[None]])


def test_a_tune_is_loaded_and_applied(pack, small, inflate, tunes, evaluate, random_clip, prompt):
    tune, info = pack("nodes.load_tune").LoadTune.execute("tune.safetensors").args
    for line in ("inflation: EI2", "clip: 4 frames, 64 x 64", "training: 2 steps at 0.01, seed 7", "prompt: a clip"):
        assert line in info
    same(tune.losses, "tune losses")
    assert sorted(tune.temporal) == VALUES["tune temporal"] and sorted(tune.query) == VALUES["tune query"]
    same(torch.cat([some(weight) for _, weight in sorted({**tune.temporal, **tune.query}.items())]), "tune weights")
    tuned = pack("nodes.apply_tune").ApplyTune.execute(inflate(small, "EI2"), tune, 1.0, 1.0).args[0]
    close(some(evaluate(tuned, random_clip(4, 8, 8), prompt)), "tuned output")


def test_a_snapshot_goes_on_to_the_same_end(pack, small, inflate, tunes, random_clip, prompt):
    node, clip = pack("nodes.one_shot_tune").OneShotTune, {"samples": random_clip(4, 8, 8)}
    assert node.validate_inputs(resume_from="snapshot.safetensors") is True
    training = (STEPS + 1, RATE, SEED, "fp32", "off")
    tune = node.execute(inflate(small, "EI2"), clip, prompt, *training, resume_from="snapshot.safetensors").args[1]
    close(tune.losses, "resumed losses")


def test_an_inversion_is_found_in_the_cache(pack, small, inflate, invert, tmp_path, monkeypatch, random_clip, prompt):
    file = SAVED / VALUES["inversion file"]
    cache = pack("host.inversion_cache")
    tensors, record, _ = pack("ei2.tensor_file").read(file, cache.KIND)
    assert sorted(tensors) == VALUES["inversion tensors"] and record["values"] == {"null_cfg": 7.5}
    same(torch.cat([some(tensor) for _, tensor in sorted(tensors.items())]), "inversion values")
    if pack("ei2").VERSION != WRITTEN_BY:
        return  # another version inverts anew
    monkeypatch.delenv(cache.LIMIT_VARIABLE)
    user = folder_paths.get_user_directory()
    folder_paths.set_user_directory(str(tmp_path))
    try:
        pack("host.folders").inversions_folder().mkdir(parents=True)
        shutil.copy(file, pack("host.folders").inversions_folder())
        calls = []
        handle = small.model.diffusion_model.time_embed.register_forward_hook(lambda *_: calls.append(1))
        inversion = invert(inflate(small, "EI2"), random_clip(4, 8, 8), prompt, steps=STEPS, trajectory=True)[0]
        handle.remove()
    finally:
        folder_paths.set_user_directory(user)
    if calls and not torch.equal(inversion.noise, tensors["noise"]):
        pytest.skip("The file was written on another processor, whose random numbers differ in the last bits.")
    assert not calls
    assert torch.equal(inversion.noise, tensors["noise"]) and torch.equal(inversion.trajectory, tensors["trajectory"])


@pytest.fixture(scope="module")
def own_nodes(pack) -> dict[str, tuple[set[str], list[str]]]:
    """The inputs and the names of the outputs of each of the pack's nodes."""
    schemas = [node.define_schema() for node in pack("nodes").NODES]
    outputs = lambda schema: [output.display_name for output in schema.outputs]
    return {schema.node_id: ({input.id for input in schema.inputs}, outputs(schema)) for schema in schemas}


@pytest.mark.parametrize("path", sorted((ROOT / "workflows" / "api").glob("*.json")), ids=lambda path: path.stem)
def test_api_workflows_name_nodes_and_inputs_that_exist(path, own_nodes):
    graph = json.loads(path.read_text(encoding="utf-8"))
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and graph[value[0]]["class_type"].startswith("EI2_"):
                assert value[1] < len(own_nodes[graph[value[0]]["class_type"]][1]), (node["class_type"], name)
        if node["class_type"].startswith("EI2_"):
            names = {name.partition(".")[0] for name in node["inputs"]}
            assert names <= own_nodes[node["class_type"]][0], node["class_type"]


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_workflows_name_nodes_and_inputs_that_exist(path, own_nodes):
    graph = json.loads(path.read_text(encoding="utf-8"))
    groups = [graph, *graph.get("definitions", {}).get("subgraphs", [])]
    nodes = [node for group in groups for node in group["nodes"] if node["type"].startswith("EI2_")]
    assert nodes
    for node in nodes:
        inputs, outputs = own_nodes[node["type"]]
        names = {input["name"].partition(".")[0] for input in node.get("inputs", [])} - {
            "upload"
        }  # the editor's button
        assert names <= inputs, node["type"]
        saved = [output["name"] for output in node.get("outputs", [])]
        assert saved == outputs[: len(saved)], node["type"]
