"""Guidance in the first steps only: what it equals, and what it saves."""

from __future__ import annotations

import pytest
import torch

from . import controlled_edit
from .controlled_edit import STEPS, TARGET

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

CFG = 5.0
control, tuned, inversion = controlled_edit.control, controlled_edit.tuned, controlled_edit.inversion


@pytest.fixture(scope="module")
def edit(pack, encode):
    """The edit of the node: `edit(model, inversion, guidance_end, cfg=CFG, control=None)`."""

    def edit(model, inversion, guidance_end, cfg=CFG, control=None):
        positive = control.target_conditioning if control else encode(TARGET)
        node = pack("nodes.edit_sample").EditSample
        inputs = (model, inversion, positive, encode(""), cfg, control)
        return node.execute(*inputs, guidance_end=guidance_end).args[0]["samples"]

    return edit


@pytest.mark.parametrize("controlled", [False, True], ids=["plain", "controlled"])
def test_all_steps_and_none(tuned, inversion, control, edit, controlled):
    options = {"control": control(cross_replace=0.5)} if controlled else {}
    assert torch.equal(edit(tuned, inversion, 0.0, **options), edit(tuned, inversion, 1.0, 1.0, **options))
    whole, half = (edit(tuned, inversion, end, **options) for end in (1.0, 0.5))
    assert (whole - half).abs().max() > 1e-3
    assert (half - edit(tuned, inversion, 0.0, **options)).abs().max() > 1e-3


@pytest.fixture
def one_thread():
    """Sums of several threads round differently, and sampling multiplies that."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_half_of_the_steps_is_the_hosts_sampler_twice(tuned, inversion, encode, edit, host_node):
    """First with guidance, then without."""
    from comfy.samplers import sampler_object

    middle, latent = STEPS // 2, {"samples": inversion.noise}
    for cfg, sigmas in ((CFG, inversion.sigmas[: middle + 1]), (1.0, inversion.sigmas[middle:])):
        inputs = (tuned, False, 0, cfg, encode(TARGET), encode(""), sampler_object("ddim"), sigmas, latent)
        latent = host_node("nodes_custom_sampler", "SamplerCustom", *inputs)[0]
    torch.testing.assert_close(edit(tuned, inversion, 0.5), latent["samples"], atol=1e-5, rtol=1e-5)


def test_any_share_guides_the_first_step(pack):
    sigmas = torch.arange(6.0, -1, -1)
    found = {share: pack("host.sampling").last_guided(share, sigmas) for share in (0.0, 0.01, 0.25, 0.5, 0.67, 1.0)}
    assert found == {0.0: 6.0, 0.01: 5.0, 0.25: 4.0, 0.5: 3.0, 0.67: 2.0, 1.0: 0.0}


@pytest.mark.parametrize("controlled", [False, True], ids=["plain", "controlled"])
def test_the_other_steps_run_one_prompt(tuned, inversion, control, edit, controlled):
    """Counted in prompts that the UNet ran for the edit, whether they came in one batch or one after the other."""
    prompts = []

    def count(function, parameters):
        prompts.extend(parameters["cond_or_uncond"])
        return function(parameters["input"], parameters["timestep"], **parameters["c"])

    model = tuned.clone()
    model.set_model_unet_function_wrapper(count)
    edit(model, inversion, 0.5, control=control(cross_replace=0.5) if controlled else None)
    source = STEPS if controlled else 0  # never guided
    assert prompts.count(1) == STEPS // 2 and prompts.count(0) == STEPS + source
