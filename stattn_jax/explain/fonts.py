"""Text of figures and videos in any script: fonts that have its letters, and lines whose parts keep their order.

Matplotlib shapes text with libraqm (since 3.11): Arabic and Devanagari letters join, and Arabic and Hebrew run from
right to left. Its own font, DejaVu Sans, has neither Chinese, Japanese and Korean letters nor those of India, so that
installed fonts that have them are chosen here.
"""

import contextlib
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from absl import logging
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea

UNKNOWN = '\N{WHITE SQUARE}'

# Fonts that are tried first, by the first word of the letters' Unicode names; the forms of Chinese letters differ
# between languages, so that Japanese and Korean fonts come first in text with letters of these languages. Other scripts
# have a font "Noto Sans SCRIPT" where the Noto fonts are installed.
_KANA = ('Noto Sans CJK JP', 'Noto Sans JP', 'Source Han Sans', 'Hiragino Sans', 'Yu Gothic', 'MS Gothic', 'IPAGothic')
_CHINESE = (
    'Noto Sans CJK SC', 'Noto Sans SC', 'Source Han Sans CN', 'PingFang SC', 'Heiti SC', 'Microsoft YaHei', 'SimHei',
    'WenQuanYi Micro Hei', 'WenQuanYi Zen Hei', 'Droid Sans Fallback',
)  # fmt: skip
_PREFERRED = {
    'HIRAGANA': _KANA,
    'KATAKANA': _KANA,
    'HANGUL': ('Noto Sans CJK KR', 'Noto Sans KR', 'Apple SD Gothic Neo', 'Malgun Gothic', 'NanumGothic', 'UnDotum'),
    **dict.fromkeys(('CJK', 'IDEOGRAPHIC', 'BOPOMOFO', 'FULLWIDTH', 'HALFWIDTH'), _CHINESE),
}
_LOCK = threading.Lock()
_REPORTED: set[str] = set()


def families(text: str) -> list[str]:
    """Returns the font families that together have the letters of `text`, Matplotlib's own font first."""
    own = get_font(findfont(FontProperties()))
    with _LOCK:
        return [own.family_name, *_fallbacks({letter for letter in text if ord(letter) not in own.get_charmap()})[0]]


def are_truetype(names: set[str]) -> bool:
    """Returns whether the glyphs of all these families are TrueType outlines; those of others, Noto CJK's, are CFF."""
    fonts = (get_font(findfont(FontProperties(family=[name]))) for name in names)
    # Fonts of CFF outlines have version 0.5 of this table, as OpenType demands.
    return all(font.get_sfnt_table('maxp')['version'] == (1, 0) for font in fonts)


def drawable(text: str, limit: int) -> str:
    """Returns text that can be drawn, `limit` columns wide at most: the middle of longer text becomes an ellipsis.

    Wide letters (Chinese, Japanese, Korean) take two columns. Control characters, and letters that no installed font
    has, become white squares; a warning in the log names such letters, once for each script.
    """
    own = get_font(findfont(FontProperties())).get_charmap()
    # Format characters join or separate letters, or set their direction, and have no form of their own.
    formats = {letter for letter in text if unicodedata.category(letter) == 'Cf'}
    printable = {letter for letter in text if letter.isprintable()}
    with _LOCK:
        missing = _fallbacks({letter for letter in printable if ord(letter) not in own})[1]
        _report(missing)
    known = printable - missing | formats
    return _shortened(''.join(letter if letter in known else UNKNOWN for letter in text), limit)


def line(
    axes: Axes, x: float, y: float, parts: Sequence[str], *, size: float, weight: str = 'normal'
) -> AnnotationBbox:
    """Writes parts side by side, a word space apart, from `x` on and centred at `y` (data coordinates).

    An empty part adds a space. Every part is laid out on its own, since a number beside a label in Arabic or Hebrew
    would otherwise move to the label's other side, and several labels would change their order.
    """
    areas: list[Artist] = []
    for part in parts:
        fonts = families(part)
        # Few fonts of other scripts have a bold face.
        style = {'fontsize': size, 'fontfamily': fonts, 'fontweight': weight if len(fonts) == 1 else 'normal'}
        areas.append(TextArea(part, textprops=style | {'parse_math': False}))
    box = HPacker(children=areas, pad=0, sep=0.32 * size, align='baseline')
    artist = AnnotationBbox(box, (x, y), box_alignment=(0, 0.5), frameon=False, pad=0)
    axes.add_artist(artist)
    return artist


def _shortened(text, limit):
    if sum(map(_columns, text)) <= limit:
        return text
    tail = ''.join(reversed(_first(reversed(text), limit // 2))).lstrip()
    while tail and _columns(tail[0]) == 0:
        tail = tail[1:]
    return f'{"".join(_first(text, (limit - 1) // 2))}…{tail}'


def _first(letters, limit):
    """Returns the first letters that are `limit` columns wide together."""
    taken, columns = [], 0
    for letter in letters:
        columns += _columns(letter)
        if columns > limit:
            break
        taken.append(letter)
    return taken


def _columns(letter):
    if unicodedata.category(letter) in ('Mn', 'Me', 'Cf'):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in 'WF' else 1


def _fallbacks(letters: set[str]) -> tuple[list[str], set[str]]:
    """Returns the families of installed fonts that have these letters, and the letters that none of them has."""
    chosen, left = [], set(letters)
    candidates = _candidates({_script(letter) for letter in letters}) if left else iter(())
    while left and (font := next(candidates, None)):
        name, path = font
        found = {letter for letter in left if ord(letter) in _glyphs(path)}
        if found:
            chosen.append(name)
            left -= found
    return chosen, left


def _candidates(scripts: set[str]) -> Iterator[tuple[str, font_manager.FontPath | str]]:
    """Yields the name and the file of every font for text beyond Matplotlib's own, those made for the scripts first."""
    _add_new_fonts()
    upright = [font for font in list(font_manager.fontManager.ttflist) if font.style == 'normal']
    # Last Resort fonts have a box for every letter.
    upright = [font for font in upright if not font.name.startswith(('Last Resort', '.LastResort'))]
    by_name = {font.name: font for font in sorted(upright, key=lambda font: -abs(_weight(font) - 400))}
    first = [name for script in (*_PREFERRED, *sorted(scripts)) if script in scripts for name in _names(script)]
    rest = sorted(by_name, key=lambda name: ('Mono' in name, 'Sans' not in name, name))
    for name in dict.fromkeys([*first, *rest]):
        if name in by_name:
            yield name, by_name[name].fname


def _weight(font):
    return font.weight if isinstance(font.weight, int) else 400


def _script(letter):
    return unicodedata.name(letter, 'UNKNOWN').split()[0].split('-')[0]


def _names(script):
    return _PREFERRED.get(script, (f'Noto Sans {script.title()}',))


@cache
def _add_new_fonts() -> None:
    """Adds fonts that were installed after Matplotlib wrote its list of fonts."""
    listed = {str(font.fname) for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):
        # Damaged fonts and fonts of bitmaps cannot be added.
        with contextlib.suppress(Exception):
            font_manager.fontManager.addfont(path)


@cache
def _glyphs(path) -> frozenset[int]:
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _report(missing: set[str]) -> None:
    """Logs letters without a font, in one line and once for each script."""
    new = {script: letter for letter in sorted(missing, reverse=True) if (script := _script(letter)) not in _REPORTED}
    _REPORTED.update(new)
    if new:
        letters = ', '.join(f'{letter} (U+{ord(letter):04X}, {script})' for script, letter in sorted(new.items()))
        logging.warning(
            'no installed font has %s: figures and videos show %s for the letters of these scripts; install a font '
            'that has them, for example %s', letters, UNKNOWN, _names(max(new))[0],
        )  # fmt: skip
