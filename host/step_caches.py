"""Other nodes' caches of the UNet (EasyCache, LazyCache), which skip steps that resemble the last one.

They remember one call. Where calls differ in another way than by a small step (training steps, windows of a clip,
source and target), they give wrong results or fail.
"""

from __future__ import annotations

import itertools

KEYS = ("easycache", "lazycache")  # of the host's nodes


def remove_step_caches(model) -> None:
    """Removes them from a MODEL that is not shared."""
    for kind, key in itertools.product(model.wrappers, KEYS):
        model.remove_wrappers_with_key(kind, key)


def without_step_caches(transformer_options: dict) -> dict:
    """The options of a call, in which they are not asked."""
    wrappers = transformer_options.get("wrappers", {})
    kept = {kind: {key: value for key, value in found.items() if key not in KEYS} for kind, found in wrappers.items()}
    return {**transformer_options, "wrappers": kept}
