"""A real ComfyUI server with this pack in it, for the demo, the tests and the browser."""

from __future__ import annotations

import shutil
from pathlib import Path

from batch.base_folder import folder_of_process
from batch.server import PACK, ServerError, ServerProcess, link_pack  # noqa: F401 (for those who use `Server`)

from . import front_end, host
from .environment import DEV, ROOT


class Server(ServerProcess):
    """Starts on `with Server() as server:` and ends with the block.

    `base`: its base folder (models, input, output, custom_nodes), kept afterwards; by default a temporary one below
    `.dev`, deleted at the end. `port`: default any free one. `clips`: files copied into the input folder. `options`:
    more options for ComfyUI's `main.py`. `link`: whether to link this pack into custom_nodes. The front end is
    ComfyUI's own, or the one in `COMFYUI_FRONT_END`. Attributes: `url`, `base`, `log` (file).
    """

    def __init__(
        self,
        base: Path | None = None,
        port: int | None = None,
        clips: tuple[Path, ...] = (),
        options: tuple[str, ...] = (),
        link: bool = True,
    ):
        self._temporary = base is None
        self._own_base, self._clips, self._options, self._link = base, clips, options, link
        self._port = port
        self._process = None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout: float = 240) -> None:
        """Returns when the server answers. `timeout`: seconds. Raises `ServerError`, `SetupError`."""
        DEV.mkdir(exist_ok=True)
        folder, pages = host.locate(), front_end.folder()
        base = self._own_base or folder_of_process("server-", DEV)
        options = (*(("--front-end-root", str(pages)) if pages else ()), *self._options)
        super().__init__(folder, host.interpreter(folder), base, self._port, options)
        self._fill_base()
        super().start(timeout)

    def stop(self, patience: float = 15) -> None:
        """Ends the server; kills it after `patience` seconds. Does nothing if it has already ended."""
        super().stop(patience)
        if self._temporary and hasattr(self, "base"):
            shutil.rmtree(self.base, ignore_errors=True)

    def _fill_base(self) -> None:
        inputs = self.base / "input"
        for folder in (self.base / "custom_nodes", inputs):
            folder.mkdir(parents=True, exist_ok=True)
        if self._link:
            link_pack(self.base, ROOT)
        for clip in self._clips:
            shutil.copy(clip, inputs)
