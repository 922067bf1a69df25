"""The node that maps words of the source prompt to words of the target prompt."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.prompt import Prompt, reweight_factors, word_tokens
from ..ei2.prompt_control import SELF_MAPS, UNCONDITIONAL, Blend, Control
from ..ei2.token_alignment import MODES, token_map
from ..ei2.user_text import short
from ..ei2.word_lists import check_count, listed_words, parse_reweight
from ..host.clip import encode, read_prompt
from ..host.newer import ADVANCED, searchable
from ..host.ui import plain
from .pictures.control_report import describe

THRESHOLD, START = 0.3, 0.2  # LocalBlend's defaults

MODE_TOOLTIP = (
    "How attention follows the source. replace: word for word, for prompts with the same number of words; a word is "
    "whatever stands between spaces. refine: words that both prompts share follow the source, new ones are free. "
    "auto: replace if both prompts have the same number of words and the shared ones are in the same places, "
    "otherwise refine; the report says which."
)
CROSS_TOOLTIP = (
    "Fraction of the steps, from the start, that reuse the source's cross-attention. More keeps shapes and places; "
    "less gives the edit more freedom. Video-P2P: 0.2. Vid2Vid-zero: 0.8 with replace, 0.4 with refine."
)
SELF_TOOLTIP = (
    "Fraction of the steps, from the start, that reuse the source's self_maps. More keeps its motion. Video-P2P: 0.5. "
    "Vid2Vid-zero: 0."
)
UNCONDITIONAL_TOOLTIP = (
    "Where the embeddings of a null-text inversion are used; without one it makes no difference. decoupled: the "
    "source uses them, the edit uses the plain negative prompt (Video-P2P). late: both use them, from half of the "
    "steps on (Vid2Vid-zero)."
)


class AttentionControl(io.ComfyNode):
    """Prompt-to-Prompt between a source and a target prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="EI2_AttentionControl",
            display_name="EI2 Attention Control (Prompt-to-Prompt)",
            category="EI2",
            description="Reuses the source video's attention in the edit, so that only what the changed words "
            "describe changes. The defaults are Video-P2P's.",
            **searchable(
                "prompt to prompt, p2p, attention replace, attention reweight, local blend, "
                "replace object, keep background"
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder."),
                io.String.Input(
                    "source_prompt", multiline=True, default="", tooltip="What the clip shows, in plain words."
                ),
                io.String.Input(
                    "target_prompt",
                    multiline=True,
                    default="",
                    tooltip="What the edited clip shows: the source prompt with a few words changed.",
                ),
                io.Combo.Input("mode", options=list(MODES), default="auto", tooltip=MODE_TOOLTIP),
                io.Float.Input("cross_replace", default=0.2, **share, tooltip=CROSS_TOOLTIP),
                io.Float.Input("self_replace", default=0.5, **share, tooltip=SELF_TOOLTIP),
                io.Combo.Input(
                    "self_maps",
                    options=list(SELF_MAPS),
                    default="temporal",
                    tooltip="Which maps self_replace takes from the source. temporal: attention between frames, its "
                    "motion. spatial: attention within a frame, its layout. both: the two together.",
                ),
                io.String.Input(
                    "reweight",
                    multiline=True,
                    default="",
                    tooltip="Words of the target prompt to strengthen or weaken, on separate lines or separated by "
                    'commas: "red: 2" doubles red, "red: 0.5" halves it. Acts in all steps; the original '
                    "methods stop it after the fraction cross_replace. Empty: no change.",
                ),
                io.String.Input(
                    "blend_source",
                    default="",
                    tooltip="LocalBlend: the picture changes only where these words of the source prompt or those of "
                    "blend_target are; the rest stays the source. Separate words with commas, such as "
                    '"car". Empty: off.',
                ),
                io.String.Input(
                    "blend_target",
                    default="",
                    tooltip='The same for words of the target prompt, such as "tractor". Required with blend_source.',
                ),
                io.Float.Input(
                    "blend_threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Only with blend words; otherwise leave it at 0.3. How strongly a place must attend to a "
                    "word to count, as a fraction of the highest value. Lower changes a larger region.",
                ),
                io.Float.Input(
                    "blend_start",
                    default=START,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    **ADVANCED,
                    tooltip="Only with blend words; otherwise leave it at 0.2. Fraction of the steps after which "
                    "LocalBlend begins. Earlier keeps more of the source.",
                ),
                io.Combo.Input(
                    "unconditional",
                    options=list(UNCONDITIONAL),
                    default="decoupled",
                    **ADVANCED,
                    tooltip=UNCONDITIONAL_TOOLTIP,
                ),
            ],
            outputs=[
                io.Custom("EI2_CONTROL").Output(display_name="control", tooltip="For EI2 Edit Sample."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="The target prompt, for EI2 Edit Sample's positive."
                ),
                io.String.Output(
                    display_name="report", tooltip="Which words map to which, and which mode was chosen; for a preview."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, reweight, blend_source, blend_target) -> None:
        """Checks free text. The host repeats the message for every input named here, so there are no others."""
        check_words(reweight, blend_source, blend_target)

    @classmethod
    def execute(
        cls,
        clip,
        source_prompt,
        target_prompt,
        mode,
        cross_replace,
        self_replace,
        self_maps,
        reweight,
        blend_source,
        blend_target,
        blend_threshold,
        blend_start,
        unconditional,
    ) -> io.NodeOutput:
        for name, text in (("source_prompt", source_prompt), ("target_prompt", target_prompt)):
            if not text.strip():
                raise ValueError(f"{name} is empty: write what the {'clip' if 'source' in name else 'edit'} shows.")
        check_blend(bool(listed_words(blend_source)), blend_threshold, blend_start)
        source, target = _prompt(clip, source_prompt, "source"), _prompt(clip, target_prompt, "target")
        tokens, chosen = token_map(source, target, mode)
        weights = [(_word(clip, word, "reweight"), factor) for word, factor in parse_reweight(reweight)]
        old, new = (
            [_word(clip, word, name) for word in listed_words(text)]
            for name, text in (("blend_source", blend_source), ("blend_target", blend_target))
        )
        blend = None
        if old:
            marks = word_tokens(source, old, "source"), word_tokens(target, new, "target")
            blend = Blend(*marks, blend_threshold, blend_start)
        factors = reweight_factors(target, weights)
        control = Control(
            source,
            target,
            _conditioning(clip, source_prompt, source),
            _conditioning(clip, target_prompt, target),
            tokens,
            factors,
            cross_replace,
            self_replace,
            self_maps,
            unconditional,
            blend,
        )
        report = plain(describe(control, chosen, mode == "auto", weights, old, new))
        return io.NodeOutput(control, control.target_conditioning, report)


def check_words(reweight: str | None, blend_source: str | None, blend_target: str | None) -> None:
    """Checks that need no text encoder. None: not known yet, because the value comes from another node. Raises
    `ValueError` for a reweight line that cannot be parsed, and for blend words on one side only."""
    parse_reweight(reweight or "")
    if blend_source is None or blend_target is None:
        return
    old, new = listed_words(blend_source), listed_words(blend_target)
    check_count(old, "blend_source")
    check_count(new, "blend_target")
    if bool(old) != bool(new):
        filled, empty = ("blend_source", "blend_target") if old else ("blend_target", "blend_source")
        raise ValueError(
            f"{filled} is {', '.join((old or new)[:10])}, but {empty} is empty: give the words in both prompts, or "
            "none."
        )


def check_blend(on: bool, threshold: float, start: float) -> None:
    """Raises `ValueError` if LocalBlend's options are changed while it is off."""
    for name, value, default in (("threshold", threshold, THRESHOLD), ("start", start, START)):
        if not on and value != default:
            raise ValueError(
                f"blend_{name} {value} has no effect without blend words: fill in blend_source and blend_target, or "
                f"set it back to {default}."
            )


def _prompt(clip, text: str, name: str) -> Prompt:
    prompt = read_prompt(clip, text)
    if not prompt.texts:
        raise ValueError(f"{name}_prompt is {short(text)}, in which the text encoder finds no words: write some.")
    return prompt


def _word(clip, text: str, name: str) -> Prompt:
    word = read_prompt(clip, text)
    if not word.texts:
        raise ValueError(
            f"{name} holds {short(text)}, in which the text encoder finds no word: write one of the prompt's."
        )
    return word


def _conditioning(clip, text: str, prompt: Prompt) -> list:
    """The encoded prompt. Raises `ValueError` unless it is one embedding with a row per token."""
    conditioning = encode(clip, text)
    if len(conditioning) != 1:
        raise ValueError(
            "This text encoder is scheduled over the steps and gives several embeddings for one prompt, which "
            "attention control cannot follow: connect the clip without scheduled hooks."
        )
    rows = conditioning[0][0].shape[1]
    if rows != len(prompt):
        raise ValueError(
            f"This text encoder makes {rows} embeddings of a prompt of {len(prompt)} tokens, so words "
            "cannot be distinguished: connect the checkpoint's own clip."
        )
    return conditioning
