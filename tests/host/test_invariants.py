"""What must hold for every admissible combination of the Advanced node's options, on the miniature's real UNet.

There are 860 of them, which take three minutes. By default a seventh is run, in which any three values that can meet do
meet; with EI2_ALL_COMBINATIONS=1 in the environment all are.

The UNet is called directly, with the inflation as its wrapper; the same through the host's guider, models and nodes is
in `test_inflation.py` and `test_leaks.py`. "Tuned" means temporal modules with random weights in all layers, restricted
as tuning does it, and applied as a tune.
"""

from __future__ import annotations

import os
from itertools import combinations, product

import numpy as np
import pytest
import torch

from ei2.settings import CHOICES, InflationSettings

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

COARSE_FACTORS = (1, 2, 4)
TEMPORAL = ("temporal", "centering", "normalization", "normalization_scope")  # what the temporal modules depend on
ORDER = torch.tensor([2, 0, 1])
LOOKS_AT_THE_FIRST_FRAME = ("sca", "first_frame", "dense_sca")  # so the order of frames matters


def admissible() -> list[InflationSettings]:
    """All combinations that the settings do not refuse."""
    found = []
    for values in product(COARSE_FACTORS, *CHOICES.values()):
        try:
            found.append(InflationSettings(**dict(zip(("coarse_factor", *CHOICES), values))))
        except ValueError:
            pass
    return found


def triples(settings: InflationSettings) -> set[tuple]:
    """Which three values meet in a combination."""
    return set(combinations(settings.to_dict().items(), 3))


def covering(every: list[InflationSettings]) -> list[InflationSettings]:
    """Few combinations with all triples of all: always the one that adds most."""
    adds, chosen = {settings: triples(settings) for settings in every}, []
    while any(adds.values()):
        best = max(every, key=lambda settings: len(adds[settings]))
        chosen.append(best)
        gained = adds[best]
        adds = {settings: added - gained for settings, added in adds.items()}
    return chosen


ALL = admissible()
COMBINATIONS = ALL if os.environ.get("EI2_ALL_COMBINATIONS") else covering(ALL)
KINDS = {" ".join(getattr(settings, name) for name in TEMPORAL): settings for settings in ALL}
del KINDS["none frames bounded qkvo"]  # no modules


def name_of(settings: InflationSettings) -> str:
    """What differs from EI²."""
    default = InflationSettings().to_dict()
    return " ".join(str(value) for name, value in settings.to_dict().items() if value != default[name]) or "EI2"


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


class Lab:
    """The UNet, its inputs, and temporal modules that are made once per kind."""

    def __init__(self, model, pack, inflate, encode, random_clip):
        import comfy.model_management
        from comfy.patcher_extension import WrappersMP

        comfy.model_management.load_models_gpu([model])  # with its own weights, whatever was loaded last
        self.model, self.pack, self.inflate = model, pack, inflate
        self.unet, self.wrappers = model.model.diffusion_model, WrappersMP.DIFFUSION_MODEL
        texts = ("a red circle on a striped blue background", "a green star on a plain background")
        self.prompts = [encode(text)[0][0].to(torch.float32) for text in texts]
        self.clip = random_clip(frames=3) / 5
        self.still = self.clip[:1].expand(3, -1, -1, -1)
        self.weights = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
        self.stacks, self.results = {}, {}

    def call(self, clip, prompts=(0,), settings: InflationSettings | None = None, tuned: bool = False) -> torch.Tensor:
        """What the UNet predicts for a clip `f 4 h w` with one or more prompts in one batch, `(prompts f) 4 h w`."""
        options = {"cond_or_uncond": list(prompts)}
        if settings is not None:
            inflated = self.pack("host.inflation").InflatedUNet(settings, self.stack(settings, tuned))
            options["wrappers"] = {self.wrappers: {"EI2": [inflated]}}
        context = torch.cat([self.prompts[i].expand(len(clip), -1, -1) for i in prompts])
        x = clip.repeat(len(prompts), 1, 1, 1)
        return self.unet(x, torch.full((len(x),), 500.0), context, transformer_options=options)

    def once(self, clip: str, frames: int, settings: InflationSettings | None = None) -> torch.Tensor:
        """A result that several combinations are compared with, the host's or an untuned one."""
        key = (clip, frames, settings)
        if key not in self.results:
            self.results[key] = self.call(getattr(self, clip)[:frames], settings=settings)
        return self.results[key]

    def stack(self, settings: InflationSettings, tuned: bool):
        """The temporal modules as inflation, or as a tune with random weights, leaves them."""
        key = (tuned, *(getattr(settings, name) for name in TEMPORAL))
        if key not in self.stacks:
            inflation = self.pack("host.inflation")
            options = {**settings.to_dict(), "position": InflationSettings.position}
            inflated = self.inflate(self.model, **options)
            if tuned:
                inflated = inflation.apply_tune(inflated, self.random_tune(inflation.inflation_of(inflated)))
            self.stacks[key] = inflation.inflation_of(inflated).stack
        return self.stacks[key]

    def random_tune(self, inflated):
        stacks, settings = self.pack("host.temporal_stack"), inflated.settings
        blocks = self.pack("host.unet").transformer_blocks(self.unet)
        stack = stacks.TemporalStack.build(blocks, settings, torch.nn.Linear)
        generator = torch.Generator().manual_seed(1)
        for parameter in stack.parameters():
            parameter.normal_(std=0.1, generator=generator)
        for module in stack.values() if settings.temporal == "stam" else ():
            module.restrict(settings.normalization, settings.normalization_scope)
        layers = {
            f"{block.path}.{name}.weight": block.module.get_submodule(name).weight
            for block in blocks
            for name in self.pack("host.inflation").QUERIES
        }
        query = {name: torch.zeros_like(weight) for name, weight in layers.items()}
        return self.pack("ei2.tune_file").TuneResult(settings, stacks.effective_state(stack), query, frames=3)


@pytest.fixture(scope="module")
def lab(model, pack, inflate, encode, random_clip):
    with torch.inference_mode():
        return Lab(model, pack, inflate, encode, random_clip)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=name_of)
def test_every_combination(settings, lab):
    clip = lab.clip

    # one untuned frame is the host's picture
    frame = lab.call(clip[:1], settings=settings)
    assert torch.isfinite(frame).all()
    moved = difference(frame, lab.once("clip", 1))
    if settings.normalization == "strict" and settings.centering != "frames":
        assert moved > 1e-3  # W_O cannot start at zero; only over one frame centering leaves nothing to mix
    else:
        assert moved <= 1e-5

    # several untuned frames are the host's pictures, where nothing lets frames see each other
    if settings.spatial == "none" and settings.group_norm == "frame" and settings.normalization != "strict":
        assert difference(lab.call(clip, settings=settings), lab.once("clip", 3)) <= 1e-5

    # permuting the frames permutes the output
    alone = [lab.call(clip, (i,), settings, tuned=True) for i in (0, 1)]
    assert torch.isfinite(alone[0]).all()
    moved = difference(lab.call(clip[ORDER], (0,), settings, tuned=True), alone[0][ORDER])
    assert moved > 1e-3 if settings.spatial in LOOKS_AT_THE_FIRST_FRAME else moved <= 1e-4

    # two prompts in one batch are the same as in two calls
    both = lab.call(clip, (0, 1), settings, tuned=True)
    assert difference(both, torch.cat(alone)) <= 1e-4
    assert difference(*alone) > 1e-3

    # a still clip is left alone by the tuned STAM
    if settings.temporal == "stam" and settings.centering == "frames":
        without = InflationSettings(
            settings.spatial, settings.coarse_factor, settings.coarse_pool, "none", group_norm=settings.group_norm
        )
        still = lab.call(lab.still, settings=settings, tuned=True)
        assert difference(still, lab.once("still", 3, without)) <= 1e-4

    # the model is what it was
    state = lab.model.model.state_dict()
    assert state.keys() == lab.weights.keys()
    assert all(torch.equal(tensor, lab.weights[name]) for name, tensor in state.items())
    assert torch.equal(lab.call(clip[:1]), lab.once("clip", 1))


def test_the_default_selection_meets_every_choice():
    """And the settings refuse only what has no effect: each choice of each option is left somewhere."""
    for name, values in {**CHOICES, "coarse_factor": COARSE_FACTORS}.items():
        assert {getattr(settings, name) for settings in COMBINATIONS} == set(values), name
    assert set().union(*map(triples, COMBINATIONS)) == set().union(*map(triples, ALL))


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_every_kind_of_temporal_module(settings, lab):
    """The matrices that a tune leaves are bounded, the mean is gone, and a still clip is left alone: in every block."""
    largest = {name: [] for name in ("to_q", "to_k", "to_v", "to_out")}
    for module in lab.stack(settings, tuned=True).values():
        for name, values in largest.items():
            values.append(np.linalg.svd(getattr(module, name).weight.double().numpy(), compute_uv=False)[0])
        video = torch.randn(1, 5, 7, module.to_q.weight.shape[1], generator=torch.Generator().manual_seed(0)) + 3
        axes = {"frames": 1, "frames_space": (1, 2), "channels": 3}.get(settings.centering)
        if settings.temporal == "stam" and axes is not None:
            assert module.normalize(video).mean(axes).abs().max() <= 1e-6
        still = video[0, :1].expand(5, -1, -1)
        change = difference(module(still, 5), still)
        if settings.temporal == "stam" and settings.centering == "frames":
            assert change <= 1e-5
        else:
            assert change > 1e-3  # what Layer Norm, and a mean over other axes, do not spare
    restricted = {"qkvo": {"to_q", "to_k", "to_v", "to_out"}, "vo": {"to_v", "to_out"}}[settings.normalization_scope]
    for name, values in largest.items():
        if settings.temporal == "stam" and settings.normalization != "off" and name in restricted:
            assert np.abs(np.array(values) - 1).max() <= 1e-3, name  # the random ones are all larger than 1
        else:
            assert min(values) > 1.1, name
