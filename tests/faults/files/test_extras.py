"""What is nice to have fails: previews, pictures, plots. The work goes on, its result is the same, the log a line."""

from __future__ import annotations

import comfy.utils
import folder_paths
import latent_preview
import pytest
import torch
from safetensors.torch import save_file

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


class Full(OSError):
    pass


def failing(*args, **kwargs):
    raise Full(28, "No space left on device")


@pytest.fixture
def taesd(monkeypatch, tmp_path):
    """`--preview-method taesd`, and where its decoder lies: `taesd(content)` puts one there, by default a real one."""
    from comfy.cli_args import LatentPreviewMethod
    from comfy.taesd.taesd import TAESD

    monkeypatch.setattr(latent_preview.args, "preview_method", LatentPreviewMethod.TAESD)
    known = folder_paths.folder_names_and_paths["vae_approx"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", ([str(tmp_path)], known[1]))
    folder_paths.filename_list_cache.pop("vae_approx", None)

    def put(content: bytes | None = None) -> None:
        file = tmp_path / "taesd_decoder.safetensors"
        if content is None:
            torch.manual_seed(0)
            with torch.inference_mode(False):
                save_file(TAESD(latent_channels=4).taesd_decoder.state_dict(), file)
        else:
            file.write_bytes(content)

    yield put
    folder_paths.filename_list_cache.pop("vae_approx", None)


@pytest.fixture
def pictures():
    """What the progress bar shows, by step."""
    seen = {}
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview=None, **others: seen.update({value: preview[1]} if preview else {})
    )
    yield seen
    comfy.utils.set_progress_bar_global_hook(None)


@pytest.fixture
def tuned(pack, model, inflate, source, learned):
    node = pack("nodes.one_shot_tune").OneShotTune

    def tuned(**others):
        clip = {"samples": learned[2]}
        return node.execute(inflate(model), clip, source, 2, 1e-2, 0, "auto", "off", preview_every=1, **others)

    return tuned


def test_tuning_with_the_decoder_that_the_user_chose(tuned, taesd, pictures, caplog):
    taesd()
    output = tuned()
    assert list(pictures) == [1, 2] and output.args[1].picture and "the job continues" not in caplog.text
    assert pictures[1].size != (3 * 10 * 22, 2 * 6 * 22)  # not the linear map's


@pytest.mark.parametrize("content", [b"", b"no decoder"])
def test_tuning_with_a_decoder_that_cannot_be_read(tuned, taesd, pictures, caplog, content, learned):
    """The linear map stands in."""
    expected = tuned().args[1]
    taesd(content)
    output = tuned()
    assert list(pictures) == [1, 2] and output.args[1].picture
    assert output.args[1].losses == expected.losses
    assert "no chosen previewer, the job continues" in caplog.text


def test_sampling_with_a_decoder_that_cannot_be_read(pack, model, inflate, source, encode, taesd, learned, caplog):
    clip = {"samples": learned[2]}
    inversion = pack("nodes.invert").Invert.execute(inflate(model), clip, source, 2, 0, cache=False).args[0]
    sample = pack("nodes.edit_sample").EditSample.execute
    run = lambda: sample(inflate(model), inversion, source, encode(""), 2.0).args[0]["samples"]
    expected = run()
    taesd(b"no decoder")
    assert torch.equal(run(), expected)
    assert caplog.text.count("no preview, the job continues") == 1


def test_previews_that_fail_while_it_runs(pack, model, inflate, source, encode, learned, monkeypatch, caplog, tuned):
    """As of a decoder on another device than the latents: the fault comes with the first picture."""
    clip = {"samples": learned[2]}
    inversion = pack("nodes.invert").Invert.execute(inflate(model), clip, source, 2, 0, cache=False).args[0]
    sample = pack("nodes.edit_sample").EditSample.execute
    run = lambda: sample(inflate(model), inversion, source, encode(""), 2.0).args[0]["samples"]
    expected, tune = run(), tuned().args[1]

    class Failing(latent_preview.LatentPreviewer):
        def decode_latent_to_preview(self, x0):
            raise RuntimeError("Expected all tensors to be on the same device")

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *args: Failing())
    assert torch.equal(run(), expected)
    assert caplog.text.count("no preview, the job continues") == 1
    assert tuned().args[1].losses == tune.losses


@pytest.mark.parametrize("module, name", [("ui", "draw"), ("tuning", "draw")])
def test_pictures_that_fail(pack, tuned, pictures, monkeypatch, caplog, module, name):
    monkeypatch.setattr(pack(f"host.{module}"), name, failing)
    output = tuned()
    assert len(output.args[1].losses) == 2 and "the job continues" in caplog.text
    assert (output.args[1].picture == b"") == (module == "ui")
    assert list(pictures) == ([1, 2] if module == "ui" else [])


def test_plots_that_fail(pack, tuned, model, inflate, source, learned, monkeypatch, caplog):
    """A black picture is in their place, and the numbers are there."""
    for module in ("plots", "score_plots"):
        monkeypatch.setattr(pack(f"nodes.pictures.{module}"), "to_image", failing)
    clip = torch.rand(3, 64, 64, 3)
    runs = {
        "tune": lambda: tuned().args[2],
        "check": lambda: pack("nodes.reconstruction_check").ReconstructionCheck.execute(clip, clip).args[4],
        "metrics": lambda: pack("nodes.metrics").Metrics.execute(clip, clip).args[1],
        "probe": lambda: (
            pack("nodes.shift_probe")
            .ShiftProbe.execute(inflate(model), {"samples": learned[2]}, source, "1, 500")
            .args[0]
        ),
    }
    for name, run in runs.items():
        caplog.clear()
        plot = run()
        assert plot.shape[-1] == 3 and not plot.any(), name
        assert caplog.text.count("no plot, the job continues") == 1, name


def test_cancelling_is_no_fault(pack, monkeypatch):
    from comfy.model_management import InterruptProcessingException

    def cancelled():
        raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        pack("host.ui").extra("preview", cancelled)


def test_words_that_are_formulas_to_the_plotting_library(pack):
    maps = torch.rand(3, 2, 4, 4)
    assert pack("nodes.pictures.attention_maps").draw_maps(maps, ["$x^$", "$$", "\\frac{"]).shape[-1] == 3


def test_covers_of_a_tune(pack, folder, learned, monkeypatch):
    """Only a small PNG is opened; else the tune comes without a picture, at once, and no other program is started."""
    import base64
    import io
    import json
    import subprocess
    import time
    import zlib

    from PIL import Image

    from .hostile import rewrite

    def image(kind: str, size=(8, 8), **options) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", size).save(content, kind, **options)
        return content.getvalue()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    def huge(width: int, height: int) -> bytes:
        head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
        packer = zlib.compressobj(9)
        lines = packer.compress(bytes(3 * min(width, 13000) + 1)) * 10 + packer.flush()
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")

    covers = {
        "eps": image("EPS"),
        "jpeg": image("JPEG"),
        "gif": image("GIF"),
        "tiff": image("TIFF"),
        "bmp": image("BMP"),
        "huge": huge(13_000, 13_000),
        "as wide as can be": huge(2**31 - 1, 1),
        "cut": image("PNG")[:40],
        "text": b"<svg onload=alert(1)>",
        "nothing": b"",
        "noise": bytes(range(256)),
    }
    texts = {name: json.dumps([base64.b64encode(content).decode()]) for name, content in covers.items()}
    texts |= {
        "no JSON": "[",
        "no list": "1",
        "no text": "[1]",
        "none": "[]",
        "deep": "[" * 200_000,
        "no base64": '["ä"]',
        "null": "[null]",
        "a dictionary": '{"0": "x"}',
        "large": json.dumps(["A" * 4_000_000]),
    }
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    pack("nodes.save_tune").SaveTune.execute(learned[1], "jeep")
    (path,) = folder.iterdir()
    load = pack("nodes.load_tune").LoadTune
    assert "images" in load.execute(path.name).ui
    begin = time.monotonic()
    for name, text in texts.items():
        rewrite(path, "ei2_tune", **{"ssmd_cover_images": text})
        assert load.validate_inputs(path.name) is True, name
        output = load.execute(path.name)
        assert output.args[0].frames == 3 and "images" not in output.ui, name
    assert time.monotonic() - begin < 30 and not started
    rewrite(path, "ei2_tune", ssmd_cover_images=json.dumps([base64.b64encode(image("PNG")).decode()]))
    assert "images" in load.execute(path.name).ui
