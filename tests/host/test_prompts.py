"""Prompts through the host's own tokenizers, of SD1, SD2 and SDXL, and what its text encoders make of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

START, END = 49406, 49407
WIDTHS = {"l": 32, "g": 64, "h": 64}


def kinds() -> dict:
    """Tokenizer and text encoder classes of the host."""
    from comfy import sd1_clip, sdxl_clip
    from comfy.text_encoders import sd2_clip

    return {
        "SD1": (sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel),
        "SD2": (sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel),
        "SDXL": (sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel),
    }


def tiny_clip(kind: str, directory=None):
    """A CLIP of the host with few, random weights."""
    from comfy.sd import CLIP
    from comfy.supported_models_base import ClipTarget

    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 77, "eos_token_id": END}
    configs = {
        f"clip_{key}_model_config": {
            **sizes,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "hidden_act": "quick_gelu",
            "projection_dim": width,
        }
        for key, width in WIDTHS.items()
    }
    options = {**configs, "dtype": torch.float32}
    clip = CLIP(ClipTarget(*kinds()[kind]), embedding_directory=directory and str(directory), model_options=options)
    for i, weight in enumerate(clip.cond_stage_model.parameters()):
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)) / 4)
    return clip


def other_clip(tokenizer):
    """A CLIP of which only the tokenizer is there."""
    from comfy.sd import CLIP

    clip = CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = tokenizer, {}
    return clip


@pytest.fixture(scope="module", params=["SD1", "SD2", "SDXL"])
def clip(request):
    with torch.inference_mode():
        return tiny_clip(request.param)


@pytest.fixture(scope="module")
def prompts(pack):
    return pack("host.clip")


@pytest.fixture(scope="module")
def read(prompts):
    return prompts.read_prompt


def test_words_of_several_tokens(clip, read):
    prompt = read(clip, "A red hippopotamus, don't")
    assert prompt.texts == ("A", "red", "hippopotamus,", "don't")
    assert prompt.words[:10] == (-1, 0, 1, 2, 2, 2, 2, 3, 3, -1)
    assert prompt.parts[:10] == (-1, 0, 1, 2, 2, 2, 3, 4, 5, -1)
    assert len(prompt) == len(prompt.words) == 77 and prompt.words.count(-1) == 69
    assert prompt.ids[0] == START and prompt.ids[9] == END
    assert prompt.ids[1] == 320 and prompt.ids[2] == 736  # of CLIP's vocabulary


@pytest.mark.parametrize(
    "text, texts",
    [
        ("", ()),
        ("  \n ", ()),
        ("café 🙂", ("café", "🙂")),
        ("two\nlines", ("two", "lines")),
        ("24 cats", ("24", "cats")),
        ("Spider-Man's 1950s T-shirt", ("Spider-Man's", "1950s", "T-shirt")),
        (r"a \(small\) cat", ("a", "(small)", "cat")),
        ("a <|endoftext|>cat", ("a", "<|endoftext|>cat")),
        ("((very)) big", ("very", "big")),
        ("hippo(potamus:1.3) (big cat:1.2)", ("hippopotamus", "big", "cat")),  # which the host reads in pieces
        ("a\u00a0cat\u3000sits", ("a", "cat", "sits")),  # spaces of other kinds
        ("猫 on a 垫子", ("猫", "on", "a", "垫子")),
    ],
)
def test_what_counts_as_a_word(text, texts, clip, read):
    assert read(clip, text).texts == texts


def test_weights_leave_the_words_alone(clip, read):
    assert read(clip, "a (red:1.5) ((circle))") == read(clip, "a red circle")
    assert read(clip, "a red circle").find(read(clip, "(red:0.2)")) == [[2]]


def test_a_word_is_found_by_what_the_user_types(clip, read):
    prompt = read(clip, "a hippopotamus and a Hippopotamus on ice")
    assert prompt.find(read(clip, "hippopotamus")) == [[2, 3, 4], [7, 8, 9]]
    assert prompt.find(read(clip, "on ice")) == [[10, 11]]
    assert prompt.find(read(clip, "hippo")) == []


def test_a_digit_is_no_word_of_a_longer_number(clip, read):
    """CLIP reads each digit as a word of its own."""
    prompt = read(clip, "2 cats in 2023 and 12 in the 1950s")
    assert prompt.find(read(clip, "2")) == [[1]]
    assert prompt.find(read(clip, "2023")) == [[4, 5, 6, 7]]
    assert prompt.find(read(clip, "1950")) == [[13, 14, 15, 16]] and prompt.find(read(clip, "95")) == []
    assert read(clip, "2 0").parts_of(0) == [[1]]


def test_a_long_prompt_fills_several_windows(clip, read):
    """Windows of 75 tokens between start and end, so the second word goes on in the second window."""
    prompt = read(clip, "hippopotamus " * 26)
    assert len(prompt) == 154 and prompt.texts == ("hippopotamus",) * 26
    assert prompt.windows == [[0, 76], [77, *range(81, 154)]]
    assert prompt.tokens_of(24) == [73, 74, 75] and prompt.tokens_of(25) == [78, 79, 80]
    assert [prompt.ids[i] for i in (0, 76, 77, 81)] == [START, END, START, END]


def test_a_word_cut_by_the_end_of_a_window_is_one_word(clip, read):
    prompt = read(clip, "a " + "hippopotamus " * 26)
    assert prompt.tokens_of(25) == [74, 75, 78]
    assert len(prompt.find(read(clip, "hippopotamus"))) == 26


def test_positions_are_those_of_the_encoding(clip, prompts):
    """Causal text encoders: another word changes its own row and those behind, none before."""
    one, two = (prompts.encode(clip, text) for text in ("a hippopotamus in snow", "a hippopotamus in rain"))
    changed = (one[0][0] - two[0][0]).abs().amax(dim=(0, 2)) > 1e-5
    assert prompts.read_prompt(clip, "a hippopotamus in snow").tokens_of(3) == [6]
    assert one[0][0].shape[1] == 77 and changed.nonzero()[0].item() == 6


def test_encoding_is_the_hosts(clip, prompts):
    from nodes import CLIPTextEncode

    (expected,) = CLIPTextEncode().encode(clip, "a (red:1.4) circle")
    found = prompts.encode(clip, "a (red:1.4) circle")
    assert len(found) == len(expected) == 1
    assert torch.equal(found[0][0], expected[0][0]) and found[0][1].keys() == expected[0][1].keys()


def test_same_text(clip, prompts):
    one, again, other, long = (prompts.encode(clip, text) for text in ("a cat", "a cat", "a dog", "a red circle " * 40))
    assert prompts.same_text(one, again)
    assert prompts.same_text(one, [[again[0][0].clone(), {"control": object()}]])
    assert not prompts.same_text(one, other)
    assert not prompts.same_text(one, long)
    assert not prompts.same_text(one, one + again)
    assert not prompts.same_text(one, prompts.encode(clip, "a (cat:1.2)"))


def embedding(seed: int, vectors: int, width: int) -> torch.Tensor:
    return torch.randn(vectors, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """A folder of embeddings for the tiny text encoders."""
    folder = tmp_path_factory.mktemp("embeddings")
    for seed, (name, vectors) in enumerate({"fox": 3, "owl": 3, "dot": 1}.items()):
        save_file({"emb_params": embedding(seed, vectors, WIDTHS["l"])}, folder / f"{name}.safetensors")
    save_file({"emb_params": embedding(0, 3, WIDTHS["l"])}, folder / "same.safetensors")
    save_file({"emb_params": embedding(9, 2, 48)}, folder / "odd.safetensors")
    parts = {f"clip_{key}": embedding(3, 2, WIDTHS[key]) for key in "lg"}
    save_file(parts, folder / "xl.safetensors")
    save_file({**parts, "clip_g": embedding(3, 3, WIDTHS["g"])}, folder / "uneven.safetensors")
    return folder


@pytest.fixture(scope="module")
def sd1(embeddings):
    with torch.inference_mode():
        return tiny_clip("SD1", embeddings)


def test_an_embedding_is_one_word(sd1, read):
    prompt = read(sd1, "a embedding:fox, (embedding:dot:1.2) red embedding:owl")
    assert prompt.texts == ("a", "embedding:fox,", "embedding:dot", "red", "embedding:owl")
    assert prompt.words[:12] == (-1, 0, 1, 1, 1, 1, 2, 3, 4, 4, 4, -1)
    assert [i for i in range(77) if prompt.ids[i] < 0] == [2, 3, 4, 6, 8, 9, 10]
    assert len({prompt.ids[i] for i in range(77) if prompt.ids[i] < 0}) == 7
    assert prompt.find(read(sd1, "embedding:fox")) == [[2, 3, 4]]
    assert prompt.find(read(sd1, "embedding:owl")) == [[8, 9, 10]]


def test_embeddings_are_told_apart_by_content(sd1, read):
    """Also between prompts: two embeddings are not the same word because both come first."""
    fox, owl, same = (read(sd1, f"a embedding:{name}") for name in ("fox", "owl", "same"))
    assert fox.ids == same.ids and not set(fox.ids[2:5]) & set(owl.ids)


def test_an_embedding_that_does_not_exist_is_left_out(sd1, read):
    """As the host does, which warns."""
    assert read(sd1, "a embedding:none red").texts == read(sd1, "a red").texts


@pytest.mark.parametrize(
    "text, message",
    [
        ("a embedding: cat", '^A prompt has "embedding:" without a name: write one behind it, or leave it out.$'),
        ("a \ud800 cat", r"^The prompt 'a \\ud800 cat' has half of a character: delete it and type it again.$"),
    ],
)
def test_texts_that_the_host_cannot_read(text, message, sd1, read):
    with pytest.raises(ValueError, match=message):
        read(sd1, text)


def test_a_weight_that_is_not_a_number(sd1, prompts):
    with pytest.raises(
        ValueError, match=r"^clip gave NaN or infinite values for the prompt 'a \(cat:nan\)': check its"
    ):
        prompts.encode(sd1, "a (cat:nan)")


def test_an_embedding_of_another_model_is_refused(sd1, read):
    message = "^embedding:odd was made for another model: its vectors have 48 numbers, this text encoder's 32. Use one"
    with pytest.raises(ValueError, match=message):
        read(sd1, "a embedding:odd")


def test_embeddings_for_two_text_encoders(embeddings, read):
    clip = tiny_clip("SDXL", embeddings)
    prompt = read(clip, "a embedding:xl cat")
    assert prompt.texts == ("a", "embedding:xl", "cat") and prompt.words[:6] == (-1, 0, 1, 1, 2, -1)
    with pytest.raises(ValueError, match="read this prompt differently.*: leave out embedding:uneven"):
        read(clip, "a embedding:uneven cat")


def test_text_encoders_without_word_ends_are_refused(read):
    from comfy.text_encoders.flux import FluxTokenizer
    from comfy.text_encoders.genmo import MochiT5Tokenizer

    for tokenizer in (FluxTokenizer, MochiT5Tokenizer):
        with pytest.raises(
            ValueError, match="which only CLIP text encoders provide .*; this .* reads prompts as 't5xxl'"
        ):
            read(other_clip(tokenizer()), "a red circle")


def test_no_text_encoder(read):
    with pytest.raises(RuntimeError, match="^clip is None: the checkpoint holds no text encoder. Load one"):
        read(None, "a red circle")


def test_the_miniatures_text_encoder(miniature, read):
    assert read(miniature[1], "a red circle on a striped blue background").words[:10] == (-1, *range(8), -1)
