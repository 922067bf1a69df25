"""Turns the host's image UNet into a video UNet during each call, and leaves nothing behind.

Everything is done by one wrapper around the UNet's forward. It belongs to a clone of the MODEL; the modules that all
clones share have hooks only during the call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch.utils.hooks import RemovableHandle

from ..ei2.checked import Damaged, same_shapes
from ..ei2.ffam import anchored_attention, coarse_tokens, fine_coarse_attention
from ..ei2.frame_attention import dense_attention, dense_places, first_frame_attention, sparse_causal_attention
from ..ei2.settings import InflationSettings
from ..ei2.tune_file import TuneResult
from ..ei2.user_text import printable_name
from ..ei2.video_group_norm import hook_group_norm
from ..ei2.windows import CoarseTokens
from .graph import running_node
from .newer import core_patcher
from .temporal_stack import TemporalStack, host_stack
from .ui import warn, warn_in_node
from .unet import (
    Block,
    Call,
    attend_by_host,
    hook_text_projections,
    require_unet,
    transformer_blocks,
    video_group_norms,
)
from .windows import WHOLE_CLIP, WINDOW, OwnWindows, VideoWindows

KEY = "EI2"
QUERIES = ("attn1.to_q", "attn2.to_q")  # of each block: the layers that tuning adds to
SAVERS = ("ModelSave", "CheckpointSave")  # the host's nodes that write a MODEL to a file
NOT_SAVED = (
    "The temporal modules are not in the file, only the image model with its tuned queries: save the tune with "
    "EI2 Save Tune, and apply it to the model again with EI2 Apply Tune."
)
LayerHook = Callable[[], list[RemovableHandle]]  # puts hooks on one layer


class InflatedUNet:
    """The wrapper: during a call, the UNet's batch `(chunks frames) c h w` is a batch of videos.

    `stack` may be on any device: the host moves it as an additional model. `tune`: the origin of its weights and of the
    additions to the MODEL's q projections. `warned`: warnings already given; a tuned model does not repeat them.
    """

    def __init__(
        self,
        settings: InflationSettings,
        stack: torch.nn.Module,
        tune: TuneResult | None = None,
        warned: set[str] | None = None,
    ):
        self.settings = settings
        self.stack = stack
        self.tune = tune
        self.warned = set() if warned is None else warned

    @torch.compiler.disable  # ComfyUI's compiled models do not see that the options of a call have changed
    def __call__(self, executor, *args, **kwargs):
        call = Call(args, kwargs)
        return self.run(executor, call, self.layer_hooks(executor.class_obj, call.frames))

    def run(self, executor, call: Call, layers: list[tuple[torch.nn.Module, LayerHook]]):
        """The UNet's output. `layers`: layers that behave differently, and the hooks that make them."""
        blocks = transformer_blocks(executor.class_obj)
        with ExitStack() as hooks:
            if self.settings.spatial != "none":
                self._replace_self_attention(blocks, call)
            if len(self.stack):
                self._add_temporal_modules(blocks, call, hooks)
            for _, hook in layers:
                for handle in hook():
                    hooks.callback(handle.remove)
            if not torch.is_grad_enabled():
                for handle in hook_text_projections(blocks, call.text, call.frames):
                    hooks.callback(handle.remove)
            return executor(*call.args, **call.kwargs)

    def layer_hooks(self, unet, frames: int) -> list[tuple[torch.nn.Module, LayerHook]]:
        """The layers of the UNet that behave differently with these settings, and the hooks that make them."""
        if self.settings.group_norm == "frame":
            return []
        return [(norm, partial(hook_group_norm, norm, frames)) for norm in video_group_norms(unet)]

    def _replace_self_attention(self, blocks: list[Block], call: Call) -> None:
        attn1 = call.replacements("attn1")
        others, foreign = set(attn1), []
        kinds = dict.fromkeys((block.full_place for block in blocks), self.settings.spatial)
        if self.settings.spatial == "dense_sca":
            dense = dense_places(kinds)
            kinds = {place: "dense" if place in dense else "sca" for place in kinds}
        for block in blocks:
            if block.full_place in others or block.place in others:
                foreign.append(block.path)
            else:
                spatial = kinds[block.full_place]
                attend = partial(self._attend_frames, frames=call.frames, spatial=spatial, path=block.path)
                attn1[block.full_place] = attend
        if foreign:
            self._warn_once(
                f"Another node replaces the self-attention of {len(foreign)} of {len(blocks)} blocks "
                f"({', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''}): in these blocks, frames do not "
                "attend to each other. If frames drift apart, remove that node.",
                "taken",
            )

    def _attend_frames(self, q, k, v, extra_options: dict, frames: int, spatial: str, path: str) -> torch.Tensor:
        """Called by the host in place of a block's self-attention, with projected `(b f) d c` tokens."""
        attend = attend_by_host(extra_options)
        height, width = extra_options["activations_shape"][2:]
        if not q.shape[1] == k.shape[1] == height * width:
            self._warn_once(
                "Another node changes the number of tokens in self-attention (as HyperTile and ToMe do): there, "
                "frames do not attend to each other. If frames drift apart, remove that node.",
                "tokens",
            )
            return attend(q, k, v)
        if spatial == "ffam":
            pooling = (height, width, self.settings.coarse_factor, self.settings.coarse_pool)
            shared: CoarseTokens | None = extra_options.get(WHOLE_CLIP)
            if shared is not None:
                # the host may run prompts separately; it gives a negative for a positive's area the positive's id
                prompts = zip(extra_options["cond_or_uncond"], extra_options["uuids"])
                places = [(path, *prompt) for prompt in prompts]
                if shared.recording:
                    shared.keep(places, *(coarse_tokens(t, *pooling) for t in (k, v)))
                elif (tokens := shared.of(places)) is not None:
                    own = shared.own(extra_options[WINDOW].index_list)
                    return anchored_attention(q, k, v, *tokens, own, attend)
            return fine_coarse_attention(q, k, v, frames, *pooling, attend)
        rivals = {"sca": sparse_causal_attention, "first_frame": first_frame_attention, "dense": dense_attention}
        return rivals[spatial](q, k, v, frames, attend)

    def _add_temporal_modules(self, blocks: list[Block], call: Call, hooks: ExitStack) -> None:
        frames, modules = call.frames, {block.full_place: self.stack[block.name] for block in blocks}
        if self.settings.position == "after_feed_forward":
            for block in blocks:
                hook = lambda _, __, output, temporal=modules[block.full_place]: temporal(output, frames)
                hooks.callback(block.module.register_forward_hook(hook).remove)
            return

        def after_spatial(x, extra_options):
            return modules[(*extra_options["block"], extra_options["block_index"])](x, frames)

        call.patches("middle_patch").append(after_spatial)

    def _warn_once(self, message: str, subject: str) -> None:
        if subject not in self.warned:
            self.warned.add(subject)
            warn(message)


def inflate(model, settings: InflationSettings):
    """A clone of the MODEL that treats a batch of latents as a video. Replaces an earlier inflation and its tuning.
    Raises `ValueError` for models that cannot be inflated."""
    return attach(deflate(model), settings, host_stack(model, settings))


def attach(
    model,
    settings: InflationSettings,
    stack: TemporalStack,
    tune: TuneResult | None = None,
    warned: set[str] | None = None,
):
    """A clone of the MODEL with the wrapper and its modules; replaces any it had."""
    clone = model.clone()
    detach(clone)
    if len(stack):
        # the host's own class: a different one makes it free memory the old way for all models
        patcher = core_patcher(stack, model.load_device, model.offload_device)
        clone.set_additional_models(KEY, [patcher])
        clone.add_callback_with_key(CallbacksMP.ON_LOAD, KEY, warn_of_saving)
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, InflatedUNet(settings, stack, tune, warned))
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, OwnWindows())
    clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, VideoWindows(settings.spatial == "ffam"))
    return clone


def detach(model) -> None:
    """Removes the wrappers and their modules from a MODEL that is not shared."""
    for kind in (WrappersMP.DIFFUSION_MODEL, WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH):
        model.remove_wrappers_with_key(kind, KEY)
    model.remove_callbacks_with_key(CallbacksMP.ON_LOAD, KEY)
    model.remove_additional_models(KEY)


def warn_of_saving(patcher, device, lowvram: int, to_be_saved: bool = False, *args, **kwargs) -> None:
    """Called by the host when it loads an inflated MODEL, which its saving nodes do too."""
    if to_be_saved or running_node() in SAVERS:
        warn_in_node(NOT_SAVED)


def deflate(model):
    """A clone of the MODEL without inflation and without the tuned additions to its q projections."""
    clone = model.clone()
    inflation = inflation_of(model)
    if inflation is None:
        return clone
    detach(clone)
    ours = {id(delta) for delta in inflation.tune.query.values()} if inflation.tune else set()
    for key, patches in list(clone.patches.items()):
        clone.patches[key] = [patch for patch in patches if not _is_one_of(patch, ours)]
        if not clone.patches[key]:
            del clone.patches[key]
    clone.add_patches({})  # gives the clone a new identity, so the host reloads its weights
    return clone


def apply_tune(model, tune: TuneResult):
    """A clone of an inflated MODEL with tuned weights instead of any it had: temporal modules as its additional model,
    q projections as weight patches. Raises `ValueError` if it is not inflated, or inflated differently."""
    inflation = require_inflation(model)
    if inflation.settings != tune.settings:
        tuned, present = tune.settings.to_dict(), inflation.settings.to_dict()
        names = [name for name in tuned if tuned[name] != present[name]]
        theirs, ours = (", ".join(f"{name} {options[name]}" for name in names) for options in (tuned, present))
        raise ValueError(
            f"The tune was made with {theirs}, but the model is inflated with {ours}: inflate it in the same way."
        )
    _check_fits(model, tune)
    stack = host_stack(model, tune.settings, tune.temporal)
    clone = attach(deflate(model), tune.settings, stack, tune, inflation.warned)
    clone.add_patches({f"diffusion_model.{name}": ("diff", (delta,)) for name, delta in tune.query.items()})
    return clone


def _check_fits(model, tune: TuneResult) -> None:
    """Raises `ValueError` if the names or shapes of the weights are not the model's,
    which only happens with a damaged file."""
    blocks = transformer_blocks(require_unet(model))
    layers = query_layers(blocks)
    stack = TemporalStack.build(blocks, tune.settings, partial(torch.nn.Linear, device="meta"))  # for its shapes
    try:
        same_shapes(tune.temporal, stack.state_dict(), "its temporal modules")
        same_shapes(tune.query, {f"{path}.weight": layer.weight for path, layer in layers.items()}, "its q projections")
    except Damaged as error:
        name = printable_name(tune.file) or "This tune"
        raise ValueError(f"{name} does not fit this model ({error}): tune again on this one.") from error


def query_layers(blocks: list[Block]) -> dict[str, torch.nn.Module]:
    """The q projections that tuning adds to, by their paths in the UNet."""
    return {f"{block.path}.{name}": block.module.get_submodule(name) for block in blocks for name in QUERIES}


def inflation_of(model) -> InflatedUNet | None:
    """The MODEL's inflation, if it has one."""
    return next(iter(model.get_wrappers(WrappersMP.DIFFUSION_MODEL, KEY)), None)


def require_inflation(model) -> InflatedUNet:
    """The MODEL's inflation. Raises `ValueError` if it has none."""
    inflation = inflation_of(model)
    if inflation is None:
        raise ValueError('This model is not inflated: add an "EI2 Inflate UNet" node between the loader and this node.')
    return inflation


def _is_one_of(patch: tuple, identities: set[int]) -> bool:
    value = patch[1]
    return isinstance(value, tuple) and value[0] == "diff" and id(value[1][0]) in identities
