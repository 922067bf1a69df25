"""What goes wrong in practice: each mistake gets one clear sentence at the right node, before long work, and leaves
nothing behind."""

from __future__ import annotations

import math
import wave
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import pytest

from miniature.clips import CLIP_FILE

from .graphs import LONG, changed, edit_graph, fail, run, same_pictures
from .mistakes import CASES, FRAMES

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def broken(server) -> Path:
    """Puts broken files into the input folder and a good one beside it; returns the server's base folder."""
    folder, good = server.base / "input", CLIP_FILE.read_bytes()
    (server.base / "outside.mp4").write_bytes(good)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is a shopping list, not a video.\n" * 50)
    (folder / "cut.mp4").write_bytes(good[:400])  # within the header
    (folder / "cut_later.mp4").write_bytes(good[: len(good) * 9 // 20])  # within the second frame
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    return server.base


def written(base: Path) -> dict[Path, tuple[int, int]]:
    """Every file the server may have written for a run: path -> size, time."""
    folders = [base / name for name in ("input", "output", "temp", "models")]
    files = [file for folder in folders if folder.exists() for file in folder.rglob("*") if file.is_file()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@pytest.fixture(scope="module")
def good_run(session_client, exact):
    """Runs the good graph, everything after loading the model computed anew, and returns its frames."""
    # The clip ends after 4 frames: a larger limit changes no frame, but makes the run a new one to the host.
    limits = count(FRAMES + 1)

    def compute():
        graph = changed(edit_graph(tune_steps=2, invert_steps=3), {"video.max_frames": next(limits)})
        result = run(session_client, graph)
        assert {"video", "tune", "invert", "edit", "save"} <= result.executed()
        return result.pictures()

    return compute


@pytest.fixture(scope="module")
def reference(good_run):
    return good_run()


def check_sentence(message: str) -> None:
    """One or two plain sentences, said once; not a traceback or a bare number."""
    assert 20 < len(message) < 300, message
    assert "Traceback" not in message and "\n" not in message.strip() and " | " not in message, message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistake(client, broken, good_run, reference, exact, case):
    graph = {**edit_graph(tune_steps=2, invert_steps=3), **case.extra()}
    changes = {key: _in_base(value, broken) for key, value in case.changes.items()}
    before = written(broken)

    failure = fail(client, changed(graph, changes))

    assert failure is not None, "nobody noticed"
    print(f"{case.name}: {failure.node}: {failure.message}")
    by_the_host = bool(case.choice) and failure.message.startswith("Value not in list")
    words, refused = ((f"'{case.choice}'",), True) if by_the_host else (case.words, case.refused)
    assert failure.where == ("node_errors" if refused else "execution_error")
    assert failure.node == case.node, failure.message
    assert [word for word in words if word not in failure.message] == [], failure.message
    check_sentence(failure.message)
    if not refused:
        assert failure.kind.rsplit(".", 1)[-1] == case.kind
    long = [name for name, entry in graph.items() if entry["class_type"] in LONG and name not in case.begins]
    for name in long:
        assert not [done for done, _ in failure.progress(name) if done > 0], f"{name} had begun"

    assert written(broken) == before
    assert same_pictures(good_run(), reference, exact)
    assert good_output_only(before, written(broken))


def _in_base(value, base: Path):
    return value.replace("{base}", str(base)) if isinstance(value, str) else value


def good_output_only(before: dict, after: dict) -> bool:
    """The good run wrote its frames and nothing else."""
    new = [file for file in after if file not in before]
    return len(new) == FRAMES and all(file.suffix == ".png" for file in new)


def test_video_without_frames(client, broken):
    """A file that promises a picture track and holds no picture."""
    path = broken / "input" / "no_frames.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(8))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    failure = fail(client, edit_graph(video=path.name))
    assert failure is not None and failure.node == "video"
    assert "no_frames.mkv" in failure.message and ("has no frames" in failure.message or "cannot" in failure.message)
    check_sentence(failure.message)


def test_fp16_training_on_a_cpu(client, exact, good_run, reference):
    if not exact:
        pytest.skip("the server has a GPU, on which fp16 training is right")
    failure = fail(client, changed(edit_graph(), {"tune.precision": "fp16"}))
    assert failure is not None and failure.node == "tune"
    assert "fp16 training needs a GPU" in failure.message and "bf16 or fp32" in failure.message
    assert not [done for done, _ in failure.progress("tune") if done > 0]
    assert same_pictures(good_run(), reference, exact)


def test_learning_rate_too_high(client, good_run, reference, exact):
    """The largest learning rate either breaks the training, which is then said, or still gives real pictures."""
    graph = changed(edit_graph(tune_steps=12), {"tune.learning_rate": 0.1})
    failure = fail(client, graph)
    print(failure.message if failure else "the training holds")
    if failure is None:
        assert math.isfinite(run(client, graph).pictures().std().item())
    else:
        assert failure.node in ("tune", "invert", "edit")
        assert "earning rate" in failure.message or "NaN or infinite" in failure.message
        check_sentence(failure.message)
    assert same_pictures(good_run(), reference, exact)
