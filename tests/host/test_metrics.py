"""EI2 Metrics on the host: CLIP's vectors from its own classes, the rows that are there and those that are not."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from comfy import sd1_clip, sdxl_clip
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

pytestmark = pytest.mark.host

SPACE = 48  # numbers of the tiny CLIP's space
WIDTH = {"hidden_size": SPACE, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
PROMPT = "a red circle on a dotted white background"


@pytest.fixture(autouse=True)
def temporary_pictures(tmp_path):
    """The previews go to a folder of this test."""
    import folder_paths

    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield
    folder_paths.set_temp_directory(before)


def fill(module: torch.nn.Module) -> None:
    """Random weights, which the host's classes come without."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            one = "norm" in name and name.endswith("weight")
            weight.copy_(torch.ones_like(weight) if one else 0.2 * torch.randn(weight.shape, generator=generator))


@pytest.fixture(scope="module")
def clip_vision(tmp_path_factory):
    """A CLIP vision model of random weights, 32 x 32 pixels, as the host builds them from a configuration."""
    file = tmp_path_factory.mktemp("clip") / "vision.json"
    config = {
        **WIDTH,
        "model_type": "clip_vision_model",
        "num_channels": 3,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": SPACE,
        "hidden_act": "quick_gelu",
    }
    file.write_text(json.dumps(config))
    model = ClipVisionModel(file)
    fill(model.model)
    return model


def text_model(parts: tuple[str, ...] = ("l",)) -> CLIP:
    """A CLIP text model of random weights in the host's own wrapping."""

    class Target:
        params = {}
        clip = sd1_clip.SD1ClipModel if parts == ("l",) else sdxl_clip.SDXLClipModel
        tokenizer = sd1_clip.SD1Tokenizer if parts == ("l",) else sdxl_clip.SDXLTokenizer

    sizes = {"l": WIDTH, "g": {**WIDTH, "hidden_size": 32}}
    options = {f"clip_{part}_model_config": dict(sizes[part]) for part in parts}
    clip = CLIP(Target, model_options={**options, "dtype": torch.float32})
    fill(clip.cond_stage_model)
    return clip


@pytest.fixture(scope="module")
def clip():
    return text_model()


@pytest.fixture(scope="module")
def metrics(pack):
    def metrics(*args, **inputs):
        with torch.inference_mode():
            return pack("nodes.metrics").Metrics.execute(*args, **inputs)

    return metrics


@pytest.fixture(scope="module")
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Source and edit, 5 frames of 40 x 56 pixels."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(2, 5, 40, 56, 3, generator=generator))


def table(found) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.args[0].splitlines()[2:]]
    return {name: rest for name, *rest in lines}


def row(rows: dict, start: str) -> list[str]:
    (found,) = [values for name, values in rows.items() if name.startswith(start)]
    return found


def test_only_what_can_be_measured_has_a_row(metrics, clips):
    rows = table(metrics(*clips))
    assert len(rows) == 2 and all("change per frame" in name for name in rows)
    found = metrics(*clips, prompt=PROMPT)  # a prompt alone measures nothing
    assert table(found).keys() == rows.keys()
    assert found.args[1].shape[0] == 1 and min(found.args[1].shape[1:3]) > 300
    assert "alignment" not in found.ui["text"][0] and len(found.ui["images"]) == 1


def test_consistency_and_alignment_are_cosines_of_the_hosts_embeddings(metrics, clips, clip_vision, clip):
    rows = table(metrics(*clips, clip_vision=clip_vision, clip=clip, prompt=PROMPT))
    with torch.inference_mode():
        source, edit = (clip_vision.encode_image(one)["image_embeds"].double() for one in clips)
        tokens = clip.tokenize(PROMPT)
        # the host gives SD1's vector before its projection
        pooled = clip.encode_from_tokens(tokens, return_pooled="unprojected")[1]
        text = (pooled @ clip.cond_stage_model.clip_l.transformer.text_projection.weight.T)[0].double()
    cosine = torch.nn.functional.cosine_similarity
    for column, one in enumerate((edit, source)):
        near = cosine(one[:-1], one[1:]).mean().item()
        pairs = torch.stack([cosine(one[i], one[j], dim=0) for i in range(5) for j in range(5) if i != j]).mean()
        assert float(row(rows, "frame consistency: consecutive")[column]) == pytest.approx(near, rel=1e-3)
        assert float(row(rows, "frame consistency: all")[column]) == pytest.approx(pairs.item(), rel=1e-3)
        aligned = cosine(one, text[None]).mean().item()
        assert float(row(rows, "text alignment")[column]) == pytest.approx(aligned, rel=1e-3)


def test_against_transformers(pack, clips, clip_vision):
    """The whole way of picture and prompt, by another implementation of CLIP with the same weights."""
    from transformers import CLIPConfig, CLIPModel

    shared = {**WIDTH, "hidden_act": "quick_gelu", "projection_dim": SPACE}
    text = {**shared, "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407, "bos_token_id": 49406}
    picture = {**shared, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=picture, projection_dim=SPACE)
    expected = CLIPModel(config).eval()
    fill(expected)
    weights = expected.state_dict()
    vision, clip = copy.copy(clip_vision), text_model()
    vision.model = copy.deepcopy(clip_vision.model)
    vision.patcher = ModelPatcher(vision.model, vision.load_device, torch.device("cpu"))
    assert not vision.load_sd(weights)[0] and not clip.load_sd(weights)[0], "weights are missing"

    frames = torch.nn.functional.interpolate(clips[0].movedim(-1, 1), (32, 32))
    embeddings = pack("host.clip")
    with torch.inference_mode():
        ours = embeddings.image_embeddings(vision, frames.movedim(1, -1))
        prompt = embeddings.text_embedding(clip, PROMPT, SPACE)
        tokens = torch.tensor([[token for token, _ in clip.tokenize(PROMPT)["l"][0]]])
        pixels = (frames * 255).round() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (vision.image_mean, vision.image_std))
        found = expected(input_ids=tokens, pixel_values=(pixels - mean) / std)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(ours, found.image_embeds), torch.ones(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(cosine(prompt[None], found.text_embeds), torch.ones(1), atol=1e-5, rtol=0)


def test_without_a_text_model_there_is_no_alignment(metrics, clips, clip_vision):
    rows = table(metrics(*clips, clip_vision=clip_vision, prompt=PROMPT))
    assert any(name.startswith("frame consistency") for name in rows)
    assert not any(name.startswith("text alignment") for name in rows)


def test_prompts_that_the_host_projects_itself_are_not_projected_twice(pack, clip_vision):
    """SDXL's wider text model: the same vector as the host's own pooled output, which is projected."""
    sdxl = text_model(("l", "g"))
    embed = pack("host.clip").text_embedding
    with torch.inference_mode():
        expected = sdxl.encode_from_tokens(sdxl.tokenize(PROMPT), return_pooled=True)[1][0]
        assert torch.equal(embed(sdxl, PROMPT, 32), expected)
        assert embed(sdxl, PROMPT, SPACE).shape == (SPACE,)  # the narrower one answers for the other space
        again = sdxl.encode_from_tokens(sdxl.tokenize(PROMPT), return_pooled="unprojected")[1][0]
    assert not torch.equal(again, expected)  # the encoder is left as it was


def test_background(metrics, clips):
    source = clips[0]
    edit = source.clone()
    edit[:, :, :20] = 1 - edit[:, :, :20]
    edit[:, :, 20:] = (source[:, :, 20:] + 0.1).clamp(0, 1)
    mask = torch.zeros(1, 40, 56)
    mask[:, :, :20] = 1
    rows = table(metrics(source, edit, mask=mask))
    error = (source - edit)[:, :, 20:].square().mean().log10().item()
    assert float(row(rows, "background: PSNR")[0]) == pytest.approx(-10 * error, rel=1e-3)
    assert 0.9 < float(row(rows, "background: SSIM")[0]) < 1
    same = table(metrics(source, source, mask=mask))
    assert row(same, "background: PSNR")[0] == "100" and row(same, "background: SSIM")[0] == "1"
    assert row(same, "flicker")[0] == "0"


def test_bad_input_is_named(metrics, clips, clip_vision, clip, miniature):
    source, edit = clips
    cases = [
        (dict(clip=clip, prompt=PROMPT), "connect clip_vision as well as clip"),
        (dict(clip=clip, clip_vision=clip_vision, prompt=" "), "prompt is empty"),
        (dict(clip=miniature[1], clip_vision=clip_vision, prompt=PROMPT), "a prompt has 128 numbers, a picture 48"),
        (dict(mask=torch.ones(1, 40, 56)), "white everywhere"),
        (dict(mask=torch.full((1, 40, 56), 254 / 255)), "white everywhere"),
        (dict(mask=torch.ones(1, 0, 0)), "The mask has no pixels"),
        (dict(clip=clip, clip_vision=clip_vision, prompt="embedding:"), 'has "embedding:" without a name'),
        (dict(mask=torch.zeros(2, 40, 56)), "There are 5 frames, but the mask has 2"),
    ]
    for inputs, message in cases:
        with pytest.raises(ValueError, match=message):
            metrics(source, edit, **inputs)
    with pytest.raises(ValueError, match="edit holds values up to .*, but colours should lie between 0 and 1"):
        metrics(source, 255 * edit)
    with pytest.raises(ValueError, match="edit is no batch of pictures"):
        metrics(source, edit[None])
    grey = source[..., :1]
    assert table(metrics(torch.cat([grey, 0 * grey], dim=-1), grey)) == table(metrics(grey, grey))
    others = ((edit[:4], "differ in frames, 5 and 4"), (edit[:, :20], "differ in size, 56 x 40 and 56 x 20"))
    for other, message in others:
        with pytest.raises(ValueError, match=message):
            metrics(source, other)
    with pytest.raises(ValueError, match="at least two"):
        metrics(source[:1], edit[:1])


@pytest.mark.parametrize("left", ["zeros", "identity", "another tensor", "not a number"])
def test_a_projection_that_no_file_filled_is_refused(left, metrics, clips, clip_vision):
    """What was seen in its memory then."""
    clip = text_model()
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    with torch.no_grad():
        if left in ("zeros", "identity"):
            weight.copy_(torch.zeros(SPACE, SPACE) if left == "zeros" else torch.eye(SPACE))
        else:
            weight[0, :2] = 14080.0 if left == "another tensor" else float("nan")
    with pytest.raises(ValueError, match="came without its projection"):
        metrics(*clips, clip_vision=clip_vision, clip=clip, prompt=PROMPT)


def test_a_vision_model_without_its_projection_is_refused(metrics, clips, clip_vision):
    """Some files hold only what other models need of it."""
    without = copy.copy(clip_vision)
    without.model = copy.deepcopy(clip_vision.model)
    torch.nn.init.zeros_(without.model.visual_projection.weight)
    without.patcher = ModelPatcher(without.model, clip_vision.load_device, clip_vision.patcher.offload_device)
    with pytest.raises(ValueError, match="clip_vision came without its projection into .*visual_projection"):
        metrics(*clips, clip_vision=without)
