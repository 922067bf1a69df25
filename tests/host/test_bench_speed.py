"""The speed benchmark: it runs, its yardsticks are right, and its baseline computes what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.machine import CLEAR
from benchmarks.speed import attention, report, run, steps, timing
from benchmarks.speed.attention import Attentions
from benchmarks.speed.literal import LiteralTuning, LiteralUNet
from benchmarks.speed.measure import Measurement
from benchmarks.speed.steps import Place, Steps
from benchmarks.speed.timing import Contender, arithmetic, count_flops, race, summary
from devtools.environment import ROOT

pytestmark = pytest.mark.host

FIELDS = {
    "what",
    "method",
    "model",
    "frames",
    "width",
    "height",
    "dtype",
    "checkpointing",
    "seconds",
    "steps_timed",
    "peak_bytes",
    "tflop",
    "tflops",
    "share_of_peak",
    "ratio_to_literal",
    "memory_to_literal",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `dev.py bench speed --quick` leaves behind."""
    folder = tmp_path_factory.mktemp("speed")
    command = [sys.executable, "-m", "benchmarks.speed.run", "--quick", "--device", "cpu", "--threads", "1"]
    command += ["--output", str(folder)]
    result = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def subject():
    return steps.load("miniature", "cpu")


@pytest.fixture
def literal(subject):
    """A fresh UNet of the baseline, whose temporal attention does something."""
    weights = subject.model.model.diffusion_model.state_dict()
    torch.manual_seed(0)
    unet = LiteralUNet(subject.unet_config, weights, torch.float32, subject.device)
    for temporal in unet.temporal:
        torch.nn.init.normal_(temporal.to_out.weight, std=0.05)
    return unet


@pytest.mark.slow
def test_every_row_is_complete(folder):
    results = json.loads((folder / "speed_cpu.json").read_text())
    rows = results["rows"]
    assert results["complete"] and results["model"] == "miniature" and results["threads"] == 1
    assert all(row.keys() >= FIELDS for row in rows)
    attentions = {"attention", "attention and gradient"}
    assert {row["what"] for row in rows} == {"matrix product", "tune", "invert", "edit", *attentions}
    base = [row for row in rows if row["what"] == "tune" and row["frames"] == 3 and row["width"] == 32]
    assert {(row["method"], row["dtype"], row["checkpointing"]) for row in base} == {
        *(("EI2", dtype, again) for dtype in ("fp32", "bf16") for again in (False, True)),
        ("Tune-A-Video", "fp32", False),
        ("Tune-A-Video", "bf16", False),
        *((name, "bf16", True) for name in steps.LITERALS),
    }
    for what in steps.WHAT:
        places = {(row["frames"], row["width"]) for row in rows if row["what"] == what and row["method"] == "EI2"}
        assert places == {(3, 32), (2, 32), (3, 48)}
    for row in rows:
        if row["what"] == "matrix product":
            continue
        assert row["seconds"] > 0 and row["tflops"] == pytest.approx(row["tflop"] / row["seconds"])
        assert 0 < row["share_of_peak"]
        if row["what"] not in attentions:
            assert row["ratio_to_literal"] > 0 and row["peak_bytes"] >= 0
        if row["method"] in (steps.LITERAL, attention.LITERAL):
            assert row["ratio_to_literal"] == 1
    for what in attentions:
        assert {row["method"] for row in rows if row["what"] == what} == set(attention.KINDS)


@pytest.mark.slow
def test_table_and_plots_are_written(folder):
    rows = json.loads((folder / "speed_cpu.json").read_text())["rows"]
    text = (folder / "speed_cpu.md").read_text()
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 1 + len(rows)
    assert "times the literal one's speed" in text and "FFAM takes at most" in text
    for name in ("growth", "attention"):
        assert f"(speed_cpu_{name}.png)" in text
        assert (folder / f"speed_cpu_{name}.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "options, problem",
    [(["--frames", "1"], "--frames"), (["--size", "100"], "--size"), (["--threads", "0"], "--threads")],
)
def test_bad_options_are_refused_in_words(options, problem, capsys, tmp_path):
    assert run.main(["--device", "cpu", "--output", str(tmp_path / "results"), *options]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_without_time_only_the_yardstick_is_measured(tmp_path, capsys):
    assert run.main(["--device", "cpu", "--quick", "--minutes", "0", "--output", str(tmp_path)]) == 0
    assert "the rest is left out" in capsys.readouterr().out
    assert "Not everything was measured" in (tmp_path / "speed_cpu.md").read_text()


def test_the_literal_unet_is_the_rivals_preset(literal, subject, pack, inflate, evaluate, source, random_clip):
    """Same ε as the pack's own Tune-A-Video, temporal attention included."""
    timestep, clip = 500, random_clip(frames=3)
    with torch.inference_mode():
        inflated = inflate(subject.model, "Tune-A-Video")
        stack = pack("host.inflation").inflation_of(inflated).stack
        for module, temporal in zip(stack.values(), literal.temporal, strict=True):
            for name in ("to_q", "to_k", "to_v", "to_out"):
                module.get_submodule(name).weight.copy_(temporal.get_submodule(name).weight)
        sigma = pack("host.unet").sigma_schedule(subject.model)[timestep]
        noisy = clip * 0.18215
        expected = (noisy - evaluate(inflated, clip, source, sigma=float(sigma))) / sigma
    with torch.no_grad():
        context = source[0][0].clone().expand(3, -1, -1)
        output = literal(noisy / (1 + sigma**2).sqrt(), torch.full((3,), timestep), context, 3)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shipped", [True, False])
def test_the_literal_step_trains_what_it_should(literal, subject, shipped):
    """As shipped only middle and up blocks, as meant all; recomputing activations changes nothing of it."""
    before = {name: weight.clone() for name, weight in literal.state_dict().items()}
    context = subject.prompt()[0][0]
    losses, literal.shipped = [], shipped
    for checkpointing in (True, False):
        literal.load_state_dict(before)
        literal.checkpointing = checkpointing
        training = LiteralTuning(literal, subject.autoencoder, Place(2, 32, 32).clip(), context, torch.float32)
        torch.manual_seed(1)
        losses.append([training.step(), training.step()])
        changed = {name for name, weight in literal.state_dict().items() if not torch.equal(weight, before[name])}
        queries = {name for name in before if name.endswith(("attn1.to_q.weight", "attn2.to_q.weight"))}
        temporal = {name for name in before if name.startswith("temporal.") and "norm" not in name}
        assert len(queries) == 14
        if shipped:
            queries = {name for name in queries if ".input_blocks." not in name}
            temporal = {name for name in temporal if name.split(".")[1] not in ("0", "1")}
        assert changed == queries | temporal
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_literal_attention_is_ffam(pack):
    frames, height, width, heads = 3, 5, 7, 2
    q, k, v = (torch.randn(frames, height * width, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    attend = lambda q, k, v: pack("ei2.attention").attention(q, k, v, heads)
    expected = pack("ei2.ffam").fine_coarse_attention(q, k, v, frames, height, width, 2, "average", attend)
    output = attention.literal_fine_coarse(q, k, v, frames, height, attend)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def test_the_parabola_gives_the_arithmetic_of_any_number_of_frames(subject):
    of_subject, way = Steps(subject), steps.Way("EI2", "fp32", False)
    count = lambda frames: count_flops(lambda: of_subject.runner("tune", way, Place(frames, 32, 32))(0))
    # what is done once per run, such as the picture of the clip, counts too, but hardly
    assert arithmetic(count)(6) == pytest.approx(count(6), rel=1e-4)


def test_encoding_once_is_no_part_of_every_step(subject):
    measurement, place = Measurement(Steps(subject), run.QUICK), Place(4, 32, 32)
    names = (steps.MEANT, steps.MEANT_ONCE)
    each, once = (measurement._flops("tune", steps.Way(name, "fp32", False), place) for name in names)
    assert once < 0.5 * each


def test_the_powers_of_growth_are_found():
    base = {"what": "edit", "method": "EI2", "checkpointing": None, "dtype": "bf16"}
    over_frames = [base | {"frames": n, "width": 128, "height": 128, "seconds": 0.1 * n**1.5} for n in (8, 16, 64)]
    over_pixels = [base | {"frames": 8, "width": w, "height": w, "seconds": 1e-4 * w**2} for w in (64, 192)]
    frames, pixels = report.powers({"base": [8, 128, 128], "rows": over_frames + over_pixels})
    assert frames == "Powers of the frames by which the seconds grow: EI2 edit 1.50."
    assert pixels.startswith("Powers of the pixels a frame by which the seconds grow: EI2 edit ")


@pytest.mark.parametrize("kind", attention.KINDS)
def test_the_arithmetic_of_attention_is_what_is_counted(kind, subject):
    attentions, place = Attentions(subject), Place(3, 64, 96)
    contender = attentions.contender(kind, place, gradient=False)
    assert count_flops(lambda: contender.run(0)) == attentions.flops(kind, place, gradient=False)


def test_attention_with_gradient_runs(subject):
    attentions = Attentions(subject)
    for kind in attention.KINDS:
        assert len(attentions.contender(kind, Place(2, 32, 32), gradient=True).run(2)) == 2


def test_contenders_take_turns_and_memory_is_measured():
    turns, size = [], 100_000_000

    def work(name, big):
        def run(steps):
            turns.append(name)
            if name == "huge":
                return [len(bytearray(2**60))]
            return [float(torch.ones(big).sum()) for _ in range(steps)]

        return run

    contenders = [Contender(name, work(name, big)) for name, big in (("large", size // 4), ("huge", 0), ("small", 1))]
    race(contenders, rounds=2, share=0.0, most=1, on_gpu=False)
    assert turns == ["large", "huge", "small", "large", "small"]
    assert summary(contenders[1])["note"] == "out of memory" and summary(contenders[1])["seconds"] is None
    if os.access(CLEAR, os.W_OK):
        assert summary(contenders[0])["peak_bytes"] == pytest.approx(size, rel=0.1)
        assert summary(contenders[2])["peak_bytes"] < size / 10


def test_the_yardstick():
    assert timing.measured_peak(torch.float32, torch.device("cpu"), 0.1) > 1e-3
    assert timing.datasheet(torch.device("cpu")) is None
