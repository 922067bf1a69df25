"""Memory that really runs out, at different places of every node's work: one sentence, and the next run is the same."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from devtools.environment import ROOT
from tests import traces

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's address space"),
]

SCRIPT = (
    inspect.getsource(traces)
    + """
import gc, resource, sys, tempfile
from pathlib import Path
import torch
torch.set_num_threads(1)
from devtools import in_process
in_process.import_host("cpu"); in_process.import_pack(); pack = in_process.pack
nodes = {node.__name__: node for node in pack("nodes").NODES}
import folder_paths
temporary = tempfile.TemporaryDirectory()
folder_paths.set_temp_directory(temporary.name)
OutOfMemory = pack("host.memory").OutOfMemory
rooms = [int(room) for room in sys.argv[1:]]

def within(room, run):
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + room, hard))
    try:
        run()
        return "ENOUGH"
    except OutOfMemory as error:
        return f"SAID {error}"
    except BaseException as error:
        return f"RAW {type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

with torch.inference_mode():
    model, clip, vae = pack("host.miniature").load_miniature()
    encode = pack("host.clip").encode
    source, empty = encode(clip, "a red circle on a white background"), encode(clip, "")
    inflated = nodes["InflateUNet"].execute(model, "EI2").args[0]
    generator = torch.Generator().manual_seed(0)
    latents = {n: {"samples": torch.randn(n, 4, e, e, generator=generator)} for n, e in ((2, 8), (8, 48))}
    options = dict(mode="auto", cross_replace=0.8, self_replace=0.5, self_maps="temporal", reweight="", blend_source="",
                   blend_target="", blend_threshold=0.3, blend_start=0.2, unconditional="decoupled")
    control, positive, _ = nodes["AttentionControl"].execute(
        clip, "a red circle on a white background", "a blue circle on a white background", **options).args
    inversions = {n: nodes["Invert"].execute(inflated, one, source, 2, 0, cache=False).args[0]
                  for n, one in latents.items()}
    video = torch.rand(8, 512, 512, 3, generator=generator)

    def tune(n):
        return nodes["OneShotTune"].execute(inflated, latents[n], source, 1, 1e-3, 0, "auto", "off").args[1].losses

    works = {
        "tune": tune,
        "invert": lambda n: nodes["Invert"].execute(inflated, latents[n], source, 2, 0, cache=False),
        "null-text": lambda n: nodes["Invert"].execute(
            inflated, latents[n], source, 2, 0, null_text=True, null_inner_steps=1, empty=empty, cache=False),
        "edit": lambda n: nodes["EditSample"].execute(inflated, inversions[n], source, empty, 7.5),
        "controlled edit": lambda n: nodes["EditSample"].execute(
            inflated, inversions[n], positive, empty, 7.5, control),
        "carry": lambda n: nodes["CarryKeyFrame"].execute(
            inflated, inversions[n], {"samples": latents[n]["samples"].flip(0)}, source, empty, vae, 7.5, 0.5, -1),
        "probe": lambda n: nodes["ShiftProbe"].execute(inflated, latents[n], source, "500"),
        "compare": lambda n: nodes["Compare"].execute("a", "grid", video_1=video, video_2=video, video_3=video),
        "metrics": lambda n: nodes["Metrics"].execute(video, video, mask=torch.zeros(8, 512, 512)),
        "check": lambda n: nodes["ReconstructionCheck"].execute(video, video),
    }
    expected, before = tune(2), fingerprint(model)
    for name, run in works.items():
        for room in rooms:
            gc.collect()
            print(name, room, within(room * 2**20, lambda: run(8)), flush=True)
            assert not leftovers(model), leftovers(model)
            assert torch.backends.mkldnn.enabled, name
    assert fingerprint(model) == before
    assert tune(2) == expected
    print("AS BEFORE")
"""
)


def test_allocations_that_fail(rounds):
    rooms = rounds((16,), (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 256))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, rooms)], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    lines = [line for line in done.stdout.splitlines() if " SAID " in line or " RAW " in line or " ENOUGH" in line]
    said, raw = ([line for line in lines if word in line] for word in (" SAID ", " RAW "))
    print(f"{len(lines)} runs with too little memory: {len(said)} explained, {len(raw)} raw")
    assert done.stdout.endswith("AS BEFORE\n"), done.stdout[-2000:] + done.stderr[-3000:]
    assert not raw, raw
    assert len(lines) == 10 * len(rooms) and len(said) >= 6
