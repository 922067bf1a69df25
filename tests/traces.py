"""What work with a clone may leave on the MODEL itself. Tests that run a script in a process of its own put this file's
text in front of it (`inspect.getsource`): there, ComfyUI's own package `tests` may come first."""

from __future__ import annotations

import hashlib

import torch


def fingerprint(model) -> str:
    """Of every weight and buffer, by name."""
    digest = hashlib.sha256()
    for name, tensor in model.model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def leftovers(model) -> list[str]:
    """Whatever somebody hung on the modules that all clones share."""
    found = []
    for name, module in model.model.named_modules():
        if "forward" in vars(module):
            found.append(f"{name}.forward")
        kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
        found += [f"{name}.{kind}" for kind in kinds if getattr(module, kind)]
        if hasattr(module, "parametrizations"):
            found.append(f"{name}.parametrizations")
    found += [name for name, parameter in model.model.named_parameters() if parameter.grad is not None]
    return found
