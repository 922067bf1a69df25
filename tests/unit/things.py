"""What tests of the world with things need: OpenMoji's sprites, drawn already or to be drawn with two packages."""

from __future__ import annotations

import pytest

from miniature.sprites import load


def need_sprites() -> pytest.MarkDecorator:
    """Skips a module's tests where the sprites can be neither read nor drawn, with the reason."""
    lacking = ""
    try:
        load()
    except ModuleNotFoundError as error:
        lacking = str(error)
    return pytest.mark.skipif(bool(lacking), reason=lacking)
