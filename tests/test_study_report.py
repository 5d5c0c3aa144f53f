"""Tests the report and its appendix: well-formed and self-contained, without markup from data, with enough contrast.

Contrast is tested in both colour schemes.
"""

import base64
import html.parser
import json
import pathlib
import re

import measured
import pytest
from PIL import Image

from stattn_jax.study import outputs, report
from stattn_jax.study.table_format import Column, Estimate, Table

VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}
CSS = (pathlib.Path(report.__file__).with_name('report.css')).read_text()


class Page(html.parser.HTMLParser):
    """Checks that every element is closed in order, and collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = measured.write(
        tmp_path_factory.mktemp('study'), variants=('events', 'binding'), seeds=(0, 1), rows=('stan', 'film', 'cam')
    )
    place = folder / 'examples/events'
    place.mkdir(parents=True)
    Image.new('RGB', (8, 4), 'red').save(place / 'a.png')
    (place / 'examples.json').write_text(json.dumps([{'file': 'a.png', 'caption': 'clip <script>7</script> & "bell"'}]))
    outputs.write(outputs.load(folder), measured.scores(), folder, {'expected': ['binding/<b>-0'], 'commit': '<i>abc'})
    return folder


@pytest.fixture(scope='module')
def pages(folder):
    return {name: Page((folder / f'{name}.html').read_text()) for name in ('report', 'appendix')}


def test_the_pages_are_whole_and_need_nothing_but_each_other(pages, folder):
    images = []
    for page in pages.values():
        assert 'script' not in page.tags and 'link' not in page.tags
        assert all(source.startswith('data:image/png;base64,') for source in page.of('src'))
        assert all(address.startswith('#') or (folder / address).exists() for address in page.of('href'))
        assert {address[1:] for address in page.of('href') if address[0] == '#'} <= set(page.of('id'))
        assert all(page.of('alt')) and len(page.of('alt')) == len(page.of('src'))
        images += [base64.b64decode(source.split(',')[1]) for source in page.of('src')]
    assert not re.search(r'url\(|@import|https?:', CSS)
    files = [*(folder / 'figures').glob('*.png'), *(folder / 'examples').glob('*/*.png')]
    assert set(images) == {path.read_bytes() for path in files} and len(images) == len(files) == 10
    assert len(pages['report'].of('src')) == report.FIGURES


def test_nothing_of_the_data_becomes_markup(pages):
    text = {name: ''.join(page.text) for name, page in pages.items()}
    assert 'missing: binding/<b>-0.' in text['report'] and '<i>abc' in text['report']
    assert 'clip <script>7</script> & "bell"' in text['appendix']
    tags = pages['report'].tags
    assert 'b' not in tags[tags.index('header') : tags.index('section')] and 'i' not in tags


def test_each_table_scrolls_in_a_box_of_its_own(pages, folder):
    page = pages['appendix']
    classes = page.of('class')
    made = outputs.make(outputs.load(folder), measured.scores())
    assert page.tags.count('table') == classes.count('scroll') == len(made) and 'table' not in pages['report'].tags
    assert 'overflow-x: auto' in CSS and page.of('name') == ['viewport']
    assert all(table.title in ''.join(page.text) for table in made)


def test_a_verdict_is_a_word_and_a_shape(folder):
    columns = (Column('row'), Column('less', 'points', True))
    rows = tuple((word, Estimate(0.1, 0.0, 0.2, 4, 0, 1, 0.2, word)) for word in ('ahead', 'level', 'behind'))
    table = Table('x', 'v', 'X', '', columns, rows)
    found = report.html_appendix([table], [])
    for mark, word in zip('▲●▼', ('ahead', 'level', 'behind')):
        assert f'<span class="{word}">{mark} {word}</span>' in found
    assert '+10.0 <small>[0.0, 20.0]</small> <small>p 0.20</small>' in found


def test_examples_keep_their_order_and_may_be_absent(tmp_path):
    assert report.examples(tmp_path / 'none') == []
    (tmp_path / 'events').mkdir()
    items = [{'file': f'{i}.png', 'caption': str(i)} for i in (2, 1)]
    (tmp_path / 'events/examples.json').write_text(json.dumps(items))
    found = report.examples(tmp_path)
    assert [(e.path.name, e.variant, e.caption) for e in found] == [('2.png', 'events', '2'), ('1.png', 'events', '1')]


@pytest.mark.parametrize('scheme', [0, 1])
def test_text_has_contrast_in_both_schemes(scheme):
    colours = dict(re.findall(r'--(\w+): (#\w{6})', CSS.split('@media (prefers-color-scheme: dark)')[0]))
    if scheme:
        colours |= dict(re.findall(r'--(\w+): (#\w{6})', CSS.split('@media (prefers-color-scheme: dark)')[1]))
    for ink in ('ink', 'quiet', 'accent', 'ahead', 'level', 'behind'):
        for ground in ('ground', 'panel', *(['head'] if ink == 'ink' else [])):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(first, second):
    """Contrast ratio of two colours as WCAG 2.2 defines it."""
    light, dark = sorted(map(luminance, (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
