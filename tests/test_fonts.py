"""Tests text in any script: the choice of fonts, what no font has, right-to-left labels, and long text."""

import matplotlib
import numpy as np
import pytest
from explained import make
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stattn_jax.explain import fonts, video


@pytest.fixture(autouse=True)
def own_fonts(monkeypatch):
    """Leaves Matplotlib only the fonts that it brings along, whatever is installed."""
    own = [font for font in font_manager.fontManager.ttflist if str(font.fname).startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(font_manager.fontManager, 'ttflist', own)
    monkeypatch.setattr(fonts, '_add_new_fonts', lambda: None)
    monkeypatch.setattr(fonts, '_REPORTED', set())


@pytest.fixture
def install(tmp_path):
    """Returns a function that installs a font of full squares for some letters."""

    def install(name, letters, cff=False):
        names = ['.notdef', *(f'u{ord(letter):04X}' for letter in letters)]
        font = FontBuilder(1000, isTTF=not cff)
        font.setupGlyphOrder(names)
        font.setupCharacterMap({ord(letter): glyph for letter, glyph in zip(letters, names[1:])})
        pen = T2CharStringPen(1000, None) if cff else TTGlyphPen(None)
        for place, to in enumerate([(50, 0), (50, 900), (950, 900), (950, 0)]):
            (pen.lineTo if place else pen.moveTo)(to)
        pen.closePath()
        if cff:
            font.setupCFF(name, {}, dict.fromkeys(names, pen.getCharString()), {})
        else:
            font.setupGlyf(dict.fromkeys(names, pen.glyph()))
        font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
        font.setupHorizontalHeader(ascent=900, descent=-100)
        font.setupNameTable({'familyName': name, 'styleName': 'Regular', 'psName': name.replace(' ', '')})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / f'{name}.ttf')
        font_manager.fontManager.addfont(tmp_path / f'{name}.ttf')

    return install


def test_fonts_that_have_the_letters_are_chosen_and_those_of_the_script_first(install):
    install('Another', '犬の개')
    install('Noto Sans CJK SC', '犬狗')
    install('Noto Sans CJK JP', '犬の')
    install('Noto Sans Tamil', 'தம')
    install('A Font of Tamil', 'தமழ')
    own = 'DejaVu Sans'
    assert fonts.families('dog, chien, Ψ') == [own]
    assert fonts.families('dog 狗') == [own, 'Noto Sans CJK SC']
    assert fonts.families('犬の') == [own, 'Noto Sans CJK JP']
    assert fonts.families('犬개') == [own, 'Noto Sans CJK SC', 'Another']
    assert fonts.families('தம') == [own, 'Noto Sans Tamil']
    assert fonts.families('தழ') == [own, 'Noto Sans Tamil', 'A Font of Tamil']


def test_letters_without_a_font_are_squares_and_one_line_of_the_log(install, caplog):
    install('Another', '犬')
    with caplog.at_level('WARNING'):
        assert fonts.drawable('犬 長い 長.mp4', 20) == '犬 □□ □.mp4'
        assert fonts.drawable('長 さ', 20) == '□ □'
    (record,) = caplog.records
    assert '長 (U+9577, CJK)' in record.getMessage() and 'い (U+3044, HIRAGANA)' in record.getMessage()
    assert 'Noto Sans CJK' in record.getMessage()
    assert fonts.drawable('ಕ', 20) == '□' and len(caplog.records) == 2
    # Control characters need no font.
    assert fonts.drawable('a\nb\tc', 10) == 'a□b□c' and len(caplog.records) == 2


def test_a_label_keeps_its_letters_in_every_format(install, tmp_path):
    record = make(np.zeros((2, 2, 2, 2)), np.zeros((2, 2)), classes=('犬', 'b'))
    boxes, strips = {}, []
    for kind in ('png', 'pdf', 'svg'):
        record.save_figure(tmp_path / f'boxes.{kind}')
        boxes[kind] = (tmp_path / f'boxes.{kind}').read_bytes()
    strips.append(video._strip(record, 0, video.GroundTruth(), 480))
    install('Squares', '犬')
    strips.append(video._strip(record, 0, video.GroundTruth(), 480))
    for kind, before in boxes.items():
        record.save_figure(tmp_path / f'a.{kind}')
        assert (tmp_path / f'a.{kind}').read_bytes() != before
    assert b'+Squares' in (tmp_path / 'a.pdf').read_bytes() and b'+Squares' not in boxes['pdf']
    assert 'id="Squares-' in (tmp_path / 'a.svg').read_text() and '<!-- 犬 -->' in (tmp_path / 'a.svg').read_text()
    # A full square is darker than an empty one.
    ink = [(255 - strip[4:24, 12:30].astype(int)).sum() for strip in strips]
    assert ink[1] > 1.5 * ink[0] > 0


def test_a_pdf_with_a_font_of_cff_outlines_has_type_3_fonts(install, tmp_path):
    install('Curves', '犬', cff=True)
    assert fonts.are_truetype({'DejaVu Sans'}) and not fonts.are_truetype({'DejaVu Sans', 'Curves'})
    for kind, label in (('Type3', '犬'), ('TrueType', 'a')):
        make(np.zeros((2, 2, 2, 2)), np.zeros((2, 2)), classes=(label, 'b')).save_figure(tmp_path / f'{kind}.pdf')
        content = (tmp_path / f'{kind}.pdf').read_bytes()
        assert (b'/FontFile2' in content) == (kind == 'TrueType') and (b'/Type3' in content) == (kind == 'Type3')


def drawn(*parts):
    """Returns the left edges and the pixels, bool [h w], of a line of text."""
    figure = Figure(figsize=(4, 0.5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    line = fonts.line(axes, 0, 0.5, parts, size=20)
    canvas.draw()
    edges = [area.get_window_extent().x0 for area in line.offsetbox.get_children()]
    dark = np.asarray(canvas.buffer_rgba())[..., 0] < 128
    return edges, dark[:, np.flatnonzero(dark.any(axis=0))[0] : np.flatnonzero(dark.any(axis=0))[-1] + 1]


def test_right_to_left_labels_run_to_the_left_and_leave_the_numbers_in_place():
    """Hebrew letters do not join: the word's picture begins with that of its last letter."""
    _, word = drawn('אל')
    _, last = drawn('ל')
    assert (word[:, : last.shape[1]] == last).mean() > 0.97
    edges, _ = drawn('Predicted:', 'كلب', '70%', 'קול', '12%')
    assert edges == sorted(edges)
    # Arabic letters join, and those of Hebrew leave columns free between them.
    assert drawn('كلب')[1].any(axis=0).all() and not drawn('קול')[1].any(axis=0).all()


@pytest.mark.parametrize('limit, short', [(1, '…'), (2, '…g'), (5, 'lo…ng'), (8, 'lon…long'), (13, 'long and long')])
def test_long_text_is_cut_in_its_middle(limit, short):
    assert fonts.drawable('long and long', limit) == short


def test_wide_letters_count_twice_and_marks_stay_with_their_letter(install):
    install('Noto Sans CJK SC', '犬')
    assert fonts.drawable('犬' * 5, 10) == '犬' * 5 and fonts.drawable('犬' * 6, 10) == '犬犬…犬犬'
    assert fonts.drawable('ab' + 'e\N{COMBINING ACUTE ACCENT}' * 3, 4) == 'a…e\N{COMBINING ACUTE ACCENT}' * 1 + (
        'e\N{COMBINING ACUTE ACCENT}'
    )
    assert fonts.drawable('x' * 500, 52) == 'x' * 25 + '…' + 'x' * 26
