"""What newer hosts do with layers and dtypes, tried on any: no weights until a state dict is loaded, which keeps its
dtype (dynamic VRAM, ComfyUI 0.16 and later); and what is done where the host pages weights."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


def lazy(linear: type[torch.nn.Linear]) -> type[torch.nn.Linear]:
    """The host's layer as dynamic VRAM makes it."""

    class Lazy(linear):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features = in_features, out_features
            self.weight = self.bias = None

        def _load_from_state_dict(self, state, prefix, *args):
            for name in ("weight", "bias"):
                if prefix + name in state:
                    setattr(self, name, torch.nn.Parameter(state[prefix + name].clone(), requires_grad=False))

    return Lazy


@pytest.mark.parametrize(
    "options", [{"normalization": "bounded"}, {"normalization": "strict"}, {"temporal": "attention"}], ids=str
)
def test_layers_without_weights_when_they_are_made(
    options, monkeypatch, model, inflate, tune, evaluate, source, random_clip
):
    """Inflated, tuned and applied: the same as with layers that have weights from the start."""
    import comfy.ops

    def work():
        inflated = inflate(model, **options)
        tuned, result = tune(inflated, random_clip(), steps=2)
        return result.losses, evaluate(inflated, random_clip(), source), evaluate(tuned, random_clip(), source)

    losses, untuned, tuned = work()
    monkeypatch.setattr(comfy.ops.manual_cast, "Linear", lazy(comfy.ops.manual_cast.Linear))
    lazy_losses, lazy_untuned, lazy_tuned = work()
    assert lazy_losses == losses and torch.equal(lazy_untuned, untuned) and torch.equal(lazy_tuned, tuned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_temporal_modules_are_loaded_in_the_dtype_they_compute_in(dtype, monkeypatch, pack, model, inflate):
    import comfy.ops

    monkeypatch.setattr(comfy.ops.manual_cast, "Linear", lazy(comfy.ops.manual_cast.Linear))
    clone = model.clone()
    clone.set_model_compute_dtype(dtype)
    stack = pack("host.inflation").inflation_of(inflate(clone)).stack
    assert {weight.dtype for weight in stack.state_dict().values()} == {dtype}


def test_the_miniature_is_float32_whatever_its_files_hold(monkeypatch, pack):
    """Where loading takes over a file's tensors instead of copying into float32."""
    load = torch.nn.Module.load_state_dict
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", partial_method(load, assign=True))
    model, clip, vae = pack("host.miniature").load_miniature()
    for module in (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def partial_method(function, **fixed):
    return lambda self, *args, **kwargs: function(self, *args, **{**kwargs, **fixed})


def test_temporal_modules_are_the_hosts_kind_of_model(monkeypatch, pack, model, inflate):
    """One patcher of another kind makes the host free memory the old way for all models."""
    import comfy.model_patcher

    class Core(comfy.model_patcher.ModelPatcher):
        pass

    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Core, raising=False)
    assert all(isinstance(one, Core) for one in inflate(model).get_additional_models())
    assert isinstance(pack("host.miniature").load_miniature()[0], Core)


@pytest.fixture
def paged(monkeypatch, pack):
    """The miniature as a MODEL whose weights the host pages: its layers do not compute with `module.weight`, and only
    a copy made for it has ordinary ones. `paged(reloads)`: whether the loader says how to make one."""
    import comfy.model_patcher

    class Paged(comfy.model_patcher.ModelPatcher):
        cached_patcher_init = None

        def is_dynamic(self):
            return True

        def clone(self, disable_dynamic=False, **options):
            if disable_dynamic:
                function, arguments = self.cached_patcher_init
                base, kind = function(*arguments, disable_dynamic=True).model, comfy.model_patcher.ModelPatcher
            else:
                base, kind = self.model, Paged
            copy = super().clone()
            plain = kind(base, copy.load_device, copy.offload_device)
            vars(plain).update({name: value for name, value in vars(copy).items() if name not in ("model", "backup")})
            plain.cached_patcher_init = self.cached_patcher_init
            return plain

    def paged(reloads: bool = True):
        monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Paged, raising=False)
        model = pack("host.miniature").load_miniature()[0]
        model.cached_patcher_init = model.cached_patcher_init if reloads else None
        return model

    return paged


def test_training_leaves_paged_weights_alone(paged, model, inflate, tune, invert, source, encode, random_clip):
    """Equal losses and embeddings, computed on a copy: no layer of the paged model gets another weight."""
    clip, dynamic = random_clip(), paged()
    before = {name: id(weight) for name, weight in dynamic.model.named_parameters()}
    (_, found), (_, expected) = (tune(inflate(one), clip, steps=2) for one in (dynamic, model))
    assert found.losses == expected.losses
    options = dict(null_text=True, null_inner_steps=1, null_cfg=4.0, empty=encode(""))
    embeddings = [invert(one, clip, source, 2, **options)[0].unconditional for one in (dynamic, model)]
    assert torch.equal(*embeddings)
    assert {name: id(weight) for name, weight in dynamic.model.named_parameters()} == before


def test_a_paged_model_that_cannot_be_loaded_twice_is_refused(
    paged, inflate, invert, source, encode, random_clip, pack
):
    model, clip = inflate(paged(reloads=False)), random_clip()
    expected = 'pages this model.s weights .dynamic VRAM.*load it with ComfyUI.s "Load Checkpoint"'
    with pytest.raises(ValueError, match=expected):
        pack("nodes.one_shot_tune").OneShotTune.execute(model, {"samples": clip}, source, 1, 1e-3, 0, "auto", "auto")
    with pytest.raises(ValueError, match=expected):
        invert(model, clip, source, 1, null_text=True, empty=encode(""))
    invert(model, clip, source, 1)  # needs no training
