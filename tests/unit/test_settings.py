"""Settings: the defaults are EI², and nonsense is refused by name."""

from __future__ import annotations

import pytest

from ei2.settings import CHOICES, PRESETS, InflationSettings


def test_the_defaults_are_the_preset_ei2():
    assert PRESETS["EI2"] == InflationSettings()
    settings = InflationSettings().to_dict()
    assert (settings["spatial"], settings["temporal"], settings["coarse_factor"]) == ("ffam", "stam", 2)
    assert InflationSettings(**settings) == InflationSettings()


def test_the_presets_differ():
    assert len(set(PRESETS.values())) == len(PRESETS)


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_is_refused_with_what_there_is(name):
    with pytest.raises(ValueError, match=f"{name} is 'sideways': choose one of .*{CHOICES[name][-1]}"):
        InflationSettings(**{name: "sideways"})


@pytest.mark.parametrize("name, value", [(name, value) for name, values in CHOICES.items() for value in values])
def test_every_choice_is_accepted(name, value):
    assert InflationSettings(**{name: value}).to_dict()[name] == value


@pytest.mark.parametrize("factor", [0, 9, 10**18])
def test_a_coarse_factor_out_of_range_is_refused(factor):
    with pytest.raises(ValueError, match=f"coarse_factor is {factor}: it must be from 1 to 8."):
        InflationSettings(coarse_factor=factor)


def test_what_the_rivals_change():
    """As in their public code: even Vid2Vid-zero, without a temporal module, has inflated ResBlocks."""
    kinds = {name: (settings.spatial, settings.temporal, settings.group_norm) for name, settings in PRESETS.items()}
    assert kinds == {
        "EI2": ("ffam", "stam", "frame"),
        "Tune-A-Video": ("sca", "attention", "video"),
        "Video-P2P": ("first_frame", "attention", "video"),
        "Vid2Vid-zero": ("dense_sca", "none", "video"),
        "Per-frame": ("none", "none", "frame"),
    }
    assert {settings.position for settings in PRESETS.values()} == {"after_feed_forward"}


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"spatial": "sca", "coarse_factor": 4},
            "coarse_factor 4 has no effect unless spatial is ffam: set spatial to ffam, or coarse_factor back to 2.",
        ),
        ({"spatial": "none", "coarse_pool": "stride"}, "coarse_pool stride has no effect unless spatial is ffam"),
        ({"coarse_factor": 1, "coarse_pool": "stride"}, "coarse_pool stride has no effect with coarse_factor 1"),
        ({"temporal": "none", "centering": "channels"}, "centering channels has no effect unless temporal is stam"),
        ({"temporal": "attention", "centering": "layer_norm"}, "centering layer_norm has no effect unless temporal is"),
        ({"temporal": "attention", "normalization": "off"}, "normalization off has no effect unless temporal is stam"),
        (
            {"temporal": "attention", "normalization_scope": "vo"},
            "normalization_scope vo has no effect unless temporal is",
        ),
        (
            {"normalization": "off", "normalization_scope": "vo"},
            "normalization_scope vo has no effect unless normalization is bounded or strict: set normalization to "
            "bounded or strict, or normalization_scope back to qkvo.",
        ),
        (
            {"temporal": "none", "position": "after_spatial"},
            "position after_spatial has no effect unless temporal is stam or attention",
        ),
    ],
)
def test_a_choice_without_effect_is_refused_with_both_names(options, message):
    with pytest.raises(ValueError) as error:
        InflationSettings(**options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "options",
    [
        {"spatial": "ffam", "coarse_factor": 1},  # the same as dense, only slower: a fair comparison
        {"temporal": "attention", "position": "after_spatial"},
        {"normalization": "strict", "normalization_scope": "vo"},
        {"centering": "layer_norm", "normalization": "off"},
    ],
)
def test_what_has_an_effect_is_accepted(options):
    assert options.items() <= InflationSettings(**options).to_dict().items()
