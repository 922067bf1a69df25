"""EI2 Shift Probe in a graph on a real server."""

from __future__ import annotations

import pytest

from .graphs import edit_graph, fail, node, run

pytestmark = pytest.mark.server


@pytest.fixture
def graph():
    """A model tuned for two steps beside an untuned rival; the plot is saved, the table shown."""
    parts = edit_graph(tune_steps=2)
    kept = ("video", "mini", "source_prompt", "encode", "inflate", "tune")
    probe = node(
        "EI2_ShiftProbe",
        model=("tune", 0),
        latent=("encode", 0),
        positive=("source_prompt", 0),
        timesteps="200, 800",
        compare_with=("rival", 0),
    )
    return {
        **{name: parts[name] for name in kept},
        "rival": node("EI2_InflateUNet", model=("mini", 0), preset="Tune-A-Video"),
        "probe": probe,
        "save": node("SaveImage", images=("probe", 0), filename_prefix="shift"),
        "show": node("PreviewAny", source=("probe", 1)),
    }


def test_plot_and_table(client, graph):
    result = run(client, graph)
    plot = result.pictures()
    assert plot.shape[0] == 1 and min(plot.shape[2:]) > 500
    table = result.outputs["show"]["text"][0]
    assert table.startswith("model (EI2), timesteps 200, 800\n\n| block")
    assert "\ncompare_with (Tune-A-Video, untuned), timesteps 200, 800\n\n| block" in table
    assert table.count("| mean of blocks |") == 2
    done, total = result.progress("probe")[-1]
    assert done == total == 2 * 2 * 2  # UNet runs: two models, two timesteps, each against the plain model


def test_timesteps_may_come_from_another_node(client, graph):
    graph["text"] = node("PrimitiveString", value="500")
    graph["probe"]["inputs"]["timesteps"] = ["text", 0]
    assert "timesteps 500\n" in run(client, graph).outputs["show"]["text"][0]


def test_nonsense_for_timesteps_is_refused_before_the_run(client, graph):
    graph["probe"]["inputs"]["timesteps"] = "early, late"
    failure = fail(client, graph)
    assert failure.where == "node_errors" and failure.node == "probe"
    assert "give whole numbers separated by commas" in failure.message
