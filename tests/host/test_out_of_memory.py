"""How running out of memory ends: explained, and with everything as it was."""

from __future__ import annotations

import inspect
import subprocess
import sys
import weakref
from contextlib import nullcontext

import pytest
import torch

from devtools.environment import ROOT
from tests import traces

from . import memory_estimates
from .memory_estimates import of_size

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

memory = memory_estimates.memory


def test_running_out_of_memory_is_explained(memory):
    held = []

    class Big:
        pass

    def fails():
        big = Big()
        held.append(weakref.ref(big))
        return torch.empty(2**50)

    said = "not enough memory for tuning of 24 frames of 512 x 512 pixels; nothing was changed. Set "
    with pytest.raises(memory.OutOfMemory, match=said + "gradient_checkpointing to on, or load fewer frames") as found:
        with memory.explained_out_of_memory("tuning", of_size(24), "Set gradient_checkpointing to on"):
            fails()
    assert "you tried to allocate" in str(found.value.__cause__)
    assert held[0]() is None  # though the exception, with its traceback, is still here


def test_other_errors_stay_what_they_are(memory):
    import comfy.model_management as management

    for error in (RuntimeError("shapes do not fit"), management.InterruptProcessingException(), ValueError("memory")):
        with pytest.raises(type(error)) as found:
            with memory.explained_out_of_memory("tuning", of_size(2), ""):
                raise error
        assert found.value is error


@pytest.mark.parametrize("error", [RuntimeError("could not create a primitive"), None])
def test_onednn_is_on_again_after_a_product_without_memory(memory, error):
    """torch turns it off (`LinearAlgebra.cpp`: "mkldnn_matmul failed, switching to BLAS gemm"), whether or not the work
    goes on without it."""
    assert torch.backends.mkldnn.enabled
    with pytest.raises(memory.OutOfMemory) if error else nullcontext():
        with memory.out_of_memory_says("work"):
            torch.backends.mkldnn.enabled = False
            if error:
                raise error
    assert torch.backends.mkldnn.enabled


RUNS_OUT = (
    inspect.getsource(traces)
    + """
import gc, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from devtools import in_process
in_process.import_host("cpu"); in_process.import_pack(); pack = in_process.pack
inflation, tuning, sampling = (pack("host." + name) for name in ("inflation", "tuning", "sampling"))
nulls, OutOfMemory = pack("host.null_text"), pack("host.memory").OutOfMemory
settings, prompts = pack("ei2.tuning").TuneSettings, pack("host.clip")

def tune(latents, choice):
    return tuning.tune_model(inflated, latents, source, settings(2, 1e-3), choice).losses

def null_text(latents, choice):
    options = pack("ei2.null_text").NullTextSettings(1, 7.5)
    nulls.null_text(inflated, [latents] * 3, torch.tensor([2.0, 1.0, 0.0]), source, empty, options, choice)

def within(room, run):
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + room, hard))
    try:
        run()
    except OutOfMemory as error:
        print("CAUGHT", error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

with torch.inference_mode():
    model, clip, _ = pack("host.miniature").load_miniature()
    source, empty = (prompts.encode(clip, text) for text in ("a red circle on a white background", ""))
    inflated = inflation.inflate(model, pack("ei2.settings").PRESETS["EI2"])
    generator = torch.Generator().manual_seed(0)
    small, big = (torch.randn(n, 4, e, e, generator=generator) for n, e in ((2, 8), (8, 48)))
    expected, before = tune(small, "off"), fingerprint(model)
    for run in (
        lambda: tune(big, "off"), lambda: tune(big, "on"), lambda: null_text(big, "off"),
        lambda: sampling.invert(inflated, big, source, 2, 0),
        lambda: sampling.sample(inflated, big, source, empty, 7.5, torch.tensor([2.0, 0.0])),
    ):
        gc.collect()
        within(24 * 2**20, run)
        assert not leftovers(model), leftovers(model)
        assert not torch.is_grad_enabled() or torch.is_inference_mode_enabled()
    assert fingerprint(model) == before
    assert tune(small, "off") == expected
    print("AS BEFORE")
"""
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's address space")
def test_memory_that_really_runs_out_leaves_everything_as_it_was():
    done = subprocess.run([sys.executable, "-c", RUNS_OUT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    caught = [line for line in done.stdout.splitlines() if line.startswith("CAUGHT")]
    assert len(caught) == 5 and done.stdout.endswith("AS BEFORE\n"), done.stdout + done.stderr[-3000:]
    assert all("8 frames of 384 x 384 pixels; nothing was changed. " in line for line in caught)
    assert "tuning of" in caught[0] and "Set gradient_checkpointing to on, or load fewer frames" in caught[0]
    assert "tuning of" in caught[1] and "Set window_frames below 8, or load fewer frames" in caught[1]
    assert all("Load fewer frames" in line for line in caught[2:])
    assert "null-text optimisation of" in caught[2] and "inversion of" in caught[3] and "sampling of" in caught[4]
