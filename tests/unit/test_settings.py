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


def test_a_coarse_factor_below_one_is_refused():
    with pytest.raises(ValueError, match="coarse_factor is 0: it must be 1 or more"):
        InflationSettings(coarse_factor=0)
