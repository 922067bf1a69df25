"""ComfyUI's HTTP and websocket interface; it lies in `batch/`, which an installed pack has as well."""

from batch.client import FINAL, Client, ClientError, Event, ExecutionError, Interrupted, PromptError  # noqa: F401
