"""What is reused: the host's own results within a run of the server; tunes and inversions beyond it."""

from __future__ import annotations

import shutil

import pytest

from batch.client import Client
from devtools.server import Server

from .graphs import changed, edit_graph, fail, node, run, same_pictures

pytestmark = pytest.mark.server

EDIT = {"edit_prompt", "edit", "decode", "save"}
TUNE = "clips/square_00001_.safetensors"


@pytest.fixture(scope="module")
def graph():
    """An edit that keeps its tune and its inversion, of a size that no other test uses."""
    keep = node("EI2_SaveTune", tune=("tune", 1), filename_prefix="clips/square", prompt="a blue square")
    return {**edit_graph(size=72, tune_steps=5, cache=True), "keep": keep}


@pytest.fixture(scope="module")
def first(session_client, graph):
    return run(session_client, graph)


def from_file(graph):
    """The same edit with the tune from its file: nothing is inflated or tuned."""
    loaded = {
        "load": node("EI2_LoadTune", tune_name=TUNE),
        "apply": node("EI2_ApplyTune", model=("mini", 0), tune=("load", 0), temporal_strength=1.0, query_strength=1.0),
    }
    rest = {name: entry for name, entry in graph.items() if name not in ("inflate", "tune", "keep")}
    return {**changed(rest, {"invert.model": ("apply", 0), "edit.model": ("apply", 0)}), **loaded}


def test_an_unchanged_graph_executes_nothing(first, client, graph):
    assert {"tune", "keep", "invert", "edit", "save"} <= first.executed()
    again = run(client, graph)
    assert again.executed() == set()


def test_another_edit_prompt_runs_only_the_edit(first, client, graph):
    other = changed(graph, {"edit_prompt.text": "a green circle on a dotted white background"})
    assert run(client, other).executed() == EDIT
    assert run(client, changed(other, {"edit.cfg": 3.0})).executed() == EDIT - {"edit_prompt"}


def test_another_source_prompt_does_not_reuse_what_it_changes(first, client, graph):
    run(client, graph)  # the host remembers the last run only
    other = run(client, changed(graph, {"source_prompt.text": "a square"}))
    assert other.executed() == {"source_prompt", "tune", "keep", "invert", "edit", "decode", "save"}
    assert other.outputs["invert"]["text"][0].startswith("computed and kept")


def test_the_nodes_say_what_they_kept(first):
    (told,) = first.outputs["invert"]["text"]
    assert told.startswith("computed and kept (")
    (kept,) = first.outputs["keep"]["text"]
    assert kept.startswith(f"ei2_tunes/{TUNE}\n") and kept.endswith((" MB", " kB"))


def test_the_new_file_is_offered_and_gives_the_same_edit(first, client, server, graph, exact):
    assert (server.base / "models" / "ei2_tunes" / TUNE).is_file()
    assert TUNE in client.object_info("EI2_LoadTune")["EI2_LoadTune"]["input"]["required"]["tune_name"][1]["options"]
    result = run(client, from_file(graph))
    assert {"load", "apply", "invert", "edit"} <= result.executed()
    assert same_pictures(result.pictures(), first.pictures(), exact)


def test_after_a_restart_nothing_is_tuned_or_inverted_again(first, server, graph, exact, clips, tmp_path):
    """Another server process with the same user directory and the kept tune."""
    tunes = tmp_path / "models" / "ei2_tunes"
    shutil.copytree(server.base / "models" / "ei2_tunes", tunes)
    options = ("--user-directory", str(server.base / "user"))
    with Server(base=tmp_path, clips=clips, options=options) as second, Client(second.url) as client:
        result = run(client, from_file(graph))
        assert {"apply", "invert", "edit"} <= result.executed()
        if exact:  # else the clip's latents differ in the last bits, and it is another inversion
            assert result.outputs["invert"]["text"][0].startswith("from the cache")
            assert {total for _, total in result.progress("invert")} == {1}  # it never began to count its steps
        assert same_pictures(result.pictures(), first.pictures(), exact)

        report = run(client, {"cache": node("EI2_InversionCache", clear=True)}).outputs["cache"]["text"][0]
        assert report.startswith("deleted ") and "left: no inversions" in report
        second.check()


def test_a_missing_or_foreign_file_is_refused_before_anything_runs(client, graph, server):
    folder = server.base / "models" / "ei2_tunes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "broken.safetensors").write_bytes(b"no tune")
    for name, words in (
        ("gone.safetensors", "There is no tune"),
        ("broken.safetensors", "cannot be read"),
        ("../../input/short.mp4", "There is no tune"),
    ):
        failure = fail(client, changed(from_file(graph), {"load.tune_name": name}))
        assert failure.where == "node_errors" and failure.node == "load" and words in failure.message
    failure = fail(client, changed(graph, {"keep.filename_prefix": "../outside"}))
    assert failure.where == "node_errors" and failure.node == "keep" and "points outside" in failure.message
    assert not (folder.parent / "outside").exists()


def test_a_tune_on_a_model_inflated_otherwise_is_refused(client, graph, first):
    other = changed(from_file(graph), {"apply.model": ("inflate", 0)})
    inflate = node("EI2_InflateUNet", model=("mini", 0), preset="Tune-A-Video")
    failure = fail(client, {**other, "inflate": inflate})
    assert (failure.where, failure.node) == ("execution_error", "apply")
    assert "made with spatial ffam, temporal stam, group_norm frame, but the model is inflated" in failure.message
