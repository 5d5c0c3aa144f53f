"""The font of figures and videos (Matplotlib's own, DejaVu Sans), and text that it can draw."""

from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import ImageFont


def pillow_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font for Pillow, `size` in pixels."""
    return ImageFont.truetype(findfont(FontProperties()), size)


def drawable(text: str, limit: int) -> str:
    """Returns text that the font can draw: unknown characters become a square, the middle of long text an ellipsis."""
    known = _glyphs()
    text = ''.join(ch if ord(ch) in known and ch.isprintable() else '\N{WHITE SQUARE}' for ch in text)
    return text if len(text) <= limit else f'{text[: (limit - 1) // 2]}…{text[len(text) - limit // 2 :]}'


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
