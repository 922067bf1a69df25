"""Tunings that stop and go on, in the host: exactly the unbroken run, and nothing else."""

from __future__ import annotations

import comfy.utils
import folder_paths
import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

STEPS, EVERY = 6, 2


@pytest.fixture
def folder(pack, tmp_path):
    """Where snapshots go."""
    key = pack("host.folders").TUNES
    folder_paths.add_model_folder_path(key, str(tmp_path), is_default=True)
    yield tmp_path / "snapshots"
    folder_paths.folder_names_and_paths[key][0].remove(str(tmp_path))


class Cancelled(Exception):
    pass


@pytest.fixture
def bar(monkeypatch):
    """The host's progress bar: what it is told, and a step at which the user cancels. Newer hosts leave out what comes
    within a tenth of a second; here every step counts."""
    if hasattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL"):
        monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)

    class Bar:
        def __init__(self):
            self.seen, self.pictures, self.cancel_at = [], {}, None

        def __call__(self, value, total, preview=None, **kwargs):
            self.seen.append(value)
            if preview:
                self.pictures[value] = preview
            if value == self.cancel_at:
                raise Cancelled

    bar = Bar()
    comfy.utils.set_progress_bar_global_hook(bar)
    yield bar
    comfy.utils.set_progress_bar_global_hook(None)


@pytest.fixture
def node(pack, source):
    """EI2 One-Shot Tune: the tune, and what the node shows."""
    execute = pack("nodes.one_shot_tune").OneShotTune.execute

    def node(model, latents, steps=STEPS, learning_rate=1e-2, seed=0, positive=None, checkpointing="off", **others):
        samples = {"samples": latents}
        training = (steps, learning_rate, seed, "auto", checkpointing)
        output = execute(model, samples, positive or source, *training, **others)
        return output.args[1], output.ui["text"][0]

    return node


def cancelled_at(step, bar, node, *arguments, **others):
    bar.cancel_at = step
    with pytest.raises(Cancelled):
        node(*arguments, **others)
    bar.cancel_at = None


def assert_same(a, b):
    assert a.losses == b.losses
    for one, two in ((a.temporal, b.temporal), (a.query, b.query)):
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization": "strict"},
        {"spatial": "sca", "temporal": "attention", "group_norm": "video"},
        {"spatial": "none", "temporal": "none"},
    ],
    ids=["EI2", "strict", "Tune-A-Video", "Per-frame"],
)
def test_a_cancelled_run_goes_on_exactly(options, model, inflate, node, bar, folder, random_clip):
    inflated, clip = inflate(model, **options), random_clip()
    expected, _ = node(inflated, clip)
    cancelled_at(5, bar, node, inflated, clip, snapshot_every=EVERY)
    (file,) = folder.iterdir()
    bar.seen.clear()
    resumed, told = node(inflated, clip, resume_from=file.name, snapshot_every=EVERY)
    assert_same(resumed, expected)
    assert bar.seen == [5, 6]  # from step 4 on: one step was lost
    assert "6 steps, 2 of them now" in told and f"snapshots/{file.name}" in told
    assert [one.name for one in folder.iterdir()] == [file.name]


def test_a_cancelled_run_on_windows_goes_on_exactly(model, inflate, node, bar, folder, random_clip):
    """It sees the windows that the unbroken run sees, and pictures of them."""
    inflated, clip = inflate(model), random_clip(frames=5)
    expected, _ = node(inflated, clip, window_frames=2)
    assert expected.losses != node(inflated, clip)[0].losses
    cancelled_at(5, bar, node, inflated, clip, window_frames=2, snapshot_every=EVERY)
    (file,) = folder.iterdir()
    resumed, _ = node(inflated, clip, window_frames=2, resume_from=file.name, preview_every=1)
    assert_same(resumed, expected)
    assert list(bar.pictures) == [5, 6] and bar.pictures[5][1].width == 2 * 10 * 22
    with pytest.raises(ValueError, match="window_frames 2, but this tuning has 3"):
        node(inflated, clip, window_frames=3, resume_from=file.name)


def test_a_cancelled_run_of_the_other_optimizer_goes_on_exactly(model, inflate, node, bar, folder, random_clip):
    inflated, clip = inflate(model), random_clip()
    expected, _ = node(inflated, clip, optimizer="factored AdamW")
    assert expected.losses != node(inflated, clip)[0].losses
    cancelled_at(5, bar, node, inflated, clip, optimizer="factored AdamW", snapshot_every=EVERY)
    (file,) = folder.iterdir()
    assert_same(node(inflated, clip, optimizer="factored AdamW", resume_from=file.name)[0], expected)
    with pytest.raises(ValueError, match="optimizer factored AdamW, but this tuning has AdamW"):
        node(inflated, clip, resume_from=file.name)


def test_a_finished_run_goes_on_with_more_steps(model, inflate, node, folder, random_clip):
    inflated, clip = inflate(model), random_clip()
    first, _ = node(inflated, clip, steps=3, snapshot_every=100)
    (file,) = folder.iterdir()
    again, told = node(inflated, clip, steps=3, resume_from=file.name)
    assert_same(again, first)
    assert "3 steps, 0 of them now" in told
    longer, _ = node(inflated, clip, steps=5, resume_from=file.name)
    assert_same(longer, node(inflated, clip, steps=5)[0])
    with pytest.raises(ValueError, match="has done 3 steps, but this tuning ends after 2: set steps to 3 or more"):
        node(inflated, clip, steps=2, resume_from=file.name)


def test_steps_and_rate_on_auto(pack, model, inflate, node, folder, random_clip):
    """A clip of noise holds little to learn, so the tuning ends before its limit. A number for steps is kept to."""
    inflated, clip = inflate(model), random_clip(frames=2)
    tune, told = node(inflated, clip, steps=0, learning_rate=0)
    most = pack("host.automatic").NARROW_STEPS
    done = len(tune.losses)
    assert done % (most // pack("ei2.early_stop").CHECKS) == 0 and done < most
    assert tune.training.learning_rate == pack("host.automatic").NARROW_RATE
    assert told == f"{done} steps, then little more was learned\nlearning rate 0.003"
    same, told = node(inflated, clip, steps=done, learning_rate=0)
    assert_same(same, tune)
    assert told == f"{done} steps\nlearning rate 0.003"
    with pytest.raises(ValueError, match="learning_rate is 1e-07: set it to 1e-06 or more, or to 0"):
        node(inflated, clip, learning_rate=1e-7)


def test_an_early_end_is_snapshot_and_fills_the_bar(pack, model, inflate, node, bar, folder, random_clip, monkeypatch):
    monkeypatch.setattr(
        pack("ei2.early_stop"), "LEAST", 0.5
    )  # no loss falls so fast: ends at the first or second check
    inflated, clip = inflate(model), random_clip(frames=3)
    tune, _ = node(inflated, clip, steps=0, learning_rate=0, window_frames=2, snapshot_every=1000)
    (file,) = folder.iterdir()
    done = len(tune.losses)
    assert done < pack("host.automatic").NARROW_STEPS and bar.seen[-1] == done
    again, told = node(inflated, clip, steps=done, learning_rate=0, window_frames=2, resume_from=file.name)
    assert_same(again, tune)
    further, _ = node(inflated, clip, steps=0, learning_rate=0, window_frames=2, resume_from=file.name)
    assert further.losses[:done] == tune.losses


def test_snapshots_and_pictures_leave_no_trace(model, inflate, node, bar, folder, random_clip):
    inflated, clip = inflate(model), random_clip(frames=4)
    plain, told = node(inflated, clip)
    assert told == "6 steps" and not bar.pictures and not folder.exists()
    watched, _ = node(inflated, clip, snapshot_every=1, preview_every=2)
    assert_same(watched, plain)
    assert list(bar.pictures) == [2, 4, 6]
    kind, picture, _ = bar.pictures[2]
    assert kind == "JPEG" and (picture.width, picture.height) == (3 * 10 * 22, 2 * 6 * 22)  # frames over frames
    node(inflated, clip, preview_every=3, checkpointing="on")
    assert list(bar.pictures) == [2, 4, 6, 3]


def test_the_picture_shows_what_was_learned(model, inflate, node, bar, folder):
    """A clip the model does not know: below it, step by step, the same colours appear."""
    clip = (torch.tensor([9.0, -9.0, 9.0, -9.0]).view(1, 4, 1, 1) * torch.ones(2, 4, 4, 4)).contiguous()
    node(inflate(model), clip, steps=40, learning_rate=3e-3, preview_every=20)
    errors = []
    for _, picture, _ in bar.pictures.values():
        above, below = np.split(np.asarray(picture.convert("RGB"), dtype=np.float32), 2)
        errors.append(np.abs(above - below).mean())
    assert len(errors) == 2 and errors[1] < errors[0]


def test_other_runs_are_refused(pack, model, inflate, tune, node, bar, folder, random_clip, encode):
    inflated, clip = inflate(model), random_clip()
    node(inflated, clip, steps=1, snapshot_every=1)
    (file,) = folder.iterdir()
    tuned = tune(inflated, clip)[0]
    bar.seen.clear()

    def refused(words, *arguments, **others):
        with pytest.raises(ValueError, match=words):
            node(*arguments, resume_from=file.name, **others)

    refused("seed 0, but this tuning has 1", inflated, clip, seed=1)
    refused("learning_rate 0.01, but this tuning has 0.001", inflated, clip, learning_rate=1e-3)
    refused("spatial ffam, but this tuning has sca", inflate(model, "Tune-A-Video"), clip)
    refused("another clip", inflated, random_clip(seed=1))
    refused("a different source prompt", inflated, clip, positive=encode("a red circle"))
    refused("with different earlier training", tuned, clip)
    lora = inflated.clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_k.weight"
    lora.add_patches({key: ("diff", (torch.ones(256, 256),))}, 0.1)
    refused("with other LoRAs or patches: load the same ones", lora, clip)
    assert not bar.seen  # nothing began
    validate = pack("nodes.one_shot_tune").OneShotTune.validate_inputs
    assert validate() is True is validate(None) and validate(file.name) is True
    assert "There is no snapshot" in validate("gone.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot be read" in validate(file.name)


def test_a_snapshot_that_cannot_be_written_does_not_end_the_tuning(model, inflate, node, folder, random_clip):
    folder.write_text("a file in the folder's place")
    tune, told = node(inflate(model), random_clip(), steps=2, snapshot_every=1)
    assert len(tune.losses) == 2 and "no snapshot at step 2, tuning continues: " in told


def test_a_prompt_whose_parts_have_the_same_text(model, inflate, node, folder, random_clip, source):
    (text, options), *_ = source
    halves = [[text, {**options, "start_percent": a, "end_percent": b}] for a, b in ((0.0, 0.5), (0.5, 1.0))]
    _, told = node(inflate(model), random_clip(), steps=1, positive=halves, snapshot_every=1)
    assert "snapshot at step 1: " in told and len(list(folder.iterdir())) == 1


def test_what_else_steers_the_model_is_part_of_the_run(pack, model, inflate, source, random_clip):
    """Other options on the prompt or other nodes on the model: another file, and no resuming from it."""
    describe, settings = pack("host.snapshots").describe_run, pack("ei2.tuning").TuneSettings(2)
    inflated, patched = inflate(model), inflate(model)
    patched.set_model_output_block_patch(lambda h, hsp, options: (1.1 * h, hsp))
    with_options = lambda **options: [[text, {**more, **options}] for text, more in source]
    area = with_options(area=(4, 4, 0, 0), strength=0.5)
    plain = describe(inflated, random_clip(), source, settings)
    for other in (
        describe(inflated, random_clip(), area, settings),
        describe(patched, random_clip(), source, settings),
    ):
        assert other.name != plain.name
        with pytest.raises(ValueError, match="other options on the source prompt.*or with other nodes on the model"):
            plain.check(other, "s")
    zsnr = inflated.clone()
    schedule = zsnr.get_model_object("model_sampling")
    zsnr.add_object_patch("model_sampling", type(schedule)(model.model.model_config, zsnr=True))
    assert describe(zsnr, random_clip(), source, settings).name != plain.name
    pooled = describe(inflated, random_clip(), with_options(pooled_output=torch.zeros(1, 8)), settings)
    assert pooled.name == plain.name  # the text itself counts
