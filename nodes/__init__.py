"""The pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .attention_control import AttentionControl
from .compare import Compare
from .edit_sample import EditSample
from .inflate_unet import InflateUNet, InflateUNetAdvanced
from .invert import Invert
from .load_mini import LoadMini
from .load_video import LoadVideo
from .metrics import Metrics
from .one_shot_tune import OneShotTune
from .recipe import RecipeNode
from .reconstruction_check import ReconstructionCheck
from .shift_probe import ShiftProbe


class EI2Extension(ComfyExtension):
    """Tells the host which nodes there are."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadVideo, LoadMini, InflateUNet, InflateUNetAdvanced, OneShotTune, Invert, AttentionControl, EditSample,
            ShiftProbe, ReconstructionCheck, Compare, Metrics, RecipeNode,
        ]  # fmt: skip
