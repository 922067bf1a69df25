"""What the schedule does with failures, on real Ray actors that stand in for the work: nothing is lost, nothing is done
twice, and nobody idles while there is work."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.slow


def test_servers_and_workers_that_die(ray_installed, monkeypatch):
    monkeypatch.setitem(os.environ, "RAY_worker_niceness", "0")
    from benchmarks.batch.simulation import simulate

    result = simulate(workers=3, clips=15, edits=3, seconds=10, killed=0.25, lost=0.1)
    assert result.killed >= 1 and result.workers_lost >= 1, result
    assert (result.ended, result.lost, result.twice) == (45, 0, 0), result
    # A worker that is lost takes seconds to come back, whatever the size of the work.
    assert result.makespan < 3 * result.bound, result
