"""The pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..host.guard import guarded
from .apply_tune import ApplyTune
from .attention_control import AttentionControl
from .carry_key_frame import CarryKeyFrame
from .compare import Compare
from .context_windows import ContextWindows
from .edit_sample import EditSample
from .inflate_unet import InflateUNet, InflateUNetAdvanced
from .inversion_cache import InversionCache
from .invert import Invert
from .load_mini import LoadMini
from .load_tune import LoadTune
from .load_video import LoadVideo
from .metrics import Metrics
from .one_shot_tune import OneShotTune
from .recipe import RecipeNode
from .reconstruction_check import ReconstructionCheck
from .save_tune import SaveTune
from .shift_probe import ShiftProbe

NODES: list[type[io.ComfyNode]] = [
    LoadVideo,
    LoadMini,
    InflateUNet,
    InflateUNetAdvanced,
    OneShotTune,
    ContextWindows,
    Invert,
    AttentionControl,
    EditSample,
    CarryKeyFrame,
    RecipeNode,
    SaveTune,
    LoadTune,
    ApplyTune,
    InversionCache,
    ReconstructionCheck,
    Compare,
    Metrics,
    ShiftProbe,
]
for _node in NODES:
    guarded(_node)


class EI2Extension(ComfyExtension):
    """Registers the nodes with the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
