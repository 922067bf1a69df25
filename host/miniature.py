"""Builds the miniature from the host's own classes and the bundled weights."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import folder_paths
import torch
from comfy.cli_args import args
from safetensors import safe_open
from safetensors.torch import load_file

from ..miniature.architecture import HEAD_WIDTH, TEXT_ENCODER, TEXT_WIDTH, UNET, WEIGHTS
from .automatic import miniature_dtype
from .clip import EMBEDDING
from .newer import core_patcher

VOCABULARY = 49408  # rows the host's tokenizer may ask for; the weights hold only those the miniature knows


class MiniatureConfig(comfy.supported_models.SD15):
    """SD 1.5 except for the width of its heads."""

    unet_extra_config = {"num_heads": -1, "num_head_channels": HEAD_WIDTH}


def load_miniature():
    """Returns MODEL, CLIP and VAE. Raises `FileNotFoundError` with the file's name if the weights are missing."""
    for name in ("unet", "text_encoder", "vae"):
        path = WEIGHTS / f"{name}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"The miniature's weights {path} are missing: install the pack again.")
    return _load_model(), _load_clip(), _load_vae()


def is_miniature(model) -> bool:
    """Whether a MODEL is the bundled one."""
    return isinstance(getattr(model.model, "model_config", None), MiniatureConfig)


@cache
def learned_words() -> frozenset[str]:
    """The words of the prompts that the miniature was trained on."""
    with safe_open(WEIGHTS / "text_encoder.safetensors", "pt") as file:
        return frozenset(file.metadata()["words"].split())


def unknown_words(text: str) -> str:
    """The words of a prompt that the miniature has never seen; only the first ones if there are many."""
    learned, text = learned_words(), re.sub(r"['’]s\b", "", EMBEDDING.sub("", text.lower()))
    unknown = dict.fromkeys(word for word in re.findall(r"[^\W\d_]+", text) if word not in learned)
    return ", ".join([*list(unknown)[:5], *(["…"] if len(unknown) > 5 else [])])


def _load_model(disable_dynamic: bool = False):
    """`disable_dynamic`: with ordinary weights; the host asks for this if it pages weights."""
    management = comfy.model_management
    devices = management.get_torch_device(), management.unet_offload_device()
    config = MiniatureConfig(UNET)
    config.set_inference_dtype(torch.float32, miniature_dtype(devices[0], args.fp32_unet))
    config.latent_format = comfy.latent_formats.SD15()
    with safe_open(WEIGHTS / "unet.safetensors", "pt") as file:
        preview = json.loads(file.metadata()["latent_preview"])
    config.latent_format.latent_rgb_factors = preview["factors"]
    config.latent_format.latent_rgb_factors_bias = preview["bias"]
    model = config.get_model({}, "")
    model.load_model_weights(_float32(WEIGHTS / "unet.safetensors"), "")
    patcher = core_patcher(model, *devices, static=disable_dynamic)
    patcher.cached_patcher_init = (_load_model, ())  # how the host loads it again
    return patcher


def _load_clip() -> comfy.sd.CLIP:
    target = comfy.supported_models.supported_models_base.ClipTarget(
        comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        model_options={"clip_l_model_config": dict(TEXT_ENCODER), "dtype": torch.float32},
    )
    state = _float32(WEIGHTS / "text_encoder.safetensors")
    rows, tokens = state.pop("token_rows"), state.pop("tokens").long()
    table = torch.zeros(VOCABULARY, TEXT_WIDTH)  # an unknown word has no effect
    table[tokens] = rows
    state["text_model.embeddings.token_embedding.weight"] = table
    state["text_projection.weight"] = torch.eye(TEXT_WIDTH)  # SD1 does not use the pooled vector
    clip.cond_stage_model.clip_l.transformer.load_state_dict(state)
    return clip


def _load_vae() -> comfy.sd.VAE:
    device = comfy.model_management.vae_device()
    dtype = miniature_dtype(device, args.fp32_vae or args.fp16_vae)
    vae = comfy.sd.VAE(sd=_float32(WEIGHTS / "vae.safetensors"), dtype=dtype)
    if device.type == "cpu":
        vae.first_stage_model.to(memory_format=torch.channels_last)  # a quarter faster there
    return vae


def _float32(file: Path) -> dict[str, torch.Tensor]:
    """The file's weights, cast: newer hosts' layers keep the dtype that they are loaded with."""
    return {name: weight.float() for name, weight in load_file(file).items()}
