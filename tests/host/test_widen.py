"""A miniature that is half as wide again begins with what the bundled one knows."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def parts(pack):
    """Unwrapped: the narrow UNet with the bundled weights, the wide one's class, and both modules."""
    from safetensors.torch import load_file

    architecture, classes, widen = (pack(f"miniature.{name}") for name in ("architecture", "host_classes", "widen"))
    weights = {name: weight.float() for name, weight in load_file(architecture.WEIGHTS / "unet.safetensors").items()}
    narrow = classes.build_unet(architecture.UNET)
    narrow.load_state_dict(weights)
    wide = classes.build_unet({**architecture.UNET, "model_channels": 3 * architecture.UNET["model_channels"] // 2})
    return narrow.eval(), wide.eval(), weights, widen.widen


@torch.no_grad()
@pytest.mark.parametrize("step", [50, 400, 800])
def test_it_predicts_nearly_the_same(parts, step):
    narrow, wide, weights, widen = parts
    wide.load_state_dict(widen(weights, wide.state_dict(), torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(4, 4, 16, 16, generator=generator), torch.randn(4, 77, 128, generator=generator)
    t = torch.full((4,), step)
    ours, theirs = wide(x, t, context), narrow(x, t, context)
    assert (ours - theirs).square().mean() < 0.05 * theirs.square().mean()
    assert sum(p.numel() for p in wide.parameters()) > 2 * sum(p.numel() for p in narrow.parameters())


def test_other_proportions_are_refused(parts):
    narrow, wide, weights, widen = parts
    doubled = {name: torch.cat([weight, weight]) for name, weight in wide.state_dict().items()}
    with pytest.raises(ValueError, match="half as wide again"):
        widen(weights, doubled, torch.Generator())
