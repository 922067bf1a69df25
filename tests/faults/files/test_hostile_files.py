"""Tunes, snapshots and kept inversions that anybody may have made: one sentence names the file, nothing is raw."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from . import hostile

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


def names(path) -> list[str]:
    with safe_open(path, "pt") as file:
        return sorted(file.keys())


def record(path, kind: str) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[kind])


def spread(cases, rounds) -> list:
    """All with `--all`, else some, evenly chosen."""
    return list(cases)[:: rounds(13, 1)]


def hostile_ones(good, kind: str, rounds, representatives: list[str]):
    """`(what, make)` for every hostile variant; `make(path)` writes it."""
    for what, change in spread(hostile.records(record(good, kind)), rounds):
        yield what, lambda path, change=change: (shutil.copy(good, path), hostile.rewrite(path, kind, change))
    for what, change in spread(hostile.tensors(representatives), rounds):
        yield what, lambda path, change=change: (shutil.copy(good, path), hostile.rewrite(path, kind, change))
    for what, texts in hostile.texts(kind):
        yield what, lambda path, texts=texts: (shutil.copy(good, path), hostile.rewrite(path, kind, **texts))
    for what, content in hostile.bytes_of(good, rounds(10, 200)):
        yield what, lambda path, content=content: path.write_bytes(content)


def check_sentence(text: str, name: str, what: str) -> None:
    assert name in text and "\n" not in text and len(text) < 700, (what, text)
    assert text.isprintable() and "<" not in text, (what, text)
    for word in ("KeyError", "TypeError", "RecursionError", "Traceback", "NoneType", "unsupported operand"):
        assert word not in text, (what, text)


def representatives(names: list[str]) -> list[str]:
    """One tensor of each kind."""
    kinds = {}
    for name in names:
        parts = name.split(".")
        kinds.setdefault((parts[0], parts[-2:][0], parts[-1]), name)
    return list(kinds.values())


def test_tunes(pack, folder, model, learned, rounds):
    """Loaded and put on the model: each works, or is refused by a sentence; most are refused before anything runs."""
    pack("nodes.save_tune").SaveTune.execute(learned[1], "good", "a jeep")
    (good,) = folder.iterdir()
    load, apply, kind = pack("nodes.load_tune").LoadTune, pack("nodes.apply_tune").ApplyTune, "ei2_tune"
    tried = refused = 0
    for what, make in hostile_ones(good, kind, rounds, representatives(names(good))):
        path = folder / "bad.safetensors"
        make(path)
        tried += 1
        valid = load.validate_inputs(path.name)
        if valid is not True:
            check_sentence(valid, path.name, what)
        try:
            tune, info = load.execute(path.name).args
            assert valid is True, (what, valid)
            assert "<" not in info and len(info) < 10_000
            tuned = apply.execute(model, tune, 1.0, 1.0).args[0]
            assert tuned is not model
        except ValueError as error:
            refused += 1
            if "made on" not in str(error) and "made with" not in str(error):  # another family, another inflation
                check_sentence(str(error), path.name, what)
    print(f"{tried} tunes, {refused} refused")
    assert refused > 0.5 * tried, (refused, tried)


def test_a_tune_whose_weights_are_another_models(pack, folder, model, learned):
    """Whole in itself, so that only the model can tell: names and shapes that do not fit."""
    pack("nodes.save_tune").SaveTune.execute(learned[1], "good")
    (good,) = folder.iterdir()
    block = next(name for name in names(good) if name.startswith("temporal.")).split(".")[1]

    def without_a_block(record, tensors):
        for name in [name for name in tensors if name.startswith(f"temporal.{block}.")]:
            del tensors[name]
        record["tensors"] = len(tensors)

    def wider(record, tensors):
        for name in [name for name in tensors if name.startswith(f"temporal.{block}.")]:
            tensors[name] = torch.zeros([2 * side for side in tensors[name].shape])

    def one_query_less(record, tensors):
        del tensors[next(name for name in tensors if name.startswith("query."))]
        record["tensors"] = len(tensors)

    for change in (without_a_block, wider, one_query_less):
        shutil.copy(good, folder / "other.safetensors")
        hostile.rewrite(folder / "other.safetensors", "ei2_tune", change)
        tune = pack("nodes.load_tune").LoadTune.execute("other.safetensors").args[0]
        with pytest.raises(ValueError, match="other.safetensors does not fit this model .its .*: tune again"):
            pack("nodes.apply_tune").ApplyTune.execute(model, tune, 1.0, 1.0)


def test_snapshots(pack, folder, model, inflate, source, learned, rounds):
    """Resumed from: each goes on, or is refused by a sentence."""
    node, inflated, clip = pack("nodes.one_shot_tune").OneShotTune, inflate(model), {"samples": learned[2]}
    run = lambda steps, **more: node.execute(inflated, clip, source, steps, 1e-2, 0, "auto", "off", **more)
    run(1, snapshot_every=1)
    (good,) = (folder / "snapshots").iterdir()
    bad, tried, refused = good.with_name("bad.safetensors"), 0, 0
    load, BadFile = pack("ei2.snapshot_file").load_snapshot, pack("ei2.tensor_file").BadFile
    for what, make in hostile_ones(good, "ei2_snapshot", rounds, representatives(names(good))):
        make(bad)
        tried += 1
        valid = node.validate_inputs(bad.name)
        if valid is not True:
            refused += 1
            check_sentence(valid, bad.name, what)
            with pytest.raises(BadFile):
                load(bad)
            continue
        try:
            run(1, resume_from=bad.name)  # nothing left to do: it only takes everything in
        except ValueError as error:
            refused += 1
            check_sentence(str(error), bad.name, what)
    print(f"{tried} snapshots, {refused} refused")
    assert refused > 0.5 * tried, (refused, tried)
    assert len(run(2, resume_from=good.name).args[1].losses) == 2


def test_kept_inversions(pack, folder, model, inflate, source, learned, rounds, caplog):
    """Each is computed anew where it is damaged, and what comes out is the same."""
    cache, node = pack("host.inversion_cache"), pack("nodes.invert").Invert
    inflated, clip = inflate(model), {"samples": learned[2]}
    expected = node.execute(inflated, clip, source, 1, 0, trajectory=True)
    (kept,) = cache.inversions_folder().iterdir()
    good = kept.with_name("good")
    shutil.copy(kept, good)
    refused, cases = 0, list(hostile_ones(good, cache.KIND, rounds, names(good)))
    for i, (what, make) in enumerate(cases):
        make(kept)
        if cache._load(kept.stem, learned[2], 1) is not None:
            continue
        refused += 1
        (sentence,) = {message for message in caplog.messages if kept.name in message}
        check_sentence(sentence, kept.name, what)
        caplog.clear()
        if i % 20 == 0:
            output = node.execute(inflated, clip, source, 1, 0, trajectory=True)
            assert output.ui["text"][0].startswith("computed and kept"), what
            for name in ("noise", "sigmas", "trajectory"):
                assert torch.equal(getattr(output.args[0], name), getattr(expected.args[0], name)), what
            caplog.clear()
    print(f"{len(cases)} inversions, {refused} refused")
    assert refused > 0.5 * len(cases), (refused, len(cases))


def test_names_that_are_not_unicode(pack, folder, learned, tmp_path):
    """As of archives packed on Windows and unpacked on Linux."""
    odd = os.fsdecode(b"caf\x82.safetensors")
    pack("nodes.save_tune").SaveTune.execute(learned[1], "good")
    (good,) = folder.iterdir()
    try:
        shutil.copy(good, folder / odd)
    except OSError as error:
        pytest.skip(f"this system takes no such name: {error}")
    load = pack("nodes.load_tune").LoadTune
    told = load.validate_inputs(odd)
    assert told == "caf\\x82.safetensors cannot be read, since its name or folder is not in Unicode: rename it."
    with pytest.raises(ValueError, match="rename it"):
        load.execute(odd)
    for name in (odd, "a\x1b[2J", "\u202egnp.exe", "\ud800"):
        told = pack("nodes.save_tune").SaveTune.validate_inputs(name)
        assert isinstance(told, str) and told.isprintable()
        with pytest.raises(ValueError):
            pack("nodes.save_tune").SaveTune.execute(learned[1], name)
        assert load.validate_inputs(f"{name}.safetensors").isprintable()
        assert pack("nodes.load_video").LoadVideo.validate_inputs(name).isprintable()
    assert "<" not in str(load.define_schema().inputs[0].options)


def test_names_that_are_markup_are_not_offered(pack, folder, learned):
    """Front ends put the names in a list into the page as HTML."""
    save_file({"a": torch.zeros(1)}, folder / "fine.safetensors")
    try:
        save_file({"a": torch.zeros(1)}, folder / f"{hostile.MARKUP}.safetensors")
    except Exception as error:  # Windows has no such names
        pytest.skip(str(error))
    assert pack("nodes.load_tune").LoadTune.define_schema().inputs[0].options == ["fine.safetensors"]
