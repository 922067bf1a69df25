"""One real server for the tests here, and the nodes' good inputs on it."""

from __future__ import annotations

import pytest

from ...server.conftest import client, clips, server, session_client, start_log  # noqa: F401
from .good import good_graph


@pytest.fixture(scope="session")
def graph(session_client):  # noqa: F811
    """A graph with every node of the pack that has inputs, run once, so that what goes before an odd value is there."""
    graph = good_graph()
    session_client.run(graph, timeout=600)
    return graph
