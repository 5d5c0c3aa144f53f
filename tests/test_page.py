"""Tests of the pages as text.

Every number is the record's, nothing is fetched, no data becomes markup, and colours can be distinguished.
"""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re

import matplotlib
import numpy as np
import PIL.Image
import pytest
from clips import write_small
from pages import record

from stattn_jax.explain import index, page, sentences
from stattn_jax.explain.explanation import GroundTruth

HOSTILE = '</script><img src=x onerror=alert(1)><!-- "\'&'
TRUTH = GroundTruth([(1.0, 2.5)], [(0.5, 0.0, 0.0, 0.5, 0.5)])


class Markup(html.parser.HTMLParser):
    """Parses a document: its tags and attribute names, the text of its scripts and styles, and its addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.addresses = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ('src', 'href', 'srcset', 'action')]
        self.attributes = dict(attrs)
        if tag == 'meta' and self.attributes.get('http-equiv') == 'Content-Security-Policy':
            self.policy = self.attributes['content']

    def handle_data(self, data):
        tag = self.tags[-1][0] if self.tags else None
        if tag in ('script', 'style'):
            self.inside.append((tag, self.attributes.get('id'), data))

    def texts(self, tag, name=None):
        return [data for element, id_, data in self.inside if (element, id_) == (tag, name) and data.strip()]


def data_of(text):
    return json.loads(Markup(text).texts('script', 'data')[0])


def floats(packed):
    return np.frombuffer(base64.b64decode(packed['base64']), '<f4').reshape(packed['shape'])


def from_url(url, kind):
    assert url.startswith(f'data:{kind};base64,')
    return base64.b64decode(url.split(',')[1])


def test_the_page_holds_the_numbers_of_the_record():
    e = record(classes=[f'class {c}' for c in range(14)])
    data = data_of(page.render(e, 'class 12', TRUTH))
    shown = [*range(10), 12]
    assert data['shown'] == shown and data['chosen'] == 12 and data['classes'] == list(e.classes)
    for name in ('logits', 'bias', 'beta', 'segment_scores', 'alpha', 'null', 'removed_cells'):
        assert np.array_equal(floats(data[name]), getattr(e, name)), name
    for name in ('reference', 'visual', 'audio'):
        assert np.array_equal(floats(data[name]), getattr(e, name)[shown]), name
    assert data['removed'] == [0, 1] and data['truth'] == {'intervals': [[1.0, 2.5]], 'boxes': [list(TRUTH.boxes[0])]}
    assert data['sentences'] == [e.sentence(e.classes[c]) for c in shown]
    assert data['trust'] == e.trust and data['geometry'] == e.geometry


def test_without_a_label_the_page_opens_with_the_best_class_and_an_unknown_one_is_named():
    assert data_of(page.render(record()))['chosen'] == 0
    with pytest.raises(ValueError, match="unknown label 'cow'"):
        page.render(record(), 'cow')


def test_frames_stand_in_where_there_is_no_source_and_only_there(tmp_path):
    e = record()
    data = data_of(page.render(e))
    assert [from_url(url, 'image/jpeg') for url in data['slides']] == list(e.frames)
    assert not Markup(page.render(e)).texts('script', 'clip')
    source = write_small(tmp_path / 'a.mp4', 4)
    with_clip = page.render(dataclasses.replace(e, source=source))
    assert data_of(with_clip)['slides'] == []
    assert base64.b64decode(Markup(with_clip).texts('script', 'clip')[0])[4:8] == b'ftyp'


@pytest.mark.parametrize('which', ['page', 'index'])
def test_only_the_script_and_style_of_the_page_may_run_and_nothing_be_fetched(which):
    e = record()
    text = page.render(e, truth=TRUTH) if which == 'page' else index.render([index.explained_clip(e, 'a b/e.html')])
    markup = Markup(text)
    for tag in ('script', 'style'):
        (content,) = markup.texts(tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in markup.policy
    assert (
        markup.policy.startswith("default-src 'none'") and 'unsafe' not in markup.policy and 'http' not in markup.policy
    )
    assert {address for address in markup.addresses if not address.startswith('data:')} <= {'a%20b/e.html'}
    names = {name for _, attributes in markup.tags for name in attributes}
    assert 'style' not in names and not [name for name in names if name.startswith('on')]
    # The one address in the text is the name of a vocabulary, which browsers do not fetch.
    assert set(re.findall(r'https?://[^\s\'"]+', text)) <= {'http://www.w3.org/2000/svg'}


def hostile(name=HOSTILE, note=HOSTILE):
    e = record(classes=(name, 'cat', 'rain'))
    return dataclasses.replace(e, media=e.media | {'file': name, 'notes': [note]})


def test_names_from_data_never_become_markup():
    tame, wild = Markup(page.render(hostile('dog', 'sound 2 of 3'))), Markup(page.render(hostile()))
    assert wild.tags == tame.tags
    assert data_of(page.render(hostile()))['classes'][0] == HOSTILE


def test_notices_stand_above_everything_else_for_each_class():
    e = record()
    e = dataclasses.replace(e, media=e.media | {'notes': ['silent', 'damaged']})
    text = page.render(e, 'cat')
    assert data_of(text)['notices'] == [e.notices(name) for name in e.classes]
    above = text[: text.index('id="sentence"')]
    assert '<li>The sound track is silent: ' in above and '</li><li>Parts of the file could not be decoded' in above
    assert '<ul id="notices" class="notices" aria-label="Notices"></ul>' in page.render(
        record(visual=np.ones((3, 4, 3, 2)))
    )


def test_without_scripts_the_numbers_and_the_strongest_frame_are_there():
    e = record(valid=[True, True, False, True])
    (still,) = re.findall('<noscript>(.*?)</noscript>', page.render(e), re.DOTALL)
    frame = from_url(re.search('<img src="(.*?)"', still)[1], 'image/jpeg')
    assert frame == e.frames[np.unravel_index(e.visual[0].argmax(), e.visual[0].shape)[0]]
    rows = [re.findall('<td>(.*?)</td>', row) for row in re.findall('<tr>(.*?)</tr>', still)]
    assert rows[1:4] == [[row['label'], sentences.percent(row['probability'])] for row in e.top()]
    terms = [[sentences.signed(x) for x in (e.visual[0, t].sum(), e.audio[0, t])] for t in range(4)]
    assert [row[1:] for row in rows[5:]] == [terms[0], terms[1], ['no data'] * 2, terms[3]]


def test_the_page_adds_little_to_the_clip():
    """The numbers of ten seconds with 300 classes and 14 x 14 cells take less than 1 MB.

    The limit for a page is 3 MB, and a clip of 1.5 MB in base64 takes the rest.
    """
    e = record(classes=[f'class {c}' for c in range(300)], t=10, h=14, w=14)
    log_mel = np.random.default_rng(0).normal(size=(10, 96, 64)).astype(np.float16)
    e = dataclasses.replace(e, log_mel=log_mel, removed_cells=np.zeros((10, 10, 14, 14), np.float32))
    assert len(page.render(dataclasses.replace(e, frames=()))) < 0.75e6


def test_the_log_mel_strip_has_time_to_the_right_and_low_bands_below():
    e = record()
    ramp = np.zeros((4, 8, 6), np.float16)
    ramp[3, 7, 0] = 1
    url = next(x for x in Markup(page.render(dataclasses.replace(e, log_mel=ramp))).addresses if 'image/png' in x)
    image = np.asarray(PIL.Image.open(io.BytesIO(from_url(url, 'image/png'))).convert('RGB'))
    cividis = (np.array(matplotlib.colormaps['cividis']([0.0, 1.0]))[:, :3] * 255).round()
    expected = np.full((6, 32, 3), cividis[0])
    expected[5, 31] = cividis[1]
    assert np.array_equal(image, expected)


# ---------------------------------------------------------------------------------------------------------------------
# Colours
# ---------------------------------------------------------------------------------------------------------------------


def schemes():
    """Colours of both schemes by name; the dark scheme overrides the light one."""
    (style,) = Markup(page.render(record())).texts('style')
    light, dark = (
        dict(re.findall(r'--([\w-]+): (#\w{6});', block)) for block in re.findall(r':root \{(.*?)\}', style, re.DOTALL)
    )
    return {'light': light, 'dark': light | dark}


def contrast(a, b):
    """Contrast ratio of WCAG 2.1, section 1.4.3."""

    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_and_marks_stand_out(scheme):
    colours = schemes()[scheme]
    grounds = [colours['ground'], colours['panel']]
    for name in ('ink', 'quiet'):
        assert min(contrast(colours[name], ground) for ground in [*grounds, colours['missing']]) >= 4.5, name
    assert contrast(colours['on-accent'], colours['accent']) >= 4.5
    assert min(contrast(colours['picture'], ground) for ground in grounds) >= 4.5  # It is a text colour in the index.
    for name in ('edge', 'accent', 'sound', 'truth', 'warning'):
        assert min(contrast(colours[name], ground) for ground in grounds) >= 3, name
    assert contrast(colours['hatch'], colours['sound']) >= 3
