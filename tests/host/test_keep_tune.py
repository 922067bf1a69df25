"""Save, load and apply a tune in the host: the same model comes back, and it goes only where it fits."""

from __future__ import annotations

import io
import logging

import folder_paths
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


@pytest.fixture
def folder(pack, tmp_path):
    """A tune folder that comes first, as extra model paths may give one."""
    key = pack("host.folders").TUNES
    temporary = folder_paths.get_temp_directory()
    folder_paths.add_model_folder_path(key, str(tmp_path / "tunes"), is_default=True)
    folder_paths.set_temp_directory(str(tmp_path / "temp"))
    yield tmp_path / "tunes"
    folder_paths.set_temp_directory(temporary)
    folder_paths.folder_names_and_paths[key][0].remove(str(tmp_path / "tunes"))


@pytest.fixture(scope="module")
def learned(model, inflate, tune, random_clip):
    """A tuned miniature, its tune, and the clip's latents."""
    with torch.inference_mode():
        clip = random_clip()
        return (*tune(inflate(model), clip, steps=3, learning_rate=1e-2), clip)


@pytest.fixture
def saved(pack, folder, learned):
    """The name under which the tune was kept."""
    pack("nodes.save_tune").SaveTune.execute(learned[1], "clips/jeep", "a jeep")
    return "clips/jeep_00001_.safetensors"


def load(pack, name):
    node = pack("nodes.load_tune").LoadTune
    assert node.validate_inputs(name) is True
    return node.execute(name).args


def apply(pack, model, tune, temporal=1.0, query=1.0):
    return pack("nodes.apply_tune").ApplyTune.execute(model, tune, temporal, query).args[0]


def test_the_tuned_model_comes_back(saved, learned, pack, model, inflate, evaluate, source):
    tuned, _, clip = learned
    expected = evaluate(tuned, clip, source)
    tune, info = load(pack, saved)
    for given in (model, inflate(model), tuned):  # straight from the loader, inflated, and with a tune to be replaced
        assert torch.equal(evaluate(apply(pack, given, tune), clip, source), expected)
    assert (evaluate(inflate(model), clip, source) - expected).abs().max() > 1e-2
    assert "3 steps" in info and "a jeep" in info and "80 x 48" in info
    assert Image.open(io.BytesIO(tune.picture)).size[0] > 100
    shown = pack("nodes.load_tune").LoadTune.execute(saved).ui
    assert len(shown["images"]) == 1 and shown["images"][0]["type"] == "temp" and shown["text"][0] == info


def test_the_list_shows_it_and_numbers_go_on(saved, pack, folder, learned):
    save, where = pack("nodes.save_tune").SaveTune, pack("host.folders")
    output = save.execute(learned[1], "clips/jeep")
    assert "clips/jeep_00002_.safetensors" in output.ui["text"][0]
    (folder / "notes.txt").write_text("x")
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / "run.safetensors").write_bytes(b"")
    assert [saved, "clips/jeep_00002_.safetensors"] == [name for name in where.list_tunes() if "jeep" in name]
    assert "run.safetensors" in where.list_snapshots() and not [n for n in where.list_tunes() if "run" in n]
    options = pack("nodes.load_tune").LoadTune.define_schema().inputs[0].options
    assert saved in options


def test_no_tune_of_another_folder_is_hidden(saved, pack, folder, learned):
    """The user adds a folder in front of the one with the older tunes."""
    first = folder.parent / "first"
    folder_paths.add_model_folder_path(pack("host.folders").TUNES, str(first), is_default=True)
    try:
        output = pack("nodes.save_tune").SaveTune.execute(learned[1], "clips/jeep")
        assert "clips/jeep_00002_.safetensors" in output.ui["text"][0]
        assert [path.name for path in first.rglob("*.safetensors")] == ["jeep_00002_.safetensors"]
    finally:
        folder_paths.folder_names_and_paths[pack("host.folders").TUNES][0].remove(str(first))


def test_strengths_go_from_the_untuned_to_the_tuned_model(saved, pack, learned, model, inflate, evaluate, source):
    tuned, _, clip = learned
    tune = load(pack, saved)[0]
    output = lambda *strengths: evaluate(apply(pack, model, tune, *strengths), clip, source)
    untuned, whole = evaluate(inflate(model), clip, source), evaluate(tuned, clip, source)
    assert (output(0.0, 0.0) - untuned).abs().max() <= 1e-5
    query_only, temporal_only = output(0.0, 1.0), output(1.0, 0.0)
    for part in (query_only, temporal_only):
        assert (part - untuned).abs().max() > 1e-3 and (part - whole).abs().max() > 1e-3
    assert 0 < (output(0.0, 0.5) - untuned).abs().max() < (query_only - untuned).abs().max()


def test_tuning_a_tuned_model_keeps_both_in_one_tune(pack, learned, model, tune, inflate, evaluate, source):
    first, _, clip = learned
    second, result = tune(first, clip, steps=2, learning_rate=1e-2)
    again = apply(pack, model, result)
    assert torch.equal(evaluate(again, clip, source), evaluate(second, clip, source))


def test_other_inflation_is_refused_naming_both(saved, pack, model, inflate):
    message = (
        "made with spatial ffam, temporal stam, group_norm frame, but the model is inflated with "
        "spatial sca, temporal attention, group_norm video: inflate it in the same way"
    )
    with pytest.raises(ValueError, match=message):
        apply(pack, inflate(model, "Tune-A-Video"), load(pack, saved)[0])


def test_another_family_is_refused_naming_both(saved, pack, model):
    import comfy.model_patcher
    import comfy.supported_models

    bundled = pack("miniature.architecture").UNET
    unet = {**bundled, "model_channels": 32}
    config = comfy.supported_models.SD15(unet)
    config.unet_config["num_heads"] = 1
    other = config.get_model({}, "")
    patcher = comfy.model_patcher.ModelPatcher(other, model.load_device, model.offload_device)
    channels = rf"\({bundled['model_channels']} channels.*this model is SD15 \(32 channels"
    with pytest.raises(ValueError, match=f"made on MiniatureConfig {channels}"):
        apply(pack, patcher, load(pack, saved)[0])


def test_another_checkpoint_is_allowed_with_a_warning(saved, pack, caplog):
    other = pack("host.miniature").load_miniature()[0]
    with torch.no_grad():
        for weight in other.model.diffusion_model.parameters():
            weight.mul_(1.01)
    with caplog.at_level(logging.WARNING):
        apply(pack, other, load(pack, saved)[0])
    assert "another checkpoint of the same family" in caplog.text


def test_the_same_model_with_a_lora_gives_a_warning(saved, pack, model, caplog):
    clone = model.clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    clone.add_patches({key: ("diff", (torch.ones(256, 256),))}, 0.1)
    with caplog.at_level(logging.WARNING):
        apply(pack, model, load(pack, saved)[0])
        assert "EI2" not in caplog.text
        apply(pack, clone, load(pack, saved)[0])
    assert "made on a model without LoRA or patches" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_the_identity_holds_in_any_format_and_load_state(dtype, pack, model, learned, evaluate, source):
    import comfy.model_management

    identify, check = pack("host.identity").identify, pack("ei2.model_identity").check_base
    reference = identify(model)
    other = pack("host.miniature").load_miniature()[0]
    other.model.to(dtype)
    assert check(reference, identify(other)) == ""
    tuned, _, clip = learned
    evaluate(tuned, clip, source)  # its q projections are now in the shared weights
    comfy.model_management.load_models_gpu([tuned])
    assert check(reference, identify(tuned)) == "" == check(reference, identify(model))
    assert identify(tuned).patches == ""


def test_weights_that_the_host_has_not_loaded_are_no_reason_to_fail(pack, model):
    """Newer hosts keep weights on the meta device until they are needed."""
    other = pack("host.miniature").load_miniature()[0]
    other.model.diffusion_model.to("meta")
    identify, check = pack("host.identity").identify, pack("ei2.model_identity").check_base
    assert check(identify(model), identify(other)) == "" == check(identify(other), identify(model))
    with pytest.raises(pack("ei2.digest").Unhashable, match="not loaded yet"):
        pack("host.identity").inversion_key(other, {})


def test_wrong_names_and_files_are_refused(pack, folder, learned):
    save, node = pack("nodes.save_tune").SaveTune, pack("nodes.load_tune").LoadTune
    wrong = ("", "  ", "a/", "..", "../a", "a/../../b", "/etc/a", 'a"b', "a:b", "a\nb", "snapshots/a", "Snapshots/a")
    for name in (*wrong, "a/" * 3000 + "x"):
        assert isinstance(save.validate_inputs(name), str), name
        with pytest.raises(ValueError):
            save.execute(learned[1], name)
    assert save.validate_inputs("a/b/../c") is True is save.validate_inputs(None)
    assert not list(folder.rglob("*"))
    assert "save one with" in node.validate_inputs("")
    folder.mkdir()
    outside = folder.parent / "outside.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    (folder / "nowhere").symlink_to(folder / "gone")
    assert "nowhere is a file, but a folder is needed" in save.validate_inputs("nowhere/a")
    for name in (5, ["a"]):
        assert "is not the name of a file: choose one from the list" in node.validate_inputs(name)
    for name in ("missing.safetensors", "../outside.safetensors", str(outside), "a.ckpt"):
        assert "There is no tune" in node.validate_inputs(name)
    save_file({"a": torch.zeros(1)}, folder / "lora.safetensors")
    assert "another kind" in node.validate_inputs("lora.safetensors")


def test_a_replaced_file_is_read_again(saved, pack, folder, learned):
    fingerprint = pack("nodes.load_tune").LoadTune.fingerprint_inputs
    before = fingerprint(saved)
    assert fingerprint(saved) == before
    pack("ei2.tune_file").save_tune(folder / saved, learned[1], "another prompt")
    assert fingerprint(saved) != before
