"""Long clips and context windows that do not go together: what is wrong, and what to do."""

from __future__ import annotations

import pytest

from . import long_clip

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

clip, tuned = long_clip.clip, long_clip.tuned


def test_a_long_clip_without_windows_is_told_how(tuned, invert, source, clip):
    expected = (
        'tuned on 4 frames, but the latent has 9: .*set window_frames of EI2 One-Shot Tune, and add an "EI2 Context '
        'Windows" node with context_length 4 after it'
    )
    with pytest.raises(ValueError, match=expected):
        invert(tuned[0], clip, source)


def test_a_short_clip_is_not_sent_to_windows(tuned, windowed, invert, source, clip):
    for model in (tuned[0], windowed(tuned[0])):
        with pytest.raises(ValueError, match="tuned on 4 frames, but the latent has 3: use the same clip.*edit.$"):
            invert(model, clip[:3], source)


def test_windows_of_another_length_are_refused(tuned, windowed, invert, sample, source, clip):
    expected = "tuned on 4 frames at once, but its context windows have 5: set context_length .* to 4, or tune again"
    with pytest.raises(ValueError, match=expected):
        invert(windowed(tuned[0], 5), clip, source)
    inversion = invert(windowed(tuned[0]), clip, source, 1)[0]
    with pytest.raises(ValueError, match=expected):
        sample(windowed(tuned[0], 5), inversion, source, source)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dim": 2}, "cut dimension 2 of the latents, but a video's frames are dimension 0: set dim of"),
        ({"overlap": 4}, "context_overlap is 4, but a window has 4 frames: set it in .* to fewer"),
        ({"length": 1, "overlap": 0}, "context_length is 1: set it in .* to 2 or more"),
    ],
    ids=str,
)
def test_windows_that_cannot_cut_a_video_are_refused(
    options, message, model, inflate, windowed, invert, evaluate, source, clip
):
    odd = windowed(inflate(model), **options)
    with pytest.raises(ValueError, match=message):
        invert(odd, clip, source)
    with pytest.raises(ValueError, match=message):  # the host's own samplers
        evaluate(odd, clip, source)


def test_what_needs_the_whole_clip_says_so(pack, miniature, tuned, windowed, invert, sample, source, encode, clip):
    model, whole = windowed(tuned[0]), "needs the whole clip at once, but the context windows cut its 9 frames into"
    with pytest.raises(ValueError, match=f"null_text {whole}"):
        invert(model, clip, source, null_text=True, empty=encode(""))
    with pytest.raises(ValueError, match=f"EI2 Shift Probe {whole}"):
        pack("nodes.shift_probe").ShiftProbe.execute(model, {"samples": clip}, source, "500")
    inversion = invert(model, clip, source, 1)[0]
    node = pack("nodes.attention_control").AttentionControl
    options = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
    options |= {"clip": miniature[1], "source_prompt": "a blue square", "target_prompt": "a red square"}
    control, positive, *_ = node.execute(**options).args
    with pytest.raises(ValueError, match=f"Attention control {whole}"):
        sample(model, inversion, positive, encode(""), 3.0, control)


def test_a_window_of_one_frame_is_refused(pack, model, inflate, source, clip):
    node, options = pack("nodes.one_shot_tune").OneShotTune, (1, 1e-3, 0, "auto", "auto")
    with pytest.raises(ValueError, match="window_frames is 1: one frame has no motion; set it to 2 or more"):
        node.execute(inflate(model), {"samples": clip}, source, *options, window_frames=1)


def test_windows_on_a_model_that_is_not_inflated_are_refused(pack, model):
    with pytest.raises(ValueError, match="This model is not inflated"):
        pack("nodes.context_windows").ContextWindows.execute(model, 4, 1)


@pytest.mark.parametrize(
    "option, value",
    [("cond_retain_index_list", [0]), ("latent_retain_index_list", [0]), ("split_conds_to_windows", True)],
)
def test_what_the_hosts_node_offers_for_other_models_is_refused(
    option, value, model, inflate, windowed, invert, source, clip
):
    """Newer hosts offer it; it would be left out silently."""
    odd = windowed(inflate(model))
    setattr(odd.model_options["context_handler"], option, value)
    with pytest.raises(ValueError, match=f"{option} of .Context Windows .Manual.. has no meaning for a video"):
        invert(odd, clip, source)


def test_several_gpus_are_refused(model, inflate, evaluate, invert, source, clip):
    """As the host's "MultiGPU CFG Split" leaves a model: with copies of it, and while sampling with their list."""
    inflated = inflate(model)
    several = inflated.clone()
    several.set_additional_models("multigpu", [inflated])
    with pytest.raises(ValueError, match="runs on several GPUs at once.*remove the .MultiGPU CFG Split. node"):
        invert(several, clip, source)
    with pytest.raises(ValueError, match="runs on several GPUs at once"):
        inflate(several)
    running = inflated.clone()
    running.model_options["multigpu_clones"] = {}
    with pytest.raises(ValueError, match="runs on several GPUs at once"):  # the host's own samplers
        evaluate(running, clip, source)
