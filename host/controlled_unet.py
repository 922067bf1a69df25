"""Attention control inside the host: what the target's attention takes from the source's during a UNet call.

Source and target run one after the other at every step (`controlled_sampling.py`). The source's call stores the queries
and keys of its prompt's chunk here; the target's call of the same step uses them; then they are dropped.
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from ..ei2.local_blend import MapSum
from ..ei2.map_edit import MapEdit, attention_maps, controlled_attention, cross_steps_of, edited_maps, steps_of
from ..ei2.memory_estimate import Clip
from ..ei2.prompt_control import Control
from .unet import Block, Call, attend_by_host, transformer_blocks

BRANCH = "EI2 control"  # key of the wrapper, and of the current `Branch` in the transformer options
MAP_DOWNSAMPLING = 4  # maps are collected where the token grid is closest to a quarter of the latents' width
POSITIVE = 0  # the positive prompt's number in the host's `cond_or_uncond`


@dataclass(frozen=True)
class Branch:
    """Which video a UNet call belongs to, `source` or `target`, and at which step."""

    name: str
    step: int


class ControlledUNet:
    """A wrapper around the UNet's forward, for one sampling; it runs inside the inflation's wrapper.

    `sums`: the cross-attention maps of source and target so far, averaged over heads, at one resolution.
    """

    def __init__(self, control: Control, steps: int, unet, stack: torch.nn.ModuleDict, device: torch.device):
        self.control = control
        self.stack = stack
        self.cross_steps = cross_steps_of(control.cross_replace, steps)
        self.self_steps = steps_of(control.self_replace, steps)
        edits = partial(MapEdit.of, control.tokens.to(device))
        factors = control.factors.to(device)
        self.edits = {taken: edits(taken, factors) for taken in (True, False)}
        # maps for LocalBlend and plots leave out the factors, which would shift them relative to the threshold
        self.map_edits = {taken: edits(taken, torch.ones_like(factors)) for taken in (True, False)}
        self.sums = {"source": MapSum(), "target": MapSum()}
        blocks = transformer_blocks(unet)
        distance = lambda block: abs(math.log2(block.downsampling / MAP_DOWNSAMPLING))
        nearest = min(map(distance, blocks))
        self.downsampling = next(block.downsampling for block in blocks if distance(block) == nearest)
        self.warned = False
        self.kept: dict[tuple[str, str], object] = {}

    def kept_bytes(self, blocks: list[Block], clip: Clip, itemsize: int) -> float:
        """Bytes of what the source's call stores for the target's, and of both
        map sums. `itemsize`: bytes per number."""
        text, kept = len(self.control.target), 0.0
        crossed = self.cross_steps > 0 and self.edits[True].needs_source
        temporal = self.self_steps > 0 and self.control.self_maps in ("temporal", "both") and len(self.stack) > 0
        spatial = self.self_steps > 0 and self.control.self_maps in ("spatial", "both")
        for block in blocks:
            tokens = clip.frames * clip.tokens(block.downsampling)
            features = tokens * (crossed + 2 * temporal) + clip.frames * text * crossed
            if block.downsampling >= self.downsampling:
                features += 2 * tokens * spatial
            maps = tokens * text * crossed * (block.downsampling == self.downsampling)
            kept += features * block.channels * itemsize + maps * torch.float32.itemsize
        return kept + 2 * clip.frames * clip.tokens(self.downsampling) * text * torch.float32.itemsize

    def next_step(self) -> None:
        """Drops what the source's call stored for the target's."""
        self.kept.clear()

    def __call__(self, executor, *args, **kwargs):
        call = Call(args, kwargs)
        branch, chunks = call.options[BRANCH], call.options["cond_or_uncond"]
        if POSITIVE not in chunks:
            return executor(*args, **kwargs)
        blocks = transformer_blocks(executor.class_obj)
        with ExitStack() as hooks:
            self._control_text(blocks, call, branch)
            if branch.step < self.self_steps:
                self._share_self_attention(blocks, chunks, branch, hooks)
            return executor(*call.args, **call.kwargs)

    def _control_text(self, blocks: list[Block], call: Call, branch: Branch) -> None:
        attn2 = call.replacements("attn2")
        others = dict(attn2)
        for block in blocks:
            other = others.get(block.full_place) or others.get(block.place)
            if other and not self.warned:
                self.warned = True
                logging.warning(
                    "EI2: another node replaces the attention to the prompt; what it adds is kept alongside the "
                    "attention control. If it changes the prompt's own attention instead (not an IP-Adapter), remove "
                    "one of the two."
                )
            attn2[block.full_place] = partial(self._attend_text, block=block, other=other, branch=branch)

    def _attend_text(self, q, k, v, extra_options: dict, block: Block, other, branch: Branch) -> torch.Tensor:
        """Called by the host in place of a block's cross-attention: q `(chunks f) d c`, k and v `(chunks f) l c`."""
        attend = attend_by_host(extra_options)
        out = other(q, k, v, extra_options) if other else attend(q, k, v)
        chunks = extra_options["cond_or_uncond"]
        chunk = chunks.index(POSITIVE)
        q, k, v = (t.chunk(len(chunks))[chunk] for t in (q, k, v))
        k, v = self._prompt_only(k), self._prompt_only(v)
        taken = branch.step < self.cross_steps
        edit = self.edits[taken]
        if edit.needs_source and branch.name == "source":
            self.kept.setdefault(("text", block.path), (q.clone(), k.clone()))  # views would keep all chunks
        if block.downsampling == self.downsampling:
            self._add_maps(
                attention_maps(q, k, extra_options["n_heads"]),
                extra_options["activations_shape"][2:],
                block,
                branch,
                taken,
            )
        if branch.name == "source" or edit.changes_nothing:
            return out
        source = self.kept["text", block.path] if edit.needs_source else (None, None)
        edited = controlled_attention(*source, q, k, v, edit, attend)
        parts = list(out.chunk(len(chunks)))
        # exact if the other node adds to the prompt's attention, like an IP-Adapter
        parts[chunk] = parts[chunk] + edited - attend(q, k, v) if other else edited
        return torch.cat(parts)

    def _add_maps(self, maps: torch.Tensor, size, block: Block, branch: Branch, taken: bool) -> None:
        """Adds one block's maps `f d l` to its branch's sum, once per step,
        because other nodes may run the model again."""
        if ("maps " + branch.name, block.path) in self.kept:
            return
        edit = self.map_edits[taken]
        if branch.name == "target" and edit.needs_source:
            maps = edited_maps(self.kept["maps source", block.path], maps, edit)
        self.sums[branch.name].add(maps, *size)
        needed = branch.name == "source" and edit.needs_source  # otherwise only a mark that they were added
        self.kept["maps " + branch.name, block.path] = maps if needed else None

    def _prompt_only(self, tokens: torch.Tensor) -> torch.Tensor:
        """The prompt's keys or values `f l c`. The host repeats a prompt if the other chunk's is longer. Repetition
        does not change attention, so the first copy is enough."""
        length, prompt = tokens.shape[1], len(self.control.target)
        if length % prompt:
            raise ValueError(
                f"Another node changes the prompt's tokens (there are {length}, the prompt has {prompt}), so "
                "words cannot be distinguished: remove either that node or the attention control."
            )
        return tokens[:, :prompt]

    def _share_self_attention(self, blocks: list[Block], chunks: list[int], branch: Branch, hooks: ExitStack) -> None:
        """Replaces the target's queries and keys by the source's, and so its attention maps."""
        for block in blocks:
            attentions = []
            if self.control.self_maps in ("temporal", "both") and len(self.stack):
                attentions.append(self.stack[block.name])
            if self.control.self_maps in ("spatial", "both") and block.downsampling >= self.downsampling:
                attentions.append(block.module.attn1)
            for attention, name in product(attentions, ("to_q", "to_k")):
                key = (f"{type(attention).__name__}.{name}", block.path)
                exchange = partial(self._exchange, key=key, chunks=chunks, branch=branch)
                hooks.callback(attention.get_submodule(name).register_forward_hook(exchange).remove)

    def _exchange(self, layer, inputs, output, key, chunks: list[int], branch: Branch):
        """The hook on a projection, whose batch holds the chunks in turn: `(chunks f) d c` or `chunks f d c`."""
        parts = list(output.chunk(len(chunks)))
        chunk = chunks.index(POSITIVE)
        if branch.name == "source":
            self.kept.setdefault(key, parts[chunk].clone())
            return None
        parts[chunk] = self.kept[key]
        return torch.cat(parts)
