"""The miniature's training scripts: they begin with what is bundled, and go on where they stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from devtools.environment import ROOT

pytestmark = [pytest.mark.host, pytest.mark.slow]


def run(module: str, *arguments: str) -> str:
    """What a script of `miniature` prints. In a process of its own: training changes the host's text encoder. Not
    compiled: that takes minutes, for a few steps."""
    import comfy

    host = Path(comfy.__path__[0]).parent
    paths = [str(ROOT), str(host), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", f"miniature.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TORCH_COMPILE_DISABLE": "1"},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


def test_the_vae_begins_with_the_bundled_one_and_goes_on(folder):
    options = ("--run", str(folder / "vae"), "--batch", "2", "--evaluate", "4")
    first = run("train_vae", "--minutes", "0.02", *options)
    assert "from step 0" in first and "3" in first.split("dB with shapes")[0].split("with things, ")[1][:1]
    state = torch.load(folder / "vae" / "checkpoint.pt")
    assert state["steps"] > 0
    again = run("train_vae", "--minutes", "0.02", "--freeze-encoder", "--cool", *options)
    assert f"from step {state['steps']}" in again
    after = torch.load(folder / "vae" / "checkpoint.pt")
    changed = {name.split(".")[0] for name, weight in after["model"].items() if not weight.equal(state["model"][name])}
    assert changed == {"taesd_decoder"}


def test_the_unet_begins_with_the_bundled_one_and_goes_on(folder):
    options = ("--run", str(folder / "unet"), "--batch", "4", "--bank", "8", "--minutes", "0.05")
    assert "from step 0" in run("train_unet", *options)
    state = torch.load(folder / "unet" / "checkpoint.pt")
    assert 0 < state["steps"]
    again = run("train_unet", "--cool", *options)
    assert f"from step {state['steps']}" in again
    after = torch.load(folder / "unet" / "checkpoint.pt")
    assert after["steps"] > state["steps"] and after["tokens"] == state["tokens"]
    assert all(torch.isfinite(weight).all() for weight in after["model"].values())


def test_the_unet_trains_on_the_latents_of_its_autoencoder(folder):
    """Bundled or just trained: the latents' scale is that autoencoder's."""
    state = torch.load(folder / "vae" / "checkpoint.pt")
    last = max(int(name.split(".")[1]) for name in state["model"] if name.startswith("taesd_encoder."))
    for name in ("weight", "bias"):
        state["model"][f"taesd_encoder.{last}.{name}"] *= 2  # latents twice as large
    torch.save(state, folder / "twice.pt")
    options = ("--run", str(folder / "other"), "--vae", str(folder / "twice.pt"))
    run("train_unet", *options, "--batch", "4", "--bank", "8", "--minutes", "0.02")
    trained, bundled = (torch.load(folder / name / "checkpoint.pt") for name in ("other", "unet"))
    assert trained["scale"] == pytest.approx(2 * bundled["scale"], rel=0.1)


def test_checkpoints_are_exported(folder):
    checkpoints = ("--vae", str(folder / "twice.pt"), "--unet", str(folder / "other" / "checkpoint.pt"))
    run("export", *checkpoints, "--output", str(folder / "export"))
    sizes = {path.name: path.stat().st_size for path in (folder / "export").iterdir()}
    assert set(sizes) == {"unet.safetensors", "text_encoder.safetensors", "vae.safetensors"}
    assert sum(sizes.values()) < 40e6


def test_every_word_of_the_prompts_has_a_row(folder):
    script = (
        "import random; from miniature import scene, things; from miniature.train_unet import Tokens; "
        "rng, tokens = random.Random(0), Tokens(); "
        "views = [scene.random_view(rng, kinds=things.NAMES) for _ in range(3000)]; "
        "tokens([scene.random_prompt(view, rng) for view in views]); print(len(tokens.used))"
    )
    import comfy

    paths = os.pathsep.join([str(ROOT), str(Path(comfy.__path__[0]).parent)])
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert 90 < int(result.stdout) < 200
