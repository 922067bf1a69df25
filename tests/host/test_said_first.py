"""What can be said before long work is said before it: a table of mistakes per kind, and nothing has begun."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


@pytest.fixture
def folders(pack):
    return pack("host.folders")


@pytest.fixture
def root(folders, tmp_path):
    """An empty folder for tunes."""
    import folder_paths

    known = folder_paths.folder_names_and_paths[folders.TUNES]
    folder_paths.folder_names_and_paths[folders.TUNES] = ([str(tmp_path / "tunes")], known[1])
    yield tmp_path / "tunes"
    folder_paths.folder_names_and_paths[folders.TUNES] = known


@pytest.mark.parametrize(
    "prefix, words",
    [
        ("x" * 240, "240 characters long, too long for a file's name: shorten it"),
        ("猫" * 80, "too long"),
        ("a/" + "y" * 200 + "/b", "too long"),
        *(
            (name, "is not a valid file name on Windows: choose another, such as my_")
            for name in ("con", "NUL", "aux.film", "a/COM1", "lpt9/b", "prn.tar.gz", "ends.", "dots.../b", "com¹")
        ),
        ("a:b", "is not a valid file name"),
        ("file/b", "is a file, but a folder is needed"),
        ("snapshots/b", "is for the snapshots"),
    ],
)
def test_names_that_no_file_can_have(prefix, words, pack, root):
    root.mkdir()
    (root / "file").write_text("in the way")
    said = pack("nodes.save_tune").SaveTune.validate_inputs(prefix)
    assert said is not True and words in said and len(said) < 300
    with pytest.raises(ValueError) as error:  # a name from another node
        pack("nodes.save_tune").SaveTune.execute(None, prefix)
    assert str(error.value) == said


@pytest.mark.parametrize("prefix", ["tune", "my films/2024/%date%_tune", "x" * 150, "猫 1.0", "console", "com10"])
def test_names_that_files_can_have(prefix, pack, root):
    assert pack("nodes.save_tune").SaveTune.validate_inputs(prefix) is True


def test_a_graph_that_lacks_inputs_is_left_to_the_host(pack):
    """The host calls `validate_inputs` with what is there, and refuses the graph itself."""
    nodes = [node for node in pack("nodes").NODES if "validate_inputs" in vars(node)]
    assert len(nodes) >= 8
    for node in nodes:
        assert node.validate_inputs() is True, node


def ranged(conditioning: list, start: float, end: float) -> list:
    from nodes import ConditioningSetTimestepRange

    return ConditioningSetTimestepRange().set_range(conditioning, start, end)[0]


def in_area(conditioning: list) -> list:
    from nodes import ConditioningSetArea

    return ConditioningSetArea().append(conditioning, 32, 32, 0, 0, 1.0)[0]


@pytest.fixture
def prompts(source):
    """Prompts that hold nowhere at some steps, with what is said of them."""
    return {
        "a part of the steps": (ranged(source, 0.2, 0.8), "end_percent, start_percent"),
        "the second half": (ranged(source, 0.5, 1.0), "start_percent"),
        "a gap": (ranged(source, 0.0, 0.4) + ranged(source, 0.6, 1.0), "end_percent, start_percent"),
        "an area": (in_area(source), "area"),
        "nothing": ([], "connect a CLIP Text Encode"),
    }


KINDS = ("a part of the steps", "the second half", "a gap", "an area", "nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_that_do_not_hold_everywhere(kind, prompts, pack, model, inflate, invert, source, random_clip):
    """Tuning failed with Python's own words, inversion gave noise without a word."""
    prompt, word = prompts[kind]
    inflated, clip = inflate(model), random_clip()
    inversion = invert(inflated, clip, source, steps=2)[0]
    tune = (inflated, {"samples": clip}, prompt, 1, 1e-3, 0, "auto", "off")
    tries = (
        lambda: pack("nodes.one_shot_tune").OneShotTune.execute(*tune),
        lambda: invert(inflated, clip, prompt, steps=2),
        lambda: pack("nodes.edit_sample").EditSample.execute(inflated, inversion, prompt, source, 7.5),
        lambda: pack("nodes.edit_sample").EditSample.execute(inflated, inversion, source, prompt, 7.5),
        lambda: pack("nodes.shift_probe").ShiftProbe.execute(inflated, {"samples": clip}, prompt, "500"),
    )
    for run in tries:
        with pytest.raises(ValueError, match="must cover the whole picture at every step|holds no prompt") as error:
            run()
        assert word in str(error.value)


def test_prompts_that_cannot_be_trained_on(pack, model, inflate, invert, source, encode, random_clip):
    """torch's own words, or wrong gradients without a word."""
    tune, inflated, clip = pack("nodes.one_shot_tune").OneShotTune.execute, inflate(model), random_clip()
    text, options = source[0]
    boxed = [[text, {**options, "gligen": ("position", object(), [])}]]
    hooked = [[text, {**options, "hooks": object()}], [text, {**options, "hooks": object()}]]
    for positive, said in ((boxed, "GLIGEN's boxes"), (hooked, "different LoRA hooks"), (hooked[:1] + source, "hooks")):
        with pytest.raises(ValueError, match=f"^positive .*{said}"):
            tune(inflated, {"samples": clip}, positive, 1, 1e-3, 0, "auto", "off")
    with pytest.raises(ValueError, match="^The source prompt has GLIGEN's boxes"):
        invert(inflated, clip, boxed, steps=2, null_text=True, empty=encode(""))


def test_prompts_that_together_hold_everywhere(model, inflate, invert, source, random_clip):
    """Halves that meet, a whole one beside a part, and the range that changes nothing."""
    inflated, clip = inflate(model), random_clip()
    for prompt in (
        ranged(source, 0.0, 0.5) + ranged(source, 0.5, 1.0),
        source + in_area(source),
        ranged(source, 0.0, 1.0),
    ):
        assert invert(inflated, clip, prompt, steps=2)[0].noise.isfinite().all()


def test_an_inversion_of_another_schedule(model, inflate, invert, source, random_clip, pack):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    inflated, clip = inflate(model), random_clip()
    inversion = invert(inflated, clip, source, steps=3)[0]
    (other,) = ModelSamplingDiscrete().patch(inflated, "eps", True)  # noise without end
    with pytest.raises(ValueError, match="^The inversion goes up to noise level .* invert with the same model"):
        pack("nodes.edit_sample").EditSample.execute(other, inversion, source, source, 1.0)
    for steps in (1, 7):  # and its own, at any number of steps
        pack("host.inputs").check_schedule(inflated, invert(inflated, clip, source, steps=steps)[0])


@pytest.mark.parametrize("name", ["lcm", "x0", "img_to_img"])
def test_sampling_by_other_formulas_names_the_node_to_take_off(name, model, inflate, pack):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    try:
        (other,) = ModelSamplingDiscrete().patch(model, name, False)
    except UnboundLocalError:
        pytest.skip("this ComfyUI has no such choice")
    with pytest.raises(ValueError, match=f"makes this model sample as {name}, .*remove that node .ModelSampling"):
        inflate(other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_of_any_precision(dtype, model, inflate, tune, invert, source, random_clip):
    """As newer hosts keep them with --fp16-intermediates; in half precision the highest noise levels overflow."""
    inflated, clip = inflate(model), random_clip()
    expected = invert(inflated, clip, source, steps=3)[0]
    found = invert(inflated, clip.to(dtype), source, steps=3)[0]
    assert found.noise.dtype == torch.float32
    assert (found.noise - expected.noise).abs().max() < 0.1 * expected.noise.abs().max()


def test_tuning_on_half_precision_latents(model, inflate, source, random_clip, pack):
    node = pack("nodes.one_shot_tune").OneShotTune
    inflated, clip = inflate(model), random_clip()
    losses = [
        node.execute(inflated, {"samples": clip.to(dtype)}, source, 2, 1e-3, 0, "auto", "off").args[1].losses
        for dtype in (torch.float32, torch.float16)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_an_inversion_of_one_step_says_so(model, inflate, source, random_clip, pack, caplog):
    node = pack("nodes.invert").Invert
    said = lambda steps: node.execute(inflate(model), {"samples": random_clip()}, source, steps, 0).ui["text"][0]
    assert "With 1 step the clip gets hardly any noise" in said(1) and "hardly any noise" in caplog.text
    assert "hardly" not in said(2)


def test_null_text_asks_for_memory_before_the_inversion(model, inflate, source, encode, pack, monkeypatch, random_clip):
    ran = []
    monkeypatch.setattr(pack("host.null_text"), "invert", lambda *args: ran.append(args))
    monkeypatch.setattr(pack("host.memory"), "total_memory", lambda device: 2**20)
    with pytest.raises(ValueError, match="Null-text optimisation of .* would need about"):
        pack("nodes.invert").Invert.execute(
            inflate(model), {"samples": random_clip()}, source, 2, 0, null_text=True, empty=encode("")
        )
    assert not ran


def test_a_model_that_is_saved_without_its_temporal_modules(model, inflate, tmp_path, caplog):
    """Only there, not in other uses."""
    import comfy.model_management
    import comfy.sd

    inflated = inflate(model)
    comfy.model_management.load_models_gpu([inflated])
    assert "not in the file" not in caplog.text
    comfy.sd.save_checkpoint(str(tmp_path / "saved.safetensors"), inflated)
    forced = "force_patch_weights" in comfy.sd.save_checkpoint.__code__.co_names or "not in the file" in caplog.text
    if forced or not hasattr(inflated, "state_dict_for_saving"):
        assert "The temporal modules are not in the file" in caplog.text and "EI2 Save Tune" in caplog.text
    caplog.clear()
    comfy.sd.save_checkpoint(str(tmp_path / "plain.safetensors"), model)
    assert "not in the file" not in caplog.text


def test_texts_that_cannot_be_told(pack):
    text_at = pack("host.graph").text_at
    loop = {"1": {"class_type": "Reroute", "inputs": {"value": ["1", 0]}}}
    for graph, link in (({}, ["1", 0]), (loop, ["1", 0]), ({}, None), ({"1": {"inputs": {}}}, ["1", 0])):
        assert text_at(graph, link) is None
