"""The node that sets starting values for a kind of edit in one place, and explains them."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..ei2.user_text import short
from ..host.newer import searchable
from ..host.ui import shown

MODEL_KINDS = ("Stable Diffusion", "bundled miniature")


@dataclass(frozen=True)
class Recipe:
    """Starting values for one kind of edit. `cfg` and `cross_replace` have one value per kind of model, in the
    order of `MODEL_KINDS`; `purpose`: what the recipe is for; `control`: how to fill in attention control;
    `fails`: when it fails, and what to do then."""

    purpose: str
    control: str
    fails: str
    steps: tuple[int, int]
    cfg: tuple[float, float]
    cross_replace: tuple[float, float]


# The miniature's learning rate and steps are those of the workflows with fixed steps; Stable Diffusion's are within the
# range of EI2 One-Shot Tune's help page; cross_replace is between Video-P2P's (0.2) and Vid2Vid-zero's (0.8). See
# docs/choices.md.
LEARNING_RATE = (3e-5, 3e-3)
SELF_REPLACE = 0.5  # Video-P2P's; it acts on the temporal maps, which carry the motion
RECIPES = {
    "recolour / restyle": Recipe(
        "other colours, materials or a style; every outline stays",
        "use the same words in both prompts except the new colour or style; for a style leave the blend words empty, "
        "for a colour name the object in both",
        "the old colour shows through: raise cfg, then reweight the new word with 1.5 to 2; outlines drift: raise "
        "cross_replace; a style that needs other outlines (pixel art, cubism): use the recipe 'swap the object'",
        (300, 25),
        (7.5, 3.0),
        (0.6, 0.4),
    ),
    "swap the object": Recipe(
        "another object that moves as the old one did",
        "replace only the object's words; name the old ones in blend_source and the new ones in blend_target to keep "
        "the rest",
        "the old shape comes back: lower cross_replace to 0, then tune with fewer steps; the new object strays or "
        "flickers: raise cross_replace; it cannot fill another outline (a bus for a bicycle): leave the blend words "
        "empty",
        (300, 25),
        (10.0, 3.0),
        (0.2, 0.2),
    ),
    "new background": Recipe(
        "another place around the same object",
        "replace only the background's words; leave the blend words empty",
        "the old background's pattern comes back, because the inverted noise holds it: raise cfg, then tune with "
        "fewer steps; the object changes too: raise cross_replace, or describe it in more detail in both prompts",
        (300, 25),
        (10.0, 4.0),
        (0.4, 0.4),
    ),
    "subtle": Recipe(
        "as little change as possible: a detail, a season, a light",
        "change a single word, and name it (or what it belongs to) in both blend fields",
        "nothing changes: lower cross_replace in steps of 0.2, then raise cfg; too much changes: raise blend_threshold "
        "to 0.5 or 0.7",
        (500, 25),
        (7.5, 3.0),
        (0.8, 0.6),
    ),
}


class RecipeNode(io.ComfyNode):
    """Starting values for a kind of edit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_Recipe",
            display_name="EI2 Recipe (Restyle, Swap, Background)",
            category="EI2",
            description="Starting values for a kind of edit. Connect them to EI2 One-Shot Tune, EI2 Attention Control "
            "and EI2 Edit Sample. A note says what to do if the edit fails.",
            **searchable(
                "restyle, style transfer, recolour, recolor, replace object, swap object, background, starting values",
                has_intermediate_output=True,
            ),
            inputs=[
                io.Combo.Input("recipe", options=list(RECIPES), default=next(iter(RECIPES)), tooltip=_tooltip()),
                io.Combo.Input(
                    "model_kind",
                    options=list(MODEL_KINDS),
                    default=MODEL_KINDS[0],
                    tooltip="Stable Diffusion: any checkpoint of yours. bundled miniature: EI2 Load Miniature Model, "
                    "which learns faster and needs less guidance.",
                ),
            ],
            outputs=[
                io.Int.Output(display_name="steps", tooltip="For steps of EI2 One-Shot Tune."),
                io.Float.Output(display_name="learning_rate", tooltip="For learning_rate of EI2 One-Shot Tune."),
                io.Float.Output(
                    display_name="cfg",
                    tooltip="For cfg of EI2 Edit Sample, of the edit. The reconstruction and EI2 Carry Key Frame keep "
                    "cfg 1.",
                ),
                io.Float.Output(display_name="cross_replace", tooltip="For cross_replace of EI2 Attention Control."),
                io.Float.Output(display_name="self_replace", tooltip="For self_replace of EI2 Attention Control."),
                io.String.Output(
                    display_name="note", tooltip="What was set, and what to do if the edit fails; for a preview."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, recipe, model_kind) -> None:
        for name, value, choices in (("recipe", recipe, RECIPES), ("model_kind", model_kind, MODEL_KINDS)):
            if value is not None and value not in choices:
                raise ValueError(f"There is no {name} {short(value)}: choose one of {', '.join(choices)}.")

    @classmethod
    def execute(cls, recipe, model_kind) -> io.NodeOutput:
        kind = MODEL_KINDS.index(model_kind)
        chosen = RECIPES[recipe]
        values = (chosen.steps[kind], LEARNING_RATE[kind], chosen.cfg[kind], chosen.cross_replace[kind], SELF_REPLACE)
        note = describe(recipe, kind)
        return io.NodeOutput(*values, note, ui=shown(cls, text=note))


def describe(name: str, kind: int) -> str:
    """What a recipe sets, how to fill in the rest, and when it fails. `kind`: of the model, in `MODEL_KINDS`."""
    recipe = RECIPES[name]
    return (
        f"{name} ({MODEL_KINDS[kind]}): {recipe.purpose}.\n"
        f"Sets: EI2 One-Shot Tune steps {recipe.steps[kind]}, learning_rate {LEARNING_RATE[kind]:g}; EI2 Attention "
        f"Control cross_replace {recipe.cross_replace[kind]:g}, self_replace {SELF_REPLACE:g}; EI2 Edit Sample cfg "
        f"{recipe.cfg[kind]:g}.\n"
        f"Attention control: {recipe.control}.\n"
        f"When it fails: {recipe.fails}.\n"
        "If the source comes back whatever you write, tune with fewer steps; if the motion is lost, with more."
    )


def _tooltip() -> str:
    return "The kind of edit. " + " ".join(f"{name}: {recipe.purpose}." for name, recipe in RECIPES.items())
