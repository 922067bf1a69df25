"""A worker with a real ComfyUI, without Ray: which models it sees, and which files it has."""

from __future__ import annotations

import errno
import json
import os
import uuid

import pytest
from PIL import Image

from batch.graph import copy
from batch.tasks import INPUT, OK, WORKER, Setup, Task
from batch.worker import Worker

pytestmark = pytest.mark.server
MODELS = "models \U0001f680 {v1}"
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "picture.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
}


@pytest.fixture(scope="module")
def worker(comfyui, tmp_path_factory):
    """A worker whose folder of models is a relative path, with another folder in a file of extra paths, and a proxy
    that does not answer."""
    folder = tmp_path_factory.mktemp("worker")
    for name in (f"{MODELS}/loras/mine [v1].safetensors", "more/loras/other.safetensors"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"weights")
    extra = folder / "extra.yaml"
    extra.write_text(json.dumps({"extra": {"base_path": str(folder / "more"), "loras": "loras"}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        worker = Worker(Setup(str(comfyui), MODELS, options=("--extra-model-paths-config", str(extra))))
        try:
            worker.start()
            yield worker
        finally:
            worker.stop()


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path.read_bytes()


def run(worker: Worker, files: dict, **more):
    graph = copy(GRAPH)
    graph["2"]["inputs"]["filename_prefix"] = uuid.uuid4().hex  # otherwise ComfyUI repeats nothing and writes no file
    task = Task("a picture", graph, files, collect={"2": "edit"}, **more)
    return worker.run(task, fetch=lambda content: content)


def test_models_by_relative_path_and_extra_paths(worker, picture):
    loras = worker.object_info()["LoraLoader"]["input"]["required"]["lora_name"][0]
    names = ("mine [v1].safetensors", "other.safetensors")
    assert set(names) <= set(loras)
    outcome = run(worker, {"input/picture.png": [picture]}, models=(*names, "none.safetensors"))
    assert outcome.kind == OK, outcome.sentence
    assert [outcome.models[name][:7] for name in (*names, "none.safetensors")] == ["7 bytes", "7 bytes", ""]


def test_a_file_that_is_not_there_is_the_workers_fault(worker, picture):
    assert run(worker, {}).kind == INPUT  # it names a file that nobody sends
    outcome = run(worker, {"input/picture.png": None})  # the schedule believes that the worker has it
    assert outcome.kind == WORKER and "input/picture.png" in outcome.sentence, outcome
    assert run(worker, {"input/picture.png": [picture]}).kind == OK
    assert run(worker, {"input/picture.png": None}).kind == OK


def test_a_disk_that_times_out_is_no_fault_of_the_server(worker, picture):
    """As a network's does; the server stays."""
    before = worker.start()["server"]

    def fetch(_):
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    outcome = worker.run(Task("a picture", copy(GRAPH), {"input/other.png": [picture]}), fetch=fetch)
    assert outcome.kind == WORKER and "Connection timed out" in outcome.sentence
    assert worker.start()["server"] == before


def test_a_folder_of_models_that_does_not_exist(comfyui, tmp_path):
    worker = Worker(Setup(str(comfyui), str(tmp_path / "none")))
    outcome = worker.run(Task("a picture", GRAPH))
    assert outcome.kind == WORKER and "There is no folder of models" in outcome.sentence
    assert os.listdir(tmp_path) == []
