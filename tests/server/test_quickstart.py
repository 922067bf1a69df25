"""The bundled workflow, shortened: its files and progress, what is computed again, how it goes with other nodes."""

from __future__ import annotations

import io

import av
import pytest
import torch

from devtools.demo.workflows import files_of
from devtools.host import locate

from .graphs import (
    VIDEO_SIZES,
    bundled,
    changed,
    edit_graph,
    names,
    node,
    only,
    reconstruct,
    run,
    same_pictures,
    save_frames,
)

pytestmark = pytest.mark.server

FRAMES, TUNE_STEPS, INVERT_STEPS, FPS, SIZE = 4, 10, 10, 8, 128


@pytest.fixture(scope="module")
def graph():
    return bundled("quickstart_full", FRAMES, TUNE_STEPS, INVERT_STEPS)


@pytest.fixture(scope="module")
def first(session_client, graph):
    return run(session_client, graph)


def test_videos(client, graph, first):
    """Every video decodes and has the clip's frames and rate; the source is beside the edit."""
    for name, (width, height) in VIDEO_SIZES.items():
        (file,) = files_of(graph, first.outputs, f"EI2/{name}")
        assert file["type"] == "output" and file["filename"].endswith(".mp4")
        with av.open(io.BytesIO(client.view(file))) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert stream.average_rate == FPS
        assert len(frames) == FRAMES, name
        assert all(frame.shape == (height, width, 3) for frame in frames)
        assert all(frame.std() > 5 for frame in frames), f"{name} shows nothing"


def test_loss_plot(first, graph):
    (plot,) = names(graph, "PreviewImage")
    (picture,) = first.pictures(plot)
    assert picture.shape[1] > 200 and picture.shape[2] > 300
    assert picture.std() > 0.02


def test_progress(graph, first):
    """Tuning, inversion and sampling count their steps up to the right total: every one, unless the host sends ten
    messages a second at most, as newer ones do."""
    throttled = "PROGRESS_THROTTLE_MIN_INTERVAL" in (locate() / "comfy" / "utils.py").read_text(encoding="utf-8")
    totals = {"EI2_OneShotTune": TUNE_STEPS, "EI2_Invert": INVERT_STEPS, "EI2_EditSample": INVERT_STEPS}
    for class_type, total in totals.items():
        for name in names(graph, class_type):
            states = first.progress(name)
            assert states[-1] == (total, total), class_type
            counted = [done for done, of in states if of == total]
            least = total / 3 if throttled else total
            assert counted == sorted(counted) and len(set(counted)) >= least, (class_type, states)


def test_second_run_is_cached(client, graph, first):
    second = run(client, graph)
    assert second.executed() == set()
    assert second.shown() == first.shown() != set()


def test_other_edit_prompt_keeps_the_tuning(client, graph, first):
    """Only what depends on the edit prompt runs again, and its result differs; the reconstruction stays."""
    saver, compared = (
        next(name for name in names(graph, "SaveVideo") if graph[name]["inputs"]["filename_prefix"] == f"EI2/{end}")
        for end in ("edit", "comparison")
    )
    video = graph[saver]["inputs"]["video"][0]
    decode = graph[video]["inputs"]["images"][0]
    carried = graph[decode]["inputs"]["samples"][0]
    edit = graph[carried]["inputs"]["latent"][0]
    prompt = graph[edit]["inputs"]["positive"][0]
    comparison = {compared, graph[compared]["inputs"]["video"][0], only(graph, "EI2_Compare")}
    other = run(client, changed(graph, {f"{prompt}.text": "a duck in a city street"}))
    assert other.executed() == {prompt, edit, carried, decode, video, saver, *comparison}
    assert other.files(saver) != first.files(saver)


def test_first_workflow_makes_the_same_edit(client, graph, first, exact):
    """With fewer nodes to look at; its video shows the source beside the edit."""
    short = bundled("quickstart", FRAMES, TUNE_STEPS, INVERT_STEPS)
    frames = lambda decode: {"frames": node("SaveImage", images=(decode, 0), filename_prefix="frames")}
    result = run(client, {**short, **frames(only(short, "VAEDecode"))})
    edit = next(name for name in names(graph, "VAEDecode") if "edit" in graph[name]["_meta"]["title"])
    whole = run(client, {**graph, **frames(edit)})
    assert same_pictures(result.pictures("frames"), whole.pictures("frames"), exact)
    (file,) = files_of(short, result.outputs, "EI2/quickstart")
    with av.open(io.BytesIO(client.view(file))) as container:
        stream = container.streams.video[0]
        assert stream.width > 2 * SIZE - 1 and stream.average_rate == FPS


@pytest.fixture(scope="module")
def small(session_client):
    """A small edit and its reconstruction, whose tuning and inversion the tests below find in the cache."""
    return run(session_client, reconstruct(edit_graph()))


def test_small_edit_differs_from_reconstruction(small):
    edit, reconstruction = small.pictures("save"), small.pictures("save_reconstruction")
    assert edit.shape == (4, 3, 64, 64) == reconstruction.shape
    assert (edit - reconstruction).abs().max() > 0.05


@pytest.mark.parametrize("cfg", (1.0, 7.5))
def test_same_as_the_hosts_sampler(client, small, exact, cfg):
    """The inversion's noise and sigmas through SamplerCustom give what EI2 Edit Sample gives."""
    prompt = "source_prompt" if cfg == 1 else "edit_prompt"
    sampler = node(
        "SamplerCustom",
        model=("tune", 0),
        add_noise=False,
        noise_seed=5,
        cfg=cfg,
        positive=(prompt, 0),
        negative=("negative", 0),
        sampler=("ddim", 0),
        sigmas=("invert", 2),
        latent_image=("invert", 1),
    )
    graph = {**reconstruct(edit_graph()), "ddim": node("KSamplerSelect", sampler_name="ddim"), "custom": sampler}
    result = run(client, {**graph, **save_frames("_custom", ("custom", 0))})
    assert "tune" not in result.executed() and "custom" in result.executed()
    ours = small.pictures("save_reconstruction" if cfg == 1 else "save")
    assert same_pictures(result.pictures("save_custom"), ours, exact)


def test_advanced_ksampler_takes_the_tuned_model(client, small):
    sampler = node(
        "KSamplerAdvanced",
        model=("tune", 0),
        add_noise="disable",
        noise_seed=0,
        steps=4,
        cfg=7.5,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        positive=("edit_prompt", 0),
        negative=("negative", 0),
        latent_image=("invert", 1),
        start_at_step=0,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    result = run(client, {**edit_graph(), "sampler": sampler, **save_frames("_sampler", ("sampler", 0))})
    pictures = result.pictures("save_sampler")
    assert pictures.shape == (4, 3, 64, 64)
    assert (pictures.std(dim=(1, 2, 3)) > 0.02).all()


def test_presets(client, small):
    """All run, and each gives another result."""
    results = [small.pictures()]
    for preset in ("Tune-A-Video", "Video-P2P", "Vid2Vid-zero", "Per-frame"):
        results.append(run(client, edit_graph(preset=preset)).pictures())
    for i, result in enumerate(results):
        assert all(not torch.equal(result, other) for other in results[:i])


def test_untouched_model_after_all_this(client, forget, exact):
    """A picture from the plain model is the same before and after the same model was inflated, tuned and sampled."""
    sampler = node(
        "KSampler",
        model=("mini", 0),
        seed=3,
        steps=4,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        positive=("edit_prompt", 0),
        negative=("negative", 0),
        latent_image=("empty", 0),
        denoise=1.0,
    )
    empty = node("EmptyLatentImage", width=64, height=64, batch_size=2)
    edit = edit_graph()
    plain = {
        **{name: edit[name] for name in ("mini", "edit_prompt", "negative")},
        "empty": empty,
        "plain": sampler,
        **save_frames("_plain", ("plain", 0)),
    }
    forget()
    before = run(client, plain)
    assert "mini" in before.executed()
    run(client, edit)
    # Another seed in between, so that the second run of the first seed is computed, not remembered.
    run(client, changed(plain, {"plain.seed": 4}))
    after = run(client, plain)
    assert "plain" in after.executed() and "mini" not in after.executed()
    assert same_pictures(before.pictures("save_plain"), after.pictures("save_plain"), exact)
