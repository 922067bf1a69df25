"""How ComfyUI is started; it lies in `batch/`, which an installed pack has as well."""

from batch.launch_host import repair_torchvision  # noqa: F401
