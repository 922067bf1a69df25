"""What the schedule does with failures, on real Ray actors that stand in for the work: nothing is lost, nothing is done
twice, and nobody idles while there is work."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.slow


def test_servers_and_workers_that_die(ray_installed, monkeypatch):
    monkeypatch.setitem(os.environ, "RAY_worker_niceness", "0")
    from benchmarks.batch.simulation import simulate

    found = simulate(workers=3, clips=15, edits=3, seconds=10, killed=0.25, lost=0.1)
    assert found.killed >= 1 and found.workers_lost >= 1, found
    assert (found.ended, found.lost, found.twice) == (45, 0, 0), found
    # A worker that is lost takes seconds to come back, whatever the size of the work.
    assert found.makespan < 3 * found.bound, found
