"""A real server with files of all sorts in its folders: it goes on working, and cleans up what an earlier one left."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from batch.client import Client
from devtools.browser_setup import missing
from devtools.server import Server
from ei2.tune_file import load_tune, save_tune

from ...browser.editor import Editor
from ...server.graphs import fail, node, run
from .hostile import MARKUP
from .writers import a_tune

pytestmark = pytest.mark.server

ODD = os.fsdecode(b"caf\x82.mp4")
LEFT = [".ei2-00000000-1-1-00000000.tmp", ".a.safetensors.tmp"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A server's base folder with odd files in it, and what killed servers left two hours ago."""
    base = tmp_path_factory.mktemp("base")
    tunes, kept, videos = base / "models" / "ei2_tunes", base / "user" / "__ei2" / "inversions", base / "input"
    for folder in (tunes, kept, videos):
        folder.mkdir(parents=True)
    for folder in (tunes, kept):
        for name in LEFT:
            (folder / name).write_bytes(bytes(10))
            os.utime(folder / name, (0, 0))
    save_tune(tunes / "markup.safetensors", a_tune(), f"{MARKUP} [[{MARKUP}|http://a]] __LNK9__ \udc82\u202e")
    (tunes / "broken.safetensors").write_bytes(b"{" * 100)
    try:
        (videos / ODD).write_bytes(b"no video")
    except OSError:
        pass  # this system has no such names
    return base


@pytest.fixture(scope="module")
def server(base):
    with Server(base=base) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client
    server.check()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_unicode_does_not_end_the_worker(client):
    """The message with the name is printable; the next job runs."""
    video = node(
        "EI2_LoadVideo", video=ODD, width=64, height=64, fit="crop", start_frame=0, frame_stride=1, max_frames=4
    )
    failure = fail(client, {"video": video, "show": node("PreviewImage", images=("video", 0))}, timeout=60)
    assert "caf\\x82.mp4" in failure.message and failure.message.isprintable()
    look = {"cache": node("EI2_InversionCache", clear=False)}
    assert "no inversions" in run(client, look, timeout=60).outputs["cache"]["text"][0]


def test_a_prompt_that_is_markup_is_shown_as_text(client):
    load = {"load": node("EI2_LoadTune", tune_name="markup.safetensors")}
    save = node("EI2_SaveTune", tune=("load", 0), filename_prefix="again", prompt=MARKUP)
    outputs = run(client, {**load, "save": save}, timeout=60).outputs
    (text,) = outputs["load"]["text"]
    assert "‹img src=x onerror=alert(1)>" in text and "<" not in text and "[[" not in text and "__LNK" not in text
    assert "\\x82\\u202e" in text


def test_what_an_earlier_server_left_was_swept_at_the_start(client, base):
    for folder in (base / "models" / "ei2_tunes", base / "user" / "__ei2" / "inversions"):
        assert not [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_delete_all_sweeps_and_counts(client, base):
    look = lambda clear: run(client, {"cache": node("EI2_InversionCache", clear=clear)}, 60).outputs["cache"]["text"][0]
    folder = base / "user" / "__ei2" / "inversions"
    for name in LEFT:
        (folder / name).write_bytes(bytes(500_000))
        os.utime(folder / name, (0, 0))
    assert "2 leftovers of interrupted writing, 1.0 MB" in look(False)
    assert "2 leftovers" in look(True) and "leftover" not in look(False)
    assert not list(folder.iterdir())


@pytest.mark.thorough
def test_two_servers_save_into_one_folder_at_once(client, server, base, tmp_path):
    """120 tunes by two servers with one models folder: none is lost, none refused."""
    tunes = base / "models" / "ei2_tunes"
    shutil.copy(tunes / "markup.safetensors", tunes / "race.safetensors")
    (tmp_path / "models").symlink_to(base / "models", target_is_directory=True)
    with Server(base=tmp_path) as second, Client(second.url) as other:

        def save(client: Client, i: int) -> None:
            graph = {
                "load": node("EI2_LoadTune", tune_name="race.safetensors"),
                "save": node("EI2_SaveTune", tune=("load", 0), filename_prefix="race/tune", prompt=f"number {i}"),
            }
            run(client, graph, timeout=120)

        half = lambda one, first: [save(one, i) for i in range(first, 120, 2)]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(half, client, 0), pool.submit(half, other, 1)]:
                done.result()
        second.check()
    prompts = {load_tune(path).prompt for path in (base / "models" / "ei2_tunes" / "race").glob("*.safetensors")}
    assert prompts == {f"number {i}" for i in range(120)}


@pytest.mark.browser
@pytest.mark.thorough
@pytest.mark.skipif(bool(missing()), reason=missing() or "")
def test_a_prompt_that_is_markup_runs_nothing_in_the_editor(server, tmp_path):
    """The front end that puts a node's text into the page as HTML."""
    import json

    prompt = tmp_path / "load.json"
    load = node("EI2_LoadTune", tune_name="markup.safetensors")
    save = node("EI2_SaveTune", tune=("1", 0), filename_prefix="again", prompt="")
    prompt.write_text(json.dumps({"1": load, "2": save}))
    with Editor(server.url) as editor:
        editor.page.evaluate("() => { window.alert = () => { window.attacked = true } }")
        editor.load(prompt)
        assert editor.run() == "execution_success", editor.errors
        editor.page.wait_for_timeout(2000)
        assert editor.page.evaluate("() => window.attacked") is None
        assert "‹img src=x" in editor.text(1)
        assert not editor.page.evaluate("() => document.querySelectorAll('img[onerror]').length")
