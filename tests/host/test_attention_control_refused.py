"""Inputs that EI2 Attention Control refuses: what can be said before a run, and what needs the text encoder."""

from __future__ import annotations

import pytest
import torch

from . import control_node
from .control_node import DEFAULTS

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

node, clip = control_node.node, control_node.clip
VALIDATED = {"reweight", "blend_source", "blend_target"}  # what the host asks about before a run


def validated(node, **changes):
    """What the host is told before anything runs; it hands over what the method asks for."""
    given = {**DEFAULTS, **changes}
    return node.validate_inputs(**{name: given[name] for name in VALIDATED})


# what can be said before the text encoder is there
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"source_prompt": " \n"}, "source_prompt is empty: write what the clip shows."),
        ({"target_prompt": ""}, "target_prompt is empty: write what the edit shows."),
        ({"mode": "swap"}, "mode is 'swap': choose one of auto, replace, refine."),
        ({"self_maps": "all"}, "self_maps is 'all': choose one of temporal, spatial, both."),
        ({"unconditional": "null"}, "unconditional is 'null': choose one of decoupled, late."),
        ({"blend_threshold": 1.0}, "blend_threshold is 1.0: it must be a number from 0 to 0.99."),
        ({"blend_start": float("nan")}, "blend_start is nan: it must be a number from 0 to 0.99."),
        (
            {"reweight": "circle: 2\nred = 3"},
            "Line 2 of reweight is 'red = 3': write a word and a factor, such as \"red: 2\".",
        ),
        (
            {"blend_source": "red, square"},
            "blend_source is red, square, but blend_target is empty: give the words in both prompts, or none.",
        ),
        (
            {"blend_source": " , ", "blend_target": "circle"},
            "blend_target is circle, but blend_source is empty: give the words in both prompts, or none.",
        ),
        (
            {"blend_threshold": 0.4},
            "blend_threshold 0.4 has no effect without blend words: fill in blend_source and blend_target, or set it "
            "back to 0.3.",
        ),
        (
            {"blend_start": 0.0},
            "blend_start 0.0 has no effect without blend words: fill in blend_source and blend_target, or set it "
            "back to 0.2.",
        ),
    ],
)
def test_what_is_refused_at_once(changes, message, node):
    with pytest.raises(ValueError) as error:
        node.execute(**{**DEFAULTS, "clip": None, **changes})
    assert str(error.value) == message
    assert validated(node, **changes) == (message if VALIDATED & changes.keys() else True)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cross_replace": 1.2}, "cross_replace is 1.2: it must be a number from 0 to 1."),
        ({"self_replace": -0.1}, "self_replace is -0.1: it must be a number from 0 to 1."),
        ({"source_prompt": "()"}, "source_prompt is '()', in which the text encoder finds no words: write some."),
        ({"target_prompt": "(( ))"}, "target_prompt is '(( ))', in which the text encoder finds no words: write some."),
        (
            {"target_prompt": "a circle, please", "mode": "replace"},
            "Replacing needs prompts with the same number of words, but the source prompt has 8 (a, red, square, on, "
            "a, striped, blue, background) and the target prompt 3 (a, 'circle,', please): choose mode refine.",
        ),
        (
            {"target_prompt": "a red circle, " * 30},
            "The source prompt fills 77 tokens and the target prompt 154: shorten the longer one, or lengthen the "
            "other.",
        ),
        (
            {"reweight": "square: 2"},
            "'square' is not in the target prompt, whose words are: a, red, circle, on, a, striped, blue, background.",
        ),
        (
            {"reweight": "(): 2"},
            "reweight holds '()', in which the text encoder finds no word: write one of the prompt's.",
        ),
        ({"reweight": "red: 2\nred circle: 3"}, "'red circle' has two factors in reweight: keep one of the lines."),
        (
            {"blend_source": "circle", "blend_target": "circle"},
            "'circle' is not in the source prompt, whose words are: a, red, square, on, a, striped, blue, background.",
        ),
        (
            {"blend_source": "square", "blend_target": "red circl"},
            "'red circl' is not in the target prompt, whose words are: a, red, circle, on, a, striped, blue, "
            "background.",
        ),
        (
            {"blend_source": "square", "blend_target": "()"},
            "blend_target holds '()', in which the text encoder finds no word: write one of the prompt's.",
        ),
    ],
)
def test_what_is_refused_with_the_text_encoder(changes, message, node, clip):
    with pytest.raises(ValueError) as error:
        node.execute(**{**DEFAULTS, "clip": clip, **changes})
    assert str(error.value) == message


def test_what_is_right_passes(node):
    assert validated(node) is True
    assert validated(node, reweight="red: 2", blend_source="square", blend_target="circle", blend_start=0.5) is True


def test_what_comes_from_other_nodes_is_not_known_yet(node):
    assert validated(node, **dict.fromkeys(DEFAULTS)) is True
    assert validated(node, blend_source=None, blend_target="circle", blend_threshold=0.5) is True
    assert "blend_source is empty" in validated(node, reweight=None, blend_target="circle")


def test_no_text_encoder(node):
    with pytest.raises(RuntimeError, match="^clip is None"):
        node.execute(**{**DEFAULTS, "clip": None})


def test_a_scheduled_text_encoder_is_refused(node, clip):
    import comfy.hooks

    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.5, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks = comfy.hooks.create_hook_lora(lora={}, strength_model=1.0, strength_clip=1.0)
    hooks.set_keyframes_on_hooks(keyframes)
    scheduled = clip.clone()
    scheduled.patcher.forced_hooks, scheduled.use_clip_schedule = hooks, True
    with pytest.raises(ValueError, match="^This text encoder is scheduled over the steps"):
        node.execute(**{**DEFAULTS, "clip": scheduled})


def test_a_text_encoder_that_adds_embeddings_is_refused(node, clip):
    """As packs do that put their own ones behind the text's."""

    class Longer(type(clip)):
        def encode_from_tokens_scheduled(self, *args, **kwargs):
            found = super().encode_from_tokens_scheduled(*args, **kwargs)
            return [[torch.cat([text, text[:, :4]], dim=1), options] for text, options in found]

    longer = clip.clone()
    longer.__class__ = Longer
    with pytest.raises(ValueError, match="^This text encoder makes 81 embeddings of a prompt of 77 tokens"):
        node.execute(**{**DEFAULTS, "clip": longer})
