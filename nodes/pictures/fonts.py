"""Finds a font with a text's characters: matplotlib's own, which is always available, or one of the machine's."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# covers more scripts than Pillow's, but not Chinese, Japanese and Korean
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
# names of fonts with those scripts, with Indian ones and Thai, or with emoji, on Linux, Windows and macOS; opening all
# fonts would take long
LARGE = re.compile(
    r"cjk|han(sans|serif)|wqy|wenquan|droidsansfallback|arphic|uming|ukai|msyh|simhei|simsun|deng|msjh|mingliu|"
    r"msgothic|meiryo|yugoth|malgun|batang|gulim|nanum|unbatang|ipa(ex)?g|takao|vlgothic|pingfang|hiragino|stheiti|heiti|"
    r"songti|applegothic|applesdgothic|arialuni|arial unicode|unifont|notosans|lxgw|sarasa|"
    r"nirmala|mangal|devanagari|kohinoor|tahoma|leelaw|thonburi|seguiemj|symbola|notoemoji",
    re.IGNORECASE,
)


def font_for(text: str) -> Path:
    """The font file that has most of the text's characters."""
    return _chosen(frozenset(text))[0]


def missing_letters(text: str) -> str:
    """The characters that no font found here has, in text order, without duplicates."""
    return "".join(letter for letter in dict.fromkeys(text) if letter in _chosen(frozenset(text))[1])


def font_advice(texts: list[str]) -> str:
    """A sentence for the user if some characters of the texts cannot be drawn; otherwise empty."""
    missing = "".join(dict.fromkeys("".join(map(missing_letters, texts))))
    if not missing:
        return ""
    few = missing if len(missing) <= 12 else f"{missing[:12]}…"
    return (
        f"No font of this machine has the letters {few}, so they are drawn as boxes: install one that has (Noto Sans "
        "CJK for Chinese, Japanese and Korean) and restart ComfyUI."
    )


@lru_cache(maxsize=256)
def _chosen(letters: frozenset[str]) -> tuple[Path, frozenset[str]]:
    """The font and the characters it lacks."""
    needed = {letter for letter in letters if letter.isprintable() and not letter.isspace()}
    best, lacking = FONT, needed - _letters(FONT)
    if not lacking:
        return best, frozenset()
    for path in _large_fonts():
        rest = needed - _letters(path)
        if len(rest) < len(lacking):
            best, lacking = path, rest
        if not lacking:
            break
    return best, frozenset(lacking)


@cache
def _large_fonts() -> tuple[Path, ...]:
    """The machine's fonts with many characters, found by file name."""
    paths = (Path(path) for extension in ("ttf", "ttc") for path in font_manager.findSystemFonts(fontext=extension))
    return tuple(sorted({path for path in paths if LARGE.search(path.stem.replace(" ", ""))}, key=_rank))


def _rank(path: Path) -> tuple:
    """Plain upright fonts first."""
    name = path.stem.lower()
    return any(word in name for word in ("bold", "black", "light", "thin", "italic", "serif", "mono")), name


@cache
def _letters(path: Path) -> frozenset[str]:
    """All characters of a font file; none if it cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (RuntimeError, OSError, ValueError):
        return frozenset()
