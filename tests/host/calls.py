"""What a UNet is called with."""

from __future__ import annotations


def watched(model, key="spy"):
    """A clone of a MODEL and the list of what its UNet is called with: `(timestep, branch, context, y)` per branch."""
    from comfy.patcher_extension import WrappersMP

    clone, seen = model.clone(), []

    def watch(executor, x, timesteps, context, *args, **kwargs):
        branches = kwargs.get("transformer_options", args[2] if len(args) > 2 else {})["cond_or_uncond"]
        y = kwargs.get("y", args[0] if args else None)
        ys = [None] * len(branches) if y is None else y.chunk(len(branches))
        for branch, text, vector in zip(branches, context.chunk(len(branches)), ys):
            seen.append((float(timesteps[0]), branch, text.detach().clone(), vector))
        return executor(x, timesteps, context, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, watch)
    return clone, seen
