"""Companions: other nodes on the same MODEL, what each changes and warns of; and a tuned MODEL to put them on."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

PATH = "lora_unet_input_blocks_1_1_transformer_blocks_0_"
TAKEN, TOKENS = "replaces the self-attention of {} of 7 blocks", "changes the number of tokens"
# what it changes: the inversion's noise and the edit, the edit alone, or nothing; the one warning
Companion = namedtuple("Companion", "apply changes warning", defaults=("noise edit", None))


def node(module: str, name: str, *arguments):
    """`apply(model)` for one of the host's own nodes."""
    return lambda model, host_node: host_node(module, name, model, *arguments)[0]


def lora(model, _):
    """By the host's own loader, on projections that are tuned and others."""
    import comfy.sd

    generator, state = torch.Generator().manual_seed(0), {}
    for layer, width in (("attn1_to_q", 96), ("attn1_to_k", 96), ("attn2_to_q", 96), ("attn2_to_v", 128)):
        state[f"{PATH}{layer}.lora_up.weight"] = 0.3 * torch.randn(96, 4, generator=generator)
        state[f"{PATH}{layer}.lora_down.weight"] = 0.3 * torch.randn(4, width, generator=generator)
        state[f"{PATH}{layer}.alpha"] = torch.tensor(4.0)
    patched = comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0)[0]
    assert len(patched.patches) - len(model.patches) in (2, 4)  # the tuned model has patches on two of them already
    return patched


def merged(name: str, *arguments, **options):
    """One of the host's merges, with a model whose weights are a little larger."""

    def apply(model, _):
        from comfy_extras import nodes_model_merging

        other = model.clone()
        for key, weight in model.model_state_dict("diffusion_model.").items():
            other.add_patches({key: ("diff", (0.05 * weight,))})
        return getattr(nodes_model_merging, name)().merge(model, other, *arguments, **options)[0]

    return apply


def patched(setter: str, patch, *places):
    """A patch as other packs set it: `setter` of the host's ModelPatcher."""

    def apply(model, _):
        clone = model.clone()
        for place in places or [()]:
            getattr(clone, setter)(patch, *place)
        return clone

    return apply


def attend(q, k, v, options):
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(q, k, v, options["n_heads"])


def picture(width: int, batch: int) -> torch.Tensor:
    """Four tokens of a picture prompt, the same for all frames."""
    return torch.randn(1, 4, width, generator=torch.Generator().manual_seed(width)).expand(batch, -1, -1)


def with_picture(n, context, value, options):
    """An IP-Adapter in the way of a patch: more tokens for the cross-attention."""
    tokens = picture(context.shape[-1], len(context))
    return n, torch.cat([context, tokens], dim=1), torch.cat([value, tokens], dim=1)


def beside_picture(q, k, v, options):
    """An IP-Adapter in the way of a replacement: a second cross-attention, added."""
    tokens = picture(q.shape[-1], len(q))
    return attend(q, k, v, options) + attend(q, tokens, tokens, options)


def longer(n, context, value, options):
    """Self-attention with more keys, as reference-only control has."""
    return n, torch.cat([context, 0.5 * context], dim=1), torch.cat([value, 0.5 * value], dim=1)


CROSS = [("input", 1), ("input", 4), ("middle", 0), ("output", 0), ("output", 2)]
SELF = [("input", 1, 0), ("middle", 0)]  # a block by its number, and all of a transformer
COMPANIONS = {
    "LoRA": Companion(lora),
    "model merging": Companion(merged("ModelMergeSimple", 0.5)),
    "model merging by blocks": Companion(merged("ModelMergeBlocks", input=0.3, middle=0.5, out=0.9)),
    "IP-Adapter as attn2 patch": Companion(patched("set_model_attn2_patch", with_picture)),
    "IP-Adapter as attn2 replacement": Companion(patched("set_model_attn2_replace", beside_picture, *CROSS)),
    "attn1 patch": Companion(patched("set_model_attn1_patch", lambda n, k, v, options: (n, 1.1 * k, 1.1 * v))),
    "attn1 patch, more keys": Companion(patched("set_model_attn1_patch", longer), warning=TOKENS),
    "attn1 output patch": Companion(patched("set_model_attn1_output_patch", lambda n, options: 1.1 * n)),
    "attn1 replacement": Companion(
        patched("set_model_attn1_replace", lambda q, k, v, options: attend(q, k, 0.5 * v, options), *SELF),
        warning=TAKEN.format(2),
    ),
    "FreeU": Companion(node("nodes_freelunch", "FreeU", 1.1, 1.2, 0.9, 0.2)),
    "FreeU_V2": Companion(node("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2)),
    "Deep Shrink": Companion(
        node("nodes_model_downscale", "PatchModelAddDownscale", 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    ),
    "HyperTile": Companion(node("nodes_hypertile", "HyperTile", 32, 1, 0, False), warning=TOKENS),
    "ToMe": Companion(node("nodes_tomesd", "TomePatchModel", 0.3), warning=TOKENS),
    "PAG": Companion(node("nodes_pag", "PerturbedAttentionGuidance", 3.0), "edit", TAKEN.format(1)),
    "SAG": Companion(node("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0), warning=TAKEN.format(1)),
    "RescaleCFG": Companion(node("nodes_model_advanced", "RescaleCFG", 0.7), "edit"),
    "DifferentialDiffusion": Companion(node("nodes_differential_diffusion", "DifferentialDiffusion"), "nothing"),
    "EasyCache": Companion(node("nodes_easycache", "EasyCacheNode", 99.0, 0.0, 1.0, False)),
    "LazyCache": Companion(node("nodes_easycache", "LazyCacheNode", 99.0, 0.0, 1.0, False)),
}


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    with torch.inference_mode():
        return tune(inflate(model, "EI2"), random_clip(2, 8, 8), learning_rate=1e-2)
