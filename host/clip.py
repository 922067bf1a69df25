"""Reads prompts and pictures with the host's CLIP models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import comfy.sd1_clip
import torch

from ..ei2.prompt import NO_WORD, Prompt
from ..ei2.user_text import short

WORD_END = "</w>"  # marks a word's last token in CLIP's vocabulary
EMBEDDING_START = "embedding:"
EMBEDDING = re.compile(r"embedding:[^\s,:()]+")
NO_NAME = re.compile(r"(?<!\S)embedding:(?!\S)")
SURROGATE = re.compile(r"[\ud800-\udfff]")
CHUNK = 8  # frames per call of the vision model
BOTH_HALVES = (
    "Load both halves of one CLIP with Load CLIP Vision and Load CLIP (type stable_diffusion), for instance the "
    "complete file of clip-vit-large-patch14, which may lie in both folders."
)
MOST_ZEROS, LARGEST = 0.01, 1e4  # of a trained projection: the share of zeros, the largest weight over the median


def read_prompt(clip, text: str) -> Prompt:
    """The prompt's tokens, from the host's own tokenizer, and its words, separated by spaces. Weights as
    in "(word:1.2)" do not change the words; an "embedding:name" is one word with a token for each
    vector; a long prompt fills several windows.

    Raises `RuntimeError` without a text encoder, and `ValueError` if it is not CLIP, if one of the model's text
    encoders cannot read an embedding, and for texts that the host cannot read.
    """
    if clip is None:
        raise RuntimeError(
            "clip is None: the checkpoint holds no text encoder. Load one, with Load CLIP for instance, and connect it."
        )
    _check_text(text)
    prompts = {key: _read(clip, key, windows, text) for key, windows in _tokenize(clip, text).items()}
    prompt = prompts.get("l", next(iter(prompts.values())))
    if any(other.words != prompt.words for other in prompts.values()):
        raise ValueError(
            "The model's text encoders read this prompt differently, which attention control cannot follow: leave out "
            f"{', '.join(EMBEDDING.findall(text)) or 'unusual words'}."
        )
    return prompt


def _check_text(text: str) -> None:
    """Raises `ValueError` where the host's tokenizer would fail with Python's words."""
    if NO_NAME.search(text):
        raise ValueError(f'A prompt has "{EMBEDDING_START}" without a name: write one behind it, or leave it out.')
    if SURROGATE.search(text):
        raise ValueError(f"The prompt {short(text)} has half of a character: delete it and type it again.")


def encode(clip, text: str) -> list:
    """The CONDITIONING that the host's CLIP Text Encode returns. Raises `ValueError` if it is not finite."""
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    if not all(torch.isfinite(embeddings).all() for embeddings, _ in conditioning):
        raise ValueError(
            f"clip gave NaN or infinite values for the prompt {short(text)}: check its weights in brackets, or start "
            "ComfyUI with --fp32-text-enc."
        )
    return conditioning


def same_text(a: list, b: list) -> bool:
    """Whether two conditionings carry the same text embeddings, whatever else they carry."""
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.equal(x.cpu().float(), y.cpu().float()) for (x, *_), (y, *_) in zip(a, b)
    )


def _tokenize(clip, text: str) -> dict[str, list]:
    """For each text encoder, its windows of `(token or vector, weight, segment)`.
    Raises `ValueError` unless all are CLIP."""
    tokenized = clip.tokenize(text, return_word_ids=True)
    for key in tokenized:
        _, tokenizer = _part(clip.tokenizer, key)
        if not any(piece.endswith(WORD_END) for piece in getattr(tokenizer, "inv_vocab", {}).values()):
            raise ValueError(
                "Attention control needs to know where words end, which only CLIP text encoders provide (Stable "
                "Diffusion "
                f"1.5, 2.x and XL); this text encoder reads prompts as {key!r}: load the one that belongs to the model."
            )
    return tokenized


def _part(whole, key: str):
    """The name and value of one text encoder's part of a combined tokenizer or model; None if there is none."""
    name = f"clip_{key}" if hasattr(whole, f"clip_{key}") else key
    return name, getattr(whole, name, None)


def _read(clip, key: str, windows: list, text: str) -> Prompt:
    """The host's segments are the text between weights and embeddings, counted from 1; 0 is start, end and padding."""
    _, tokenizer = _part(clip.tokenizer, key)
    special = set(tokenizer.tokenizer.all_special_ids)
    names = _embedding_names(clip, key, text)
    ids, parts, pieces = [], [], []  # `pieces`: the tokens of each part; a part is one of the text encoder's words
    ended, last = True, 0  # whether the part has ended; its segment
    for token, _, segment in (entry for window in windows for entry in window):
        vector = isinstance(token, torch.Tensor)
        number = _vector_id(token) if vector else int(token)
        ids.append(number)
        if segment == 0:
            parts.append(NO_WORD)
            continue
        if vector:
            _check_width(clip, key, token, names.get(number, "embedding"))
        if ended or segment != last:
            pieces.append([])
        pieces[-1].append(number)
        parts.append(len(pieces) - 1)
        # all vectors of a segment form one part
        ended = not vector and (number in special or tokenizer.inv_vocab[number].endswith(WORD_END))
        last = segment
    written = _written_words(tokenizer, text, pieces)
    if written is None:  # a tokenizer that writes words differently: use its own words
        decode = tokenizer.tokenizer.decode
        texts = [names.get(piece[0], "embedding") if piece[0] < 0 else decode(piece).strip() for piece in pieces]
        return Prompt(tuple(ids), tuple(parts), tuple(texts))
    texts, word_of = written
    numbers = _joined_digits(tokenizer, pieces, word_of)
    words, parts = ([NO_WORD if part == NO_WORD else of[part] for part in parts] for of in (word_of, numbers))
    return Prompt(tuple(ids), tuple(words), tuple(texts), tuple(parts))


def _joined_digits(tokenizer, pieces: list[list[int]], word_of: list[int]) -> list[int]:
    """A number for each part, the same for the digits of one number: CLIP reads every digit as a word of its own, but
    the 2 of 2023 is not what a user means by "2"."""
    text = lambda piece: tokenizer.inv_vocab.get(piece[0], "").removesuffix(WORD_END) if len(piece) == 1 else ""
    numbers = list(range(len(pieces)))
    for i in range(1, len(pieces)):
        if word_of[i] == word_of[i - 1] and text(pieces[i]).isdecimal() and text(pieces[i - 1]).isdecimal():
            numbers[i] = numbers[i - 1]
    return numbers


def _written_words(tokenizer, text: str, parts: list[list[int]]) -> tuple[list[str], list[int]] | None:
    """The words between spaces, without weights, and the word of each of the `parts`. None if tokenizing
    word by word does not give these parts."""
    texts, word_of, place, spaced = [], [], 0, True
    for segment, _ in comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0):
        segment = comfy.sd1_clip.unescape_important(segment)
        for i, piece in enumerate(re.split(r"\s+", segment)):
            spaced = spaced or i > 0
            if not piece:
                continue
            begin, rest = place, piece
            if piece.startswith(EMBEDDING_START):
                rest = piece[len(piece.rstrip(",")) :]
                if place < len(parts) and parts[place][0] < 0:
                    place += 1
                else:  # the user does not have it: the host ignores it, but not the comma
                    piece = rest
            tokens = [int(token) for token in tokenizer.tokenizer(rest)["input_ids"][1:-1]] if rest else []
            while tokens and place < len(parts) and tokens[: len(parts[place])] == parts[place]:
                tokens = tokens[len(parts[place]) :]
                place += 1
            if tokens:
                return None
            if place == begin:  # no token for the text encoder
                continue
            if spaced or not texts:
                texts.append("")
            texts[-1] += piece
            word_of += [len(texts) - 1] * (place - begin)
            spaced = False
    return (texts, word_of) if place == len(parts) else None


def _embedding_names(clip, key: str, text: str) -> dict[int, str]:
    """The names of a prompt's embeddings, by the id of their first vector."""
    names = {}
    for name in EMBEDDING.findall(text):
        tokens = clip.tokenize(name, return_word_ids=True)[key][0]
        vectors = [token for token, *_ in tokens if isinstance(token, torch.Tensor)]
        names.update({_vector_id(vector): name for vector in vectors[:1]})
    return names


def _vector_id(vector: torch.Tensor) -> int:
    """A negative id, the same for equal vectors in all prompts."""
    content = vector.detach().cpu().float().contiguous().numpy().tobytes()
    return -1 - int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


def _check_width(clip, key: str, vector: torch.Tensor, name: str) -> None:
    """Raises `ValueError` for another model's embedding: the host would drop it, which shifts all later words."""
    _, encoder = _part(clip.cond_stage_model, key)
    if encoder is None:  # a tokenizer whose tokens the model does not use, as in SDXL's refiner
        return
    width = encoder.transformer.get_input_embeddings().weight.shape[-1]
    if vector.shape[-1] != width:
        raise ValueError(
            f"{name} was made for another model: its vectors have {vector.shape[-1]} numbers, this text encoder's "
            f"{width}. Use one that belongs to the model, or leave it out."
        )


def image_embeddings(
    clip_vision, images: torch.Tensor, on_frames: Callable[[int], object] = lambda count: None
) -> torch.Tensor:
    """CLIP's embedding of each picture, `f h w 3` in 0..1 -> `f c` in float32 on the CPU. Pictures are scaled and
    cropped to a centred square, as in CLIP's training.

    `on_frames` is called with the number of pictures done since its last call; it may raise to cancel. Raises
    `ValueError` for a vision model without one embedding per picture (SigLIP) or without its projection, and for
    embeddings that are not finite.
    """
    vectors, projection = [], getattr(clip_vision.model, "visual_projection", None)
    if isinstance(projection, torch.nn.Module):
        _check_projection(projection.weight, "clip_vision", "visual_projection")
    for chunk in images.split(CHUNK):
        vectors.append(clip_vision.encode_image(chunk)["image_embeds"].float().cpu())
        if vectors[-1].ndim != 2:
            raise ValueError(
                "clip_vision gives no single vector per picture (as SigLIP models do not): load a CLIP vision model."
            )
        on_frames(len(chunk))
    embeddings = torch.cat(vectors)
    if not torch.isfinite(embeddings).all():
        raise ValueError("clip_vision gave NaN or infinite values: load another file, or run it in fp32.")
    return embeddings


def text_embedding(clip, prompt: str, width: int) -> torch.Tensor:
    """The prompt's embedding in CLIP's space of `width` dimensions, `c` in float32 on the CPU. Only the first 75 tokens
    of long prompts count, because CLIP reads no more.

    For some models, the host's conditioning holds the vector before its projection into that space, so the projected
    one is requested from the encoder. Raises `ValueError` if no text encoder has that space, and if the projection was
    not in its file (Stable Diffusion 1.5 checkpoints have none).
    """
    _check_text(prompt)
    parts = _encoders(clip)
    if not parts:
        raise ValueError(f"clip holds no CLIP text model, which text alignment needs. {BOTH_HALVES}")
    widths = {name: part.transformer.text_projection.weight.shape[0] for name, part in parts.items()}
    name = next((name for name in parts if widths[name] == width), None)
    if name is None:
        spaces = " and ".join(map(str, widths.values()))
        raise ValueError(
            f"clip and clip_vision do not belong together: a prompt has {spaces} numbers, a picture {width}. "
            + BOTH_HALVES
        )
    encoder = parts[name]
    clip.load_model()
    _check_projection(encoder.transformer.text_projection.weight, "clip", "text_projection")
    encoder.reset_clip_options()
    # without the device, newer hosts compute where the weights are
    encoder.set_clip_options({"projected_pooled": True, "execution_device": clip.patcher.load_device})
    try:
        tokens = clip.tokenize(prompt)[name.removeprefix("clip_")]
        vector = encoder.encode_token_weights(tokens)[1][0].float().cpu()
    finally:
        encoder.reset_clip_options()
    if not torch.isfinite(vector).all():
        raise ValueError("clip gave NaN or infinite values: load another file, or run it in fp32.")
    return vector


def _encoders(clip) -> dict[str, torch.nn.Module]:
    """The CLIP text encoders among a CLIP's parts, by name, such as `clip_l`."""
    parts = dict(clip.cond_stage_model.named_children())
    return {
        name: part
        for name, part in parts.items()
        if name.startswith("clip_") and hasattr(getattr(part, "transformer", None), "text_projection")
    }


def _check_projection(weight: torch.Tensor, name: str, what: str) -> None:
    """Raises `ValueError` for a projection that was not loaded. The host does not record this, and the weight then
    holds whatever was in memory: zeros, the identity, or an older tensor's remains. Remains usually contain a few
    absurd values, but this check cannot be certain."""
    values = weight.float().abs()
    zeros, usual = (values == 0).float().mean(), values.median()
    if not torch.isfinite(values).all() or zeros > MOST_ZEROS or values.max() > LARGEST * usual:
        raise ValueError(
            f"{name} came without its projection into the space that prompts and pictures share ({what}), as the text "
            f"model in Stable Diffusion 1.5 checkpoints does. {BOTH_HALVES}"
        )
