"""The development command: what it sets up, one at a time."""

from __future__ import annotations

import threading

import pytest

import dev
from devtools import environment


@pytest.mark.parametrize(
    "arguments, browser, batch",
    [
        ([], True, True),
        (["-k", "words", "-x"], True, True),
        (["tests/unit", "tests/host/test_inputs.py::test_switches"], False, False),
        (["tests/browser/test_runs.py"], True, False),
        (["tests"], True, True),
        (["--ignore", "tests/browser"], True, True),
    ],
)
def test_only_what_the_tests_need_is_set_up(arguments, browser, batch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pytest runs in the project's folder, wherever the command was given
    assert (dev.collects(arguments, "browser"), dev.collects(arguments, "batch")) == (browser, batch)


def test_one_set_up_waits_for_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "DEV", tmp_path)
    done = threading.Event()

    def second():
        with environment.alone():
            done.set()

    with environment.alone():
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.5)
    assert done.wait(10)
    thread.join()
    assert capsys.readouterr().out.count("Another dev.py is setting up") == 1
