"""EI2 Attention Control, and what it is given unless a test says otherwise."""

from __future__ import annotations

import pytest

SOURCE = "a red square on a striped blue background"
DEFAULTS = {
    "source_prompt": SOURCE,
    "target_prompt": "a red circle on a striped blue background",
    "mode": "auto",
    "cross_replace": 0.2,
    "self_replace": 0.5,
    "self_maps": "temporal",
    "reweight": "",
    "blend_source": "",
    "blend_target": "",
    "blend_threshold": 0.3,
    "blend_start": 0.2,
    "unconditional": "decoupled",
}


@pytest.fixture(scope="module")
def node(pack):
    return pack("nodes.attention_control").AttentionControl


@pytest.fixture(scope="module")
def clip(miniature):
    return miniature[1]
