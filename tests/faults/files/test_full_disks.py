"""No room: what is wanted is refused with advice, or goes on without what is only nice to have; nothing is half there.

A small file system in memory where this process may mount one; and everywhere but on Windows, a limit to how large
this process's files may be, which gives the same errors.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import contextmanager

import folder_paths
import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


def files(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path):
    """A small file system, and a file that fills it: `small_disk.fill()`, `small_disk.clear()`."""

    class Disk:
        path = tmp_path / "disk"

        def fill(self) -> None:
            with open(self.path / "other", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass

        def clear(self) -> None:
            (self.path / "other").unlink()

    Disk.path.mkdir()
    mounted = None
    if os.name == "posix" and os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(Disk.path)]
        mounted = subprocess.run(command, capture_output=True)
    if mounted is None or mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode() if mounted else 'not root'}")
    yield Disk()
    subprocess.run(["umount", "-l", str(Disk.path)], check=True)


@contextmanager
def files_of_at_most(size: int):
    """No file of this process may become larger, until the end."""
    resource = pytest.importorskip("resource", reason="Windows has no limit to a process's files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["full disk", "limit"])
def no_room(request, pack, folder, tmp_path):
    """Folders without room for as long as `with no_room():` lasts: of tunes and snapshots, of the user, of temporary
    files."""
    if request.param == "limit":
        return lambda: files_of_at_most(100)
    disk = request.getfixturevalue("small_disk")
    key = pack("host.folders").TUNES
    folder_paths.folder_names_and_paths[key] = ([str(disk.path / "tunes")], folder_paths.folder_names_and_paths[key][1])
    folder_paths.set_temp_directory(str(disk.path / "temp"))
    folder_paths.set_user_directory(str(disk.path / "user"))
    for name in ("tunes", "temp", "user"):
        (disk.path / name).mkdir()

    @contextmanager
    def full():
        disk.fill()
        yield
        disk.clear()

    return full


def tune_folder(pack):
    from pathlib import Path

    return Path(folder_paths.get_folder_paths(pack("host.folders").TUNES)[0])


def test_a_tune_gives_advice_and_can_be_saved_afterwards(pack, no_room, learned):
    save = pack("nodes.save_tune").SaveTune
    with no_room():
        with pytest.raises(
            OSError, match="the disk is full. Make room on it and run again. Do this before you run another"
        ):
            save.execute(learned[1], "clips/jeep")
        assert not files(tune_folder(pack)) or [path.name for path in files(tune_folder(pack))] == ["other"]
    save.execute(learned[1], "clips/jeep")
    assert [path.name for path in files(tune_folder(pack))] == ["jeep_00001_.safetensors"]
    assert [path.name for path in (tune_folder(pack) / "clips").iterdir()] == ["jeep_00001_.safetensors"]


def test_a_tuning_goes_on_without_snapshots(pack, no_room, model, inflate, source, learned):
    node = pack("nodes.one_shot_tune").OneShotTune
    with no_room():
        output = node.execute(
            inflate(model), {"samples": learned[2]}, source, 2, 1e-2, 0, "auto", "off", snapshot_every=1
        )
    assert "no snapshot at step 2, tuning continues: " in output.ui["text"][0]
    assert "the disk is full" in output.ui["text"][0] and len(output.args[1].losses) == 2
    assert not files(tune_folder(pack))


def test_an_inversion_is_there_though_it_is_not_kept(pack, no_room, model, inflate, source, learned):
    node, cache = pack("nodes.invert").Invert, pack("host.inversion_cache")
    with no_room():
        output = node.execute(inflate(model), {"samples": learned[2]}, source, 1, 0)
    told = output.ui["text"][0]
    assert told.startswith("computed, not kept: ") and "the disk is full" in told
    folder = cache.inversions_folder()
    assert cache.usage().entries == 0 and not (folder.exists() and list(folder.iterdir()))
    told = node.execute(inflate(model), {"samples": learned[2]}, source, 1, 0).ui["text"][0]
    assert told.startswith("computed and kept")


def test_nodes_give_their_results_without_pictures(pack, no_room, learned, caplog):
    """The folder for temporary files is where a node's picture goes."""
    pack("nodes.save_tune").SaveTune.execute(learned[1], "jeep")
    clip = torch.rand(3, 64, 64, 3)
    runs: dict[str, Callable] = {
        "load tune": lambda: pack("nodes.load_tune").LoadTune.execute("jeep_00001_.safetensors"),
        "compare": lambda: pack("nodes.compare").Compare.execute("", "side by side", video_1=clip, video_2=clip),
        "check": lambda: pack("nodes.reconstruction_check").ReconstructionCheck.execute(clip, clip),
        "metrics": lambda: pack("nodes.metrics").Metrics.execute(clip, clip),
    }
    with no_room():
        for name, run in runs.items():
            caplog.clear()
            output = run()
            assert "images" not in output.ui, name
            assert "no picture in the node, the job continues" in caplog.text, name
            assert output.args and output.args[0] is not None, name
    assert "images" in runs["check"]().ui
