"""The nodes' texts in the editor's languages follow the schemas."""

from __future__ import annotations

import copy

import pytest

from devtools import locales

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def schemas() -> list:
    return locales.schemas()


def test_english_is_what_the_schemas_say(schemas):
    assert locales.read("en") == locales.english(schemas), "run: python -m devtools.locales"


@pytest.mark.parametrize("language", locales.OTHERS)
def test_translations_follow(schemas, language):
    assert locales.complaints(schemas, locales.read(language)) == []


@pytest.mark.parametrize(
    "path, text, complaint",
    [
        ("EI2_Invert.inputs.steps.tooltip", None, "is missing"),
        ("EI2_Invert.inputs.strength.tooltip", "强度", "is of no use"),
        ("EI2_Invert.description", "Finds the noise.", "is not translated"),
        ("EI2_Invert.inputs.null_cfg.tooltip", "设为编辑时的 CFG，一般用 8。", "has other numbers"),
        ("EI2_LoadVideo.inputs.fit.tooltip", "crop：裁掉。stretch：变形。", "does not explain 'pad'"),
        ("EI2_Invert.description", "找到噪声{noise}。", "holds one of"),
    ],
)
def test_what_does_not_follow_is_found(schemas, path, text, complaint):
    translated = copy.deepcopy(locales.read("zh"))
    *place, last = path.split(".")
    entry = translated
    for key in place:
        entry = entry.setdefault(key, {})
    if text is None:
        del entry[last]
    else:
        entry[last] = text
    found = locales.complaints(schemas, translated)
    assert len(found) == 1 and found[0].startswith(path) and complaint in found[0]
