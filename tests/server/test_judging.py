"""The nodes that judge an edit, on a real server around the quickstart's graph."""

from __future__ import annotations

import io

import av
import pytest

from devtools.demo.workflows import files_of

from .graphs import SOURCE_PROMPT, changed, controlled, edit_graph, fail, node, reconstruct, run

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def graph():
    """An edit of the left half with attention control by a recipe's values, its reconstruction, and all that looks at
    them."""
    graph = reconstruct(controlled(edit_graph(tune_steps=2)))
    wires = {
        "tune.learning_rate": ("recipe", 1),
        "edit.cfg": ("recipe", 2),
        "control.cross_replace": ("recipe", 3),
        "control.self_replace": ("recipe", 4),
        "invert.trajectory": True,
        "edit.mask": ("mask", 0),
    }
    video = node("CreateVideo", images=("compare", 0), fps=("video", 1))
    return {
        **changed(graph, wires),
        "recipe": node("EI2_Recipe", recipe="swap the object", model_kind="bundled miniature"),
        "check": node("EI2_ReconstructionCheck", source=("video", 0), reconstruction=("decode_reconstruction", 0)),
        "compare": node(
            "EI2_Compare",
            video_1=("video", 0),
            video_2=("decode_reconstruction", 0),
            video_3=("decode", 0),
            layout="grid",
            labels="source\nreconstruction\nedit",
        ),
        "film": video,
        "film_file": node("SaveVideo", video=("film", 0), filename_prefix="EI2/compared", format="auto", codec="auto"),
        "white": node("SolidMask", value=1.0, width=32, height=64),
        "black": node("SolidMask", value=0.0, width=64, height=64),
        "mask": node("MaskComposite", destination=("black", 0), source=("white", 0), x=0, y=0, operation="add"),
        "metrics": node("EI2_Metrics", source=("video", 0), edit=("decode", 0), mask=("mask", 0)),
        "note": node("PreviewAny", source=("recipe", 5)),
    }


@pytest.fixture(scope="module")
def result(session_client, graph):
    return run(session_client, graph)


def test_each_shows_its_result_in_the_node(result):
    advice, lines, note = (result.outputs[name]["text"][0] for name in ("check", "metrics", "recipe"))
    assert " dB, SSIM " in advice and "worst" in advice
    assert "flicker" in lines and "background: PSNR" in lines and "alignment" not in lines
    assert note == result.outputs["note"]["text"][0] and "swap the object (bundled miniature)" in note
    for name in ("check", "compare", "metrics"):
        (picture,) = result.pictures(name)
        assert min(picture.shape[1:]) > 200 and picture.std() > 0.05, name


def test_outside_the_mask_the_clip_comes_back(result):
    """All but what the decoder's edge takes in, and better than the reconstruction of so few steps."""
    scores = dict(line.rsplit(": ", 1) for line in result.outputs["metrics"]["text"][0].splitlines())
    reconstruction = float(result.outputs["check"]["text"][0].split(" dB")[0])
    assert float(scores["background: PSNR outside the mask, dB"]) > reconstruction


def test_the_comparison_can_be_saved_as_a_video(client, graph, result):
    (file,) = files_of(graph, result.outputs, "EI2/compared")
    with av.open(io.BytesIO(client.view(file))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4 and frames[0].shape == (2 * (20 + 64) + 2, 130, 3)


def test_progress(result):
    for name, total in (("check", 4), ("compare", 3 * 4), ("metrics", 2 * 4)):
        assert result.progress(name)[-1] == (total, total), name


def test_what_does_not_fit_is_refused(client, graph):
    missing = changed(graph, {"recipe.recipe": "soup"})
    failure = fail(client, missing)
    assert failure.node == "recipe" and "There is no recipe 'soup'" in failure.message
    unmatched = changed(graph, {"metrics.clip": ("mini", 1), "metrics.prompt": SOURCE_PROMPT})
    failure = fail(client, unmatched)
    assert failure.node == "metrics" and "connect clip_vision as well as clip" in failure.message
