"""What the tests of files share with those of the host and the server, and the pack's folders, empty."""

from __future__ import annotations

import os

import pytest

from ...host.conftest import encode, inference_mode, inflate, miniature, model, pack, random_clip_fixture, source, tune  # noqa: F401
from ...server.conftest import client, clips, server, session_client, start_log  # noqa: F401


@pytest.fixture
def folder(pack, tmp_path):  # noqa: F811
    """An empty tune folder; the folders for temporary files and of the user are empty, too."""
    import folder_paths

    key, variable = pack("host.folders").TUNES, pack("host.inversion_cache").LIMIT_VARIABLE
    known = folder_paths.folder_names_and_paths[key]
    before = folder_paths.get_temp_directory(), folder_paths.get_user_directory(), os.environ.get(variable)
    folder_paths.folder_names_and_paths[key] = ([str(tmp_path / "tunes")], known[1])
    folder_paths.set_temp_directory(str(tmp_path / "temp"))
    folder_paths.set_user_directory(str(tmp_path / "user"))
    os.environ.pop(variable, None)
    (tmp_path / "tunes").mkdir()
    yield tmp_path / "tunes"
    folder_paths.folder_names_and_paths[key] = known
    folder_paths.filename_list_cache.clear()
    folder_paths.set_temp_directory(before[0])
    folder_paths.set_user_directory(before[1])
    if before[2] is not None:
        os.environ[variable] = before[2]


@pytest.fixture(scope="session")
def learned(model, inflate, tune):  # noqa: F811
    """A tuned miniature, its tune, and the clip's latents."""
    import torch

    with torch.inference_mode():
        clip = 5 * torch.randn(3, 4, 6, 10, generator=torch.Generator().manual_seed(0))
        return (*tune(inflate(model), clip, steps=2, learning_rate=1e-2), clip)
