"""One real ComfyUI server for all tests here, with the pack in its custom_nodes folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.client import Client
from devtools.environment import SetupError
from devtools.server import Server
from miniature.clips import bundled_clip, write_clip

from .graphs import forget_results

SHORT_FRAMES = 4


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> tuple[Path, ...]:
    """What lies in the server's input folder besides the bundled clips: the first frames of one, as short.mp4."""
    short = tmp_path_factory.mktemp("clips") / "short.mp4"
    write_clip(bundled_clip()[:SHORT_FRAMES], short, fps=8)
    return (short,)


@pytest.fixture(scope="session")
def server(clips):
    try:
        with Server(clips=clips) as server:
            yield server
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def start_log(server) -> str:
    """The server's log up to the moment it answered."""
    return server.log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def session_client(server, start_log):
    with Client(server.url) as client:
        yield client


@pytest.fixture
def client(session_client, server):
    """The connection; names the server's end, should it have ended by itself during the test."""
    yield session_client
    server.check()


@pytest.fixture(scope="session")
def exact(session_client) -> bool:
    """Whether the server computes the same bits every time: a CPU does, a GPU need not."""
    return session_client.system_stats()["devices"][0]["type"] == "cpu"


@pytest.fixture
def forget(client):
    """Makes the server unload its models and forget all results: call it before a run that must compute anew."""
    return lambda: forget_results(client)
