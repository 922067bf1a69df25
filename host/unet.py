"""What the pack needs to know about the host's UNet, and which models it supports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from weakref import WeakKeyDictionary

import comfy.model_base
import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from torch.utils.hooks import RemovableHandle

from ..ei2.ffam import Attend

QUANTIZED = ("QuantizedTensor", "GGMLTensor")  # of newer hosts, and of ComfyUI-GGUF
TEXT_POSITION, OPTIONS_POSITION = 2, 5  # of context and transformer_options among the arguments of UNetModel.forward


@dataclass(frozen=True)
class Block:
    """One transformer block. `path`: inside the UNet; `place` and `index`: as the host's patches name it;
    `downsampling`: how many times wider the latents are than its grid of tokens."""

    path: str
    place: tuple[str, int]
    index: int
    downsampling: float
    module: BasicTransformerBlock

    @property
    def full_place(self) -> tuple[str, int, int]:
        """The host's name for a block among several in one place."""
        return (*self.place, self.index)

    @property
    def name(self) -> str:
        """The path in the form that torch's module dictionaries accept."""
        return self.path.replace(".", "_")

    @property
    def channels(self) -> int:
        return self.module.norm1.weight.shape[0]

    @property
    def heads(self) -> int:
        return self.module.n_heads


def require_unet(model) -> UNetModel:
    """The model's UNet. Raises `ValueError` for models this pack cannot inflate: other architectures, flow models."""
    unet = getattr(model.model, "diffusion_model", None)
    kind = type(unet).__name__
    if not isinstance(unet, UNetModel) or not transformer_blocks(unet):
        raise ValueError(
            f"This model is a {kind}, not a UNet with spatial transformers: load a Stable Diffusion 1.5, 2.x or XL "
            "checkpoint (SD3, Flux, Wan and other transformers cannot be inflated)."
        )
    further = unet.in_channels - unet.out_channels
    if further and not (model.model.concat_keys or isinstance(model.model, comfy.model_base.IP2P)):
        raise ValueError(
            f"This model reads {further} channels in addition to the latents (it may be an upscaler, a novel-view "
            "or a video model), which this pack does not know: use a text-to-image, inpainting or InstructPix2Pix "
            "checkpoint."
        )
    if any(type(weight.data).__name__ in QUANTIZED for weight in unet.parameters()):
        raise ValueError(
            "This model's weights are quantized (scaled fp8, int8 or GGUF), which cannot be trained: load its fp16 or "
            "bf16 file. Plain fp8 works, too."
        )
    prediction(model)
    refuse_several_gpus(bool(model.get_additional_models_with_key("multigpu")))
    return unet


def refuse_several_gpus(several: bool) -> None:
    """Raises `ValueError` for a MODEL that newer hosts (0.33) have copied to several GPUs."""
    if several:
        raise ValueError(
            "This model runs on several GPUs at once, but the temporal modules of an inflated model are on one: remove "
            'the "MultiGPU CFG Split" node.'
        )


def prediction(model) -> str:
    """What the model predicts: `eps` or `v`. Raises `ValueError` for anything else, such as flow models."""
    sampling = model.get_model_object("model_sampling")
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    known = {comfy.model_sampling.EPS: "eps", comfy.model_sampling.V_PREDICTION: "v"}
    # by the formula, not the class: EDM, x0 and LCM are subclasses of these with a different meaning
    formula = getattr(type(sampling), "calculate_denoised", None)
    kind = next((name for base, name in known.items() if base.calculate_denoised is formula), None)
    if not discrete or kind is None:
        if "model_sampling" in model.object_patches:  # the model's own sampling is still there underneath
            raise ValueError(
                f"Another node makes this model sample as {_sampling_name(sampling)}, which cannot be tuned or "
                "inverted by DDIM: remove that node (ModelSamplingDiscrete or another whose name "
                "begins with ModelSampling), or set it to eps or v_prediction; Stable Diffusion 1.5, 2.x and XL need "
                "none."
            )
        raise ValueError(
            "This model predicts neither noise (epsilon) nor v on a discrete schedule (it may be a flow or EDM model), "
            "so it cannot be tuned or inverted by DDIM: use a Stable Diffusion 1.5, 2.x or XL checkpoint."
        )
    return kind


def _sampling_name(sampling) -> str:
    """The host nodes' name for a sampling: lcm, x0, EDM, flow, …"""
    names = [cls.__name__ for cls in type(sampling).__mro__]
    known = {"LCM": "lcm", "X0": "x0", "EDM": "EDM", "CONST": "a flow model", "IMG_TO_IMG": "img_to_img"}
    return next((known[name] for name in names if name in known), names[1] if len(names) > 2 else names[0])


def compute_dtype(model) -> torch.dtype:
    """The dtype the MODEL computes in, which may be larger than its weights' dtype."""
    return model.get_model_object("manual_cast_dtype") or model.model_dtype()


def sigma_schedule(model) -> torch.Tensor:
    """σ of every training timestep, ascending, float32 on the CPU; a copy that autograd may use."""
    return model.get_model_object("model_sampling").sigmas.detach().cpu().float().clone()


def latent_scale(model) -> float:
    """The factor of the MODEL's latents, which belongs to the VAE of its family."""
    return float(model.model.latent_format.scale_factor)


def once_per_unet(look: Callable[[UNetModel], list]) -> Callable[[UNetModel], list]:
    """Caches the result of a function that walks through a UNet, which takes milliseconds, for the UNet's lifetime."""
    known: WeakKeyDictionary[UNetModel, list] = WeakKeyDictionary()

    @wraps(look)
    def remembered(unet: UNetModel) -> list:
        if unet not in known:
            known[unet] = look(unet)
        return known[unet]

    return remembered


@once_per_unet
def transformer_blocks(unet: UNetModel) -> list[Block]:
    """All transformer blocks in execution order."""
    places = [(f"input_blocks.{i}", ("input", i), m) for i, m in enumerate(unet.input_blocks)]
    places += [("middle_block", ("middle", 0), unet.middle_block)] if unet.middle_block is not None else []
    places += [(f"output_blocks.{i}", ("output", i), m) for i, m in enumerate(unet.output_blocks)]
    blocks, downsampling = [], 1.0
    for prefix, place, parent in places:
        for name, module in parent.named_modules():
            if isinstance(module, BasicTransformerBlock):
                index = int(name.rsplit(".", 1)[1])
                blocks.append(Block(f"{prefix}.{name}", place, index, downsampling, module))
            elif isinstance(module, Downsample):
                downsampling *= 2
            elif isinstance(module, Upsample):
                downsampling /= 2
    return blocks


class Call:
    """The arguments of one call of UNetModel.forward. `options`: its transformer_options, copied, so a wrapper's
    additions end with the call. The batch is `(chunks frames) c h w`, a chunk per prompt.

    Raises `ValueError` for a batch that cannot be split into videos of equal length."""

    def __init__(self, args: tuple, kwargs: dict):
        self.args, self.kwargs = list(args), dict(kwargs)
        holder = self.kwargs if "transformer_options" in kwargs else self.args
        place = "transformer_options" if holder is self.kwargs else OPTIONS_POSITION
        self.options = holder[place] = dict(holder[place])
        batch, chunks = args[0].shape[0], len(self.options.get("cond_or_uncond", [0]))
        if batch % chunks:
            raise ValueError(f"A batch of {batch} latents cannot hold {chunks} videos of equal length.")
        self.frames = batch // chunks

    def replacements(self, attention: str) -> dict:
        """The replacements of the attention `attn1` or `attn2` in this call, by place; can be extended."""
        replace = self.options["patches_replace"] = dict(self.options.get("patches_replace", {}))
        replace[attention] = dict(replace.get(attention, {}))
        return replace[attention]

    def patches(self, place: str) -> list:
        """The patches of other nodes at a place of this call; can be extended."""
        patches = self.options["patches"] = dict(self.options.get("patches", {}))
        patches[place] = list(patches.get(place, []))
        return patches[place]

    @property
    def text(self) -> torch.Tensor | None:
        """The prompts' tokens `b l c`."""
        return self.kwargs.get("context", self.args[TEXT_POSITION] if len(self.args) > TEXT_POSITION else None)


def attend_by_host(extra_options: dict) -> Attend:
    """Multi-head attention on `b n c` by the user's backend, as the host runs it when it calls a replacement."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        heads, precision = extra_options["n_heads"], extra_options.get("attn_precision")
        return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)

    return attend


def check_finite(tensor: torch.Tensor, what: str) -> None:
    """Raises `ValueError` for NaN and infinite values from a model. `what`: what they are, in the plural."""
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"The model gave NaN or infinite {what}: if it was tuned, tune again with a lower learning rate, otherwise "
            "start ComfyUI with --fp32-unet or use another model."
        )


@once_per_unet
def res_blocks(unet: UNetModel) -> list[ResBlock]:
    """All ResBlocks."""
    return [module for module in unet.modules() if isinstance(module, ResBlock)]


@once_per_unet
def video_group_norms(unet: UNetModel) -> list[torch.nn.Module]:
    """The GroupNorms that Tune-A-Video's inflation makes joint over frames: the ResBlocks' and the final one."""
    norms = [layers[0] for block in res_blocks(unet) for layers in (block.in_layers, block.out_layers)]
    return [*norms, unet.out[0]]


def hook_text_projections(blocks: list[Block], text: torch.Tensor | None, frames: int) -> list[RemovableHandle]:
    """Makes the cross-attentions' key and value projections compute the first frame's text of `(b f) l c` and repeat
    the result for all frames, until the returned handles are removed. Changes nothing if frames have their own prompts,
    or another node changes the text before it gets there."""
    if text is None or frames == 1 or text.shape[0] % frames:
        return []
    rows = text.unflatten(0, (-1, frames))
    if not torch.equal(rows, rows[:, :1].expand_as(rows)):
        return []
    once = rows[:, 0]
    narrow = lambda _, inputs: (once, *inputs[1:]) if inputs[0] is text else None
    widen = lambda _, inputs, output: output.repeat_interleave(frames, dim=0) if inputs[0] is once else None
    layers = [layer for block in blocks for layer in (block.module.attn2.to_k, block.module.attn2.to_v)]
    return [
        handle
        for layer in layers
        for handle in (layer.register_forward_pre_hook(narrow), layer.register_forward_hook(widen))
    ]
