"""Columns find their inputs, and whatever is wrong with a table is named by line before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batch.binding import bind, bound
from batch.command import main
from batch.errors import BatchError
from batch.graph import key_of, read_graph
from batch.schema import check_column, check_value, parse
from batch.sources import find
from batch.table import read_table

from .conftest import BUNDLED, LEARNS_ONLY, QUICKSTART

HEAD = "clip,source_prompt,edit_prompt"


def places(graph: dict, name: str) -> list[tuple[str, str]]:
    return [(place.node, place.key) for place in bind(graph, name).places]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def table(jobs, quickstart):
    """Reads a table of this text, beside the rendered clips."""

    def read(text: str):
        file = jobs.parent / "other.csv"
        file.write_text(text, encoding="utf-8")
        return read_table(str(file), quickstart)

    return read


def test_a_workflow_without_an_edit_is_refused():
    graph = read_graph(QUICKSTART.with_stem(LEARNS_ONLY).read_text(encoding="utf-8"), LEARNS_ONLY)
    with pytest.raises(BatchError, match="the workflow has no edit prompt"):
        bind(graph, "edit_prompt")


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_every_bundled_workflow_takes_clip_and_prompts(file):
    graph = read_graph(file.read_text(encoding="utf-8"), file.name)
    texts = {}
    for name in ("clip", "source_prompt", "edit_prompt"):
        column = bind(graph, name)
        texts[name] = {graph[place.node]["inputs"][place.key] for place in column.places}
        assert len(texts[name]) == 1 and column.file == (name == "clip")
    changed = bound(graph, {bind(graph, "source_prompt"): "one", bind(graph, "edit_prompt"): "other"})
    left = json.dumps(changed)
    assert not any(text in left for name in ("source_prompt", "edit_prompt") for text in texts[name])


def test_a_video_that_steers_the_edit_is_another_column():
    graph = read_graph(QUICKSTART.with_stem("sd15_depth").read_text(encoding="utf-8"), "sd15_depth")
    assert places(graph, "clip") == [("1", "video")] and places(graph, "depth") == [("3", "video")]
    assert bind(graph, "depth").file


def test_columns_by_title_id_and_input(quickstart):
    assert places(quickstart, "seed") == [("8", "seed")]
    assert places(quickstart, "cfg") == [("11", "cfg")]  # the edit's, not the reconstruction's or the carrying's
    assert places(quickstart, "9.steps") == places(quickstart, "Invert to noise.steps") == [("9", "steps")]
    assert places(quickstart, "negative prompt") == [("5", "text")]
    quickstart["30"] = {"class_type": "LoadImageMask", "inputs": {"image": "a.png", "channel": "red"}}
    quickstart["31"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "The key frame"}}
    assert places(quickstart, "mask") == [("30", "image")] and bind(quickstart, "mask").file
    assert places(quickstart, "key_frame") == [("31", "image")]


@pytest.mark.parametrize(
    "name, said",
    [
        ("colour", "no node of the workflow"),
        ("steps", "write 'Tune once on this clip.steps' or '8.steps'"),
        ("8.step", "has no input 'step', it has model"),
        ("Tune once on this clip", "write 'Tune once on this clip.' and one of them"),
    ],
)
def test_columns_that_mean_nothing_or_several(quickstart, name, said):
    with pytest.raises(BatchError, match=said.replace("'", ".").replace(".", ".")):
        bind(quickstart, name)


def test_what_is_wrong_is_named_by_line(table):
    found = table(
        f"{HEAD},colour,seed\n"
        "clips/blue_square.mp4,a,b,,1\n"
        "clips/none.mp4,a,b,,2\n"
        "clips/blue_square.mp4,a,b,,1\n"
        ",a,b,,3\n"
        "other.csv,a,b,,4\n"
        "clips/blue_square.mp4,a,b,,5,6\n"
        "\n"
        '"clips/blue_square.mp4","a\nb",c,,5\n'
        "clips/none.mp4,a,d,,2\n"
    )
    said = {(one.line, one.column): one.text for one in found.problems}
    assert said.keys() == {(1, "colour"), (3, "clip"), (4, ""), (5, "clip"), (6, "clip"), (7, ""), (11, "clip")}
    assert "there is no file" in said[3, "clip"] and said[4, ""] == "the same edit as line 2"
    assert said[5, "clip"] == "no clip is named" and "cannot be read as a video" in said[6, "clip"]
    assert [row.line for row in found.rows] == [2, 9]
    assert found.rows[1].graph["8"]["inputs"]["seed"] == 5


@pytest.mark.parametrize("cell", ["x" * 300, "~nobody/x.mp4", "~x.mp4"])
def test_a_clip_that_is_no_path(cell, table):
    """Such as a prompt, where columns are swapped."""
    (problem,) = table(f"{HEAD}\n{cell},a,b\n").problems
    assert (problem.line, problem.column) == (2, "clip") and "there is no file" in problem.text


@pytest.mark.parametrize("row", ['clips/blue_square.mp4,a,"b', '"clips/blue_square.mp4"x,a,b'])
def test_quotes_that_would_swallow_rows(row, table):
    with pytest.raises(BatchError, match="other.csv, line 3: .*Quotes belong around a whole cell"):
        table(f"{HEAD}\nclips/blue_square.mp4,a,b\n{row}\nclips/red_circle.mp4,a,b\n")


def test_empty_cells_and_semicolons(table, quickstart):
    found = table("\ufeffclip;source_prompt;edit_prompt;cfg\nclips/red_circle.mp4;;a cat;3,5\n")
    (row,) = found.rows
    assert not found.problems
    assert row.graph["3"]["inputs"]["text"] == quickstart["3"]["inputs"]["text"]
    assert row.graph["4"]["inputs"]["text"] == "a cat" and row.graph["11"]["inputs"]["cfg"] == "3,5"
    info = {"EI2_EditSample": {"input": {"required": {"cfg": ["FLOAT", {"min": 0.0, "max": 100.0}]}}}}
    assert check_column(row.graph, found.columns["cfg"], info) == ["'3,5' is not a number"]
    assert row.graph["1"]["inputs"]["video"] == row.clip.name and row.clip.digest.startswith(row.clip.name[:20])


def test_all_loaders_of_the_clip(quickstart, jobs, table):
    """Another node that loads the same video, such as for the scores, and one that steers the edit."""
    other = lambda title, video: {
        "class_type": "EI2_LoadVideo",
        "inputs": {**quickstart["1"]["inputs"], "video": video},
        "_meta": {"title": title},
    }
    quickstart["30"] = other("For the scores", "red_car.mp4")
    quickstart["31"] = other("The mask", "red_car.mp4")
    quickstart["32"] = other("The depth", "red_car.mp4")
    quickstart["33"] = other("Another", "quickstart.mp4")
    assert places(quickstart, "clip") == [("1", "video"), ("30", "video"), ("32", "video")]
    found = table("depth,clip\nclips/blue_square.mp4,clips/red_circle.mp4\n")
    assert not found.problems
    clip, depth = found.rows[0].clip.name, find("clips/blue_square.mp4", jobs.parent).name
    videos = {node: found.rows[0].graph[node]["inputs"]["video"] for node in ("1", "30", "31", "32", "33")}
    assert videos == {"1": clip, "30": clip, "31": "red_car.mp4", "32": depth, "33": "quickstart.mp4"}


def test_files_that_only_the_workflow_names(jobs, tmp_path):
    """They are sent along; what is missing is said before the start."""
    graph = read_graph(QUICKSTART.with_stem("key_frame").read_text(encoding="utf-8"), "key_frame")
    (node,) = [node for node in graph if graph[node]["class_type"] == "LoadImage"]
    read = lambda text="clip\nclips/red_circle.mp4\nclips/blue_square.mp4\n": read_table(
        write(jobs.parent / "own.csv", text), graph, tmp_path
    )
    for name, folder in (("mine.png", "input"), ("sub/mine.png", "input"), ("mine.png [output]", "output")):
        graph[node]["inputs"]["image"] = name
        (problem,) = read().problems  # once, not for each line
        assert problem.line == 1 and f"'{name}'" in problem.text and str(tmp_path / folder) in problem.text
        file = tmp_path / folder / name.partition(" ")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
        found = read()
        assert not found.problems
        for row in found.rows:
            source = row.files[row.graph[node]["inputs"]["image"]]
            assert source.read() == name.encode() and row.clip.name in row.files
    before = {row.key for row in found.rows}
    file.write_bytes(b"changed")
    find.cache_clear()  # a new start
    assert not before & {row.key for row in read().rows}

    graph[node]["inputs"]["image"] = "none.png"
    found = read("clip,key_frame\nclips/red_circle.mp4,clips/blue_square.mp4\nclips/blue_square.mp4,\n")
    assert [(one.line, "'none.png'" in one.text) for one in found.problems] == [(3, True)] and len(found.rows) == 1
    assert "--comfyui" in read_table(str(jobs.parent / "own.csv"), graph).problems[0].text
    graph[node]["inputs"]["image"] = "red_car_key_frame.png"  # the pack's own
    assert not read().problems


def test_clips_at_a_url(table, jobs):
    file = (jobs.parent / "clips" / "red_circle.mp4").as_uri()
    found = table(f"{HEAD}\n{file},a,b\n{file}.gone,a,b\nnone://x/y.mp4,a,b\n")
    assert {(one.line, one.column) for one in found.problems} == {(3, "clip"), (4, "clip")}
    (row,) = found.rows
    assert row.clip.remote and row.clip.name.endswith(".mp4") and row.clip.stem == "red_circle"
    assert row.frames is None and row.clip.read() == (jobs.parent / "clips" / "red_circle.mp4").read_bytes()


def test_values_against_the_schema():
    assert check_value(2.5, ["INT", {}]) and not check_value(3.0, ["INT", {}])
    assert check_value(0, ["INT", {"min": 1}]) == "0 is not between 1 and None"
    assert check_value("maybe", ["BOOLEAN", {}]) and not check_value(True, ["BOOLEAN", {}])
    assert "not one of" in check_value("x", [["a", "b"]]) and not check_value("b", ["COMBO", {"options": ["a", "b"]}])
    assert parse("on", False) is True and parse("12", 3) == 12 and parse("12", "text") == "12"
    assert parse("1e-4", 0.1) == 1e-4 and parse("many", 3) == "many"
    for text in ("nan", "inf", "1e999"):
        value = parse(text, 7.5)
        assert check_value(value, ["FLOAT", {}]) and check_value(value, ["INT", {"min": 1}])


def test_a_key_is_of_what_changes_the_result(quickstart):
    before = key_of(quickstart)
    quickstart["3"]["_meta"]["title"] = "Other"
    assert key_of(quickstart) == before
    quickstart["8"]["inputs"]["seed"] = 1
    assert key_of(quickstart) != before


def test_the_command_names_wrong_files(tmp_path, jobs, capsys):
    run = lambda *given: main([*map(str, given), "--out", str(tmp_path / "out")])
    editor = tmp_path / "editor.json"
    editor.write_text('{"nodes": [], "links": []}')
    assert run(jobs, "--workflow", editor) == 2
    assert "Workflow > Export (API)" in capsys.readouterr().err
    assert run(tmp_path / "none.csv", "--workflow", QUICKSTART) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("file\nx\n")
    assert run(wrong, "--workflow", QUICKSTART) == 2
    assert "has no column 'clip'" in capsys.readouterr().err
    wrong.write_text(f"{HEAD}\nnone.mp4,a,b\n")
    assert run(wrong, "--workflow", QUICKSTART) == 2
    said = capsys.readouterr().err
    assert "Nothing was started" in said and "line    2  clip  there is no file" in said
    assert not (tmp_path / "out").exists()
    assert run(jobs, "--workflow", QUICKSTART, "--check") == 0
    assert "4 edits of 2 clips" in capsys.readouterr().out
