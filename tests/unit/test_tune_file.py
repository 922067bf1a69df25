"""Tunes on disk: what is read is what was written, and broken or foreign files are refused in words."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ei2 import VERSION
from ei2.model_identity import ModelIdentity, check_base
from ei2.settings import PRESETS
from ei2.tensor_file import BadFile, read, write
from ei2.tune_file import COVERS, KIND, TuneResult, check_tune, load_tune, save_tune
from ei2.tuning import TuneSettings

SAMPLE = torch.randn(50, generator=torch.Generator().manual_seed(1))
BASE = ModelIdentity("f" * 64, "SD15 (320 channels)", SAMPLE, 2.0**-10, 6e-8)


def picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (6, 4), "orange").save(content, "PNG")
    return content.getvalue()


def a_tune(**others) -> TuneResult:
    torch.manual_seed(0)
    return TuneResult(
        settings=PRESETS["Tune-A-Video"],
        temporal={
            "middle.to_q.weight": torch.randn(4, 4),
            "middle.to_out.weight": torch.randn(4, 4),
            "middle.to_out.bias": torch.randn(4),
        },
        query={"middle.attn1.to_q.weight": torch.randn(4, 4).T},
        losses=[0.5, 0.25, 1 / 3],
        frames=8,
        size=(64, 40),
        training=TuneSettings(3, 1e-3, 2**64 - 1, "bf16"),
        base=BASE,
        picture=picture(),
        **others,
    )


def test_all_of_it_comes_back(tmp_path):
    path, tune = tmp_path / "sub" / "a.safetensors", a_tune()
    save_tune(path, tune, "a jeep on a road – ünïcode")
    saved = load_tune(path)
    assert (saved.version, saved.prompt) == (VERSION, "a jeep on a road – ünïcode")
    for field in dataclasses.fields(TuneResult):
        wanted, found = getattr(tune, field.name), getattr(saved.tune, field.name)
        if field.name in ("temporal", "query"):
            assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
        elif field.name == "file":
            assert (found, wanted) == ("a.safetensors", "")
        elif field.name == "base":
            assert torch.equal(found.sample, BASE.sample) and vars(found) | {"sample": 0} == vars(BASE) | {"sample": 0}
        else:
            assert found == wanted, field.name
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_the_description_tells_what_it_is(tmp_path):
    save_tune(tmp_path / "a.safetensors", a_tune(), "a jeep")
    text = load_tune(tmp_path / "a.safetensors").describe()
    for words in ("Tune-A-Video", "8 frames, 320 x 512", "3 steps at 0.001", "0.3333", "SD15", "a jeep", VERSION):
        assert words in text


def test_the_hosts_model_browser_finds_the_picture(tmp_path):
    """It reads the metadata key and shows its first picture."""
    import base64

    path = tmp_path / "a.safetensors"
    save_tune(path, a_tune())
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    (content,) = json.loads(json.loads(header)["__metadata__"][COVERS])
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (6, 4)


def test_others_may_read_it_if_they_may_read_new_files(tmp_path):
    """safetensors itself makes files for their owner alone."""
    save_tune(tmp_path / "a.safetensors", a_tune())
    (tmp_path / "new").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_tensors_that_share_memory_are_written(tmp_path):
    """safetensors itself refuses them."""
    one, path = torch.arange(6.0), tmp_path / "a.safetensors"
    write(path, "test", {"a": one, "b": one, "c": one[2:4], "d": one.reshape(2, 3)}, {})
    tensors, *_ = read(path, "test")
    assert torch.equal(tensors["b"], one) and tensors["c"].tolist() == [2, 3] and tensors["d"].shape == (2, 3)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tune(path, a_tune())
    before = path.read_bytes()
    with pytest.raises(TypeError):  # half of the record is no JSON
        save_tune(path, dataclasses.replace(a_tune(), losses=[0.1, object()]))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_cut_off_file_is_refused(tmp_path, share):
    path = tmp_path / "a.safetensors"
    save_tune(path, a_tune())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for reader in (load_tune, check_tune):
        with pytest.raises(BadFile, match="a.safetensors cannot be read .*: it is broken, cut off or not a safe"):
            reader(path)


def test_memory_that_runs_out_is_no_damage(tmp_path, monkeypatch):
    """The user would delete a good tune."""

    def exhausted(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")

    save_tune(tmp_path / "a.safetensors", a_tune())
    monkeypatch.setattr(torch.Tensor, "clone", exhausted)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_tune(tmp_path / "a.safetensors")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(BadFile, match="lora.safetensors is a file of another kind"):
        load_tune(path)
    save_file({"a": torch.zeros(2)}, path, {KIND: json.dumps({"format": 9, "version": "7.0"})})
    with pytest.raises(BadFile, match="written by version 7.0 of this pack, which this one .* cannot read: update"):
        load_tune(path)
    with pytest.raises(BadFile, match="cannot be read"):
        load_tune(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("version, newer", [("0.2.0", True), ("0.10", True), ("0.0.9", False), ("0.2.x", False)])
def test_what_a_newer_version_wrote_is_not_called_damaged(tmp_path, version, newer):
    """A preset with a further option, and one with a further choice."""
    path = tmp_path / "a.safetensors"
    save_tune(path, a_tune())
    tensors, record, _ = read(path, KIND)
    for change, reason in (({"shuffle": 2}, "it holds 'shuffle'"), ({"spatial": "ring"}, "spatial is 'ring'")):
        write(path, KIND, tensors, {**record, "version": version, "settings": {**record["settings"], **change}})
        after = f"was written by version {version} of this pack, which .* cannot read .*{reason}.*: update the pack"
        with pytest.raises(BadFile, match=after if newer else f"is damaged or was not made by this pack .*{reason}"):
            load_tune(path)


def test_the_version_is_the_projects():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1] == VERSION


def test_two_strengths():
    tune = a_tune()
    scaled = tune.scaled(0.5, 0.25)
    assert torch.equal(scaled.query["middle.attn1.to_q.weight"], 0.25 * tune.query["middle.attn1.to_q.weight"])
    for name in ("middle.to_out.weight", "middle.to_out.bias"):
        assert torch.equal(scaled.temporal[name], 0.5 * tune.temporal[name])
    assert torch.equal(scaled.temporal["middle.to_q.weight"], tune.temporal["middle.to_q.weight"])
    assert torch.equal(tune.scaled(0.5).query["middle.attn1.to_q.weight"], 0.5 * tune.query["middle.attn1.to_q.weight"])


def identity(sample=BASE.sample, **others) -> ModelIdentity:
    return dataclasses.replace(BASE, sample=sample, **others)


def test_the_same_model_gives_no_warning():
    assert check_base(BASE, identity()) == ""
    half = identity(BASE.sample.half().float())
    assert check_base(half, identity(rounding=2.0**-23)) == "" == check_base(identity(rounding=2.0**-23), half)
    fp8 = BASE.sample.to(torch.float8_e4m3fn)
    format8 = {"rounding": torch.finfo(fp8.dtype).eps, "smallest": 2.0**-9}
    assert check_base(BASE, identity(fp8.float(), **format8)) == ""


def test_another_checkpoint_of_the_family_gives_a_warning():
    other = identity(BASE.sample * (1 + 0.01 * BASE.sample.flip(0)))
    assert "another checkpoint of the same family" in check_base(BASE, other)
    assert "without LoRA" in check_base(BASE, identity(patches="p"))
    assert "with other LoRAs" in check_base(identity(patches="p"), BASE)


def test_another_family_is_refused_naming_both():
    other = identity(family="0", name="SDXL (640 channels)")
    with pytest.raises(ValueError, match="made on SD15 .320 channels., but this model is SDXL .640 channels."):
        check_base(BASE, other)
