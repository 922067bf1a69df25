"""Faults on purpose. What fits into CI runs by default; `--all` runs the rest and more rounds of each."""

from __future__ import annotations

import pytest

THOROUGH = "thorough"


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run all of tests/faults, and more rounds (many minutes)")


def pytest_configure(config):
    config.addinivalue_line("markers", f"{THOROUGH}: runs with --all only")


def pytest_collection_modifyitems(config, items):
    if _all(config):
        return
    for item in items:
        if item.get_closest_marker(THOROUGH):
            item.add_marker(pytest.mark.skip(reason="runs with --all"))


@pytest.fixture(scope="session")
def rounds(request):
    """How often something is tried: `rounds(few, many)` is `many` with `--all`."""
    return lambda few, many: many if _all(request.config) else few


def _all(config) -> bool:
    # where pytest starts above this folder, it reads this file too late to know the option
    return bool(config.getoption("--all", default=False))
