"""The pack as the registry hands it out, without what `.comfyignore` names: it lacks nothing that runs at a user's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from batch.client import Client
from devtools.checks.throwaway import copy_pack
from devtools.server import PACK, Server

from .graphs import ROOT, bundled, names, run

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="which files the pack has is read from git"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A server's base folder with that pack in it."""
    base = tmp_path_factory.mktemp("published")
    copy_pack(base / "custom_nodes" / PACK, published=True)
    return base


def test_what_builds_tests_and_measures_it_is_left_out(published):
    pack = published / "custom_nodes" / PACK
    folders = {path.name for path in pack.iterdir() if path.is_dir()}
    assert not folders & {"benchmarks", "devtools", "tests", ".ci", ".github"}
    assert {"batch", "docs", "ei2", "locales", "miniature", "nodes", "web", "workflows"} <= folders
    assert not list(pack.glob("miniature/train_*.py"))


def test_no_help_page_or_translation_is_lost(published):
    pack = published / "custom_nodes" / PACK
    for folder in ("web", "locales"):
        files = [{f.relative_to(root) for f in (root / folder).rglob("*") if f.is_file()} for root in (ROOT, pack)]
        assert files[0] == files[1] and files[0]


def test_no_file_is_lost_for_its_name(published):
    """git quotes names that are not ASCII, and `comfy node pack` leaves such files out."""
    assert not [path.name for path in published.rglob("*") if not path.name.isascii()]


def test_every_node_is_there_and_the_quickstart_runs(published, session_client):
    """Its clip is in the input folder then; a user's own file that has the name of another one stays as it is."""
    ours = {name for name in session_client.object_info() if name.startswith("EI2_")}
    own = published / "input" / "red_car_depth.mp4"
    own.parent.mkdir()
    own.write_bytes(b"a user's own")
    with Server(base=published, link=False) as server, Client(server.url) as client:
        provided = {"quickstart.mp4", "red_car.mp4", "red_car_key_frame.png", own.name}
        assert {path.name for path in own.parent.iterdir() if path.is_file()} == provided
        assert not list(own.parent.glob(".ei2-*"))  # newer hosts make a folder there, too
        assert own.read_bytes() == b"a user's own"
        assert {name for name in client.object_info() if name.startswith("EI2_")} == ours
        graph = bundled(tune_steps=2, invert_steps=2)
        assert run(client, graph).outputs.keys() >= set(names(graph, "SaveVideo"))


def test_the_batch_run_starts(published):
    command = [sys.executable, str(published / "custom_nodes" / PACK / "batch"), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=published)
    assert result.returncode == 0 and "--workflow" in result.stdout, result.stderr
