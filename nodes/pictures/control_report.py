"""EI2 Attention Control's report on its choices."""

from __future__ import annotations

from collections.abc import Iterable

from ...ei2.prompt import Prompt, few
from ...ei2.prompt_control import Control
from ...ei2.token_alignment import TokenMap
from ...ei2.wording import plural

SELF_NAMES = {"temporal": "temporal", "spatial": "spatial", "both": "temporal and spatial"}


def describe(
    control: Control,
    mode: str,
    automatic: bool,
    weights: list[tuple[Prompt, float]],
    old: list[Prompt],
    new: list[Prompt],
) -> str:
    """The report as a Markdown list, the format of the host's text previews.

    `mode`: the mode used; `automatic`: whether the node chose it; `weights`: the
    reweighted words; `old`, `new`: the blend words.
    """
    lines = [
        _mode(control.source, control.target, mode, automatic),
        _replaced(control.source, control.target)
        if mode == "replace"
        else _refined(control.source, control.target, control.tokens),
        _share("cross-attention", "cross_replace", control.cross_replace),
        _share(f"{SELF_NAMES[control.self_maps]} attention", "self_replace", control.self_replace),
        f"unconditional: {control.unconditional}, if the inversion has null-text embeddings",
    ]
    if weights:
        lines.append("reweighted: " + ", ".join(f"{_name(word)} × {factor:g}" for word, factor in weights))
    if control.blend:
        lines.append(
            f"LocalBlend: changes only {_names(old)} → {_names(new)}, threshold {control.blend.threshold:g}, after "
            f"{control.blend.start:.0%} of the steps"
        )
    return "\n".join(f"- {line}" for line in lines)


def _mode(source: Prompt, target: Prompt, mode: str, automatic: bool) -> str:
    counts = len(source.texts), len(target.texts)
    if not automatic:
        return f"mode: {mode}"
    if counts[0] != counts[1]:
        return f"mode: {mode}, because the prompts have {counts[0]} and {plural(counts[1], 'word')}"
    if source.unspaced or target.unspaced:
        return f"mode: {mode}, because some words are not separated by spaces"
    moved = "" if mode == "replace" else ", but the shared ones are in different places"
    return f"mode: {mode}, because both prompts have {plural(counts[0], 'word')}{moved}"


def _replaced(source: Prompt, target: Prompt) -> str:
    """`car → tractor; the other 7 words stay`."""
    pairs = [
        f"{source.texts[i]} → {target.texts[i]}"
        for i in range(len(source.texts))
        if source.ids_of(i) != target.ids_of(i)
    ]
    rest = len(source.texts) - len(pairs)
    if not pairs:
        return f"words: all {rest} stay"
    return f"words: {few(pairs)}" + (f"; {_rest(rest)}" if rest else "")


def _refined(source: Prompt, target: Prompt, tokens: TokenMap) -> str:
    """`new, with their own maps: red; left out: blue; the other 7 words stay`. A
    word of several tokens may be partly new."""
    shares = [tokens.shared[target.tokens_of(i)].mean().item() for i in range(len(target.texts))]
    new = [text for text, share in zip(target.texts, shares) if share == 0]
    partly = [text for text, share in zip(target.texts, shares) if 0 < share < 1]
    left_out = [text for i, text in enumerate(source.texts) if not tokens.matrix[source.tokens_of(i)].any()]
    facts = (("new, with their own maps", new), ("new in part", partly), ("left out", left_out))
    clauses = [f"{what}: {few(words)}" for what, words in facts if words]
    rest = shares.count(1)
    if not clauses:
        return f"words: all {rest} stay"
    return "words: " + "; ".join([*clauses, *([_rest(rest)] if rest else [])])


def _rest(count: int) -> str:
    return f"the other {count} stay" if count > 1 else "the other one stays"


def _share(what: str, name: str, share: float) -> str:
    if not share:
        return f"{what}: the edit's own throughout ({name} 0)"
    steps = "all steps" if share == 1 else f"the first {share:.0%} of the steps"
    return f"{what}: the source's in {steps}"


def _name(word: Prompt) -> str:
    return " ".join(word.texts)


def _names(words: Iterable[Prompt]) -> str:
    return ", ".join(map(_name, words))
