"""Tests of the page of a long video: its table and charts hold the timeline's numbers, and it plays and seeks."""

import dataclasses
import json
import re

import clips
import numpy as np
import pytest
from test_page import HOSTILE, Markup

from stattn_jax.explain import long, timeline_page

NAN = float('nan')


def timeline(classes=('dog', 'cat', 'rain'), file='twenty.mp4'):
    """Returns eight segments of a second and three windows of four; the last segments hold no data."""
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [NAN] * 3], np.float32)
    spans = [(10.0, 14.0), (12.0, 16.0), (14.0, 18.0)]
    windows = [
        {'start': start, 'end': end, 'label': None if k == 2 else classes[k], 'probability': p, 'logit': p}
        for k, ((start, end), p) in enumerate(zip(spans, (0.7, 0.5, None)))
    ]
    rows = []
    for g in range(8):
        k = None if g > 5 else int(g > 2)
        values = dict.fromkeys(('label', 'probability', 'picture', 'sound'))
        if k is not None:
            values = {'label': classes[k], 'probability': windows[k]['probability'], 'picture': g / 4, 'sound': -0.5}
        rows.append({'start': 10.0 + g, 'end': 11.0 + g, 'window': k, **values})
    return long.Timeline(
        media={'file': file, 'start': 10.0, 'end': 18.0, 'duration': 8.0},
        model={},
        classes=classes,
        segment_seconds=1.0,
        hop=2,
        probabilities=probabilities,
        windows=windows,
        rows=rows,
        explanations={0: None},
    )


def test_table_links_and_charts_hold_the_numbers():
    text = timeline_page.render(timeline(), {0: 'window_00010.0s/explanation.html'})
    cells = r'<th scope="row">(.*?)</th><td class="text"(?: colspan="3")?>(.*?)</td>(?:<td>(.*?)</td>)?'
    table = re.findall(cells, text)
    assert table == [
        ('0:10 to 0:14', 'dog', '70%'),
        ('0:12 to 0:16', 'cat', '50%'),
        ('0:14 to 0:18', 'no data', ''),
    ]
    markup = Markup(text)
    assert markup.addresses[1:] == ['timeline.mp4'] + ['window_00010.0s/explanation.html'] * 2
    # The lane of the dog: 3 segments of 70 % and 3 of 25 %, of 8 in all and 26 pixels of height.
    lane = re.findall(r'<g class="class">(.*?)</g>', text)[0]
    bars = re.findall(r'x="([\d.]+)%" width="([\d.]+)%" y="[\d.]+" height="([\d.]+)"', lane)
    assert [[float(x) for x in bar] for bar in bars] == [
        [0, 37.5, pytest.approx(18.2, abs=0.01)],
        [37.5, 37.5, pytest.approx(6.5, abs=0.01)],
    ]
    assert len(re.findall(r'<rect class="missing"', text)) == 2
    assert len(re.findall(r'<rect class="(?:picture|sound)"', text)) == 12 and f'\N{PLUS-MINUS SIGN}{1.25:.2g}' in text
    data = json.loads(markup.texts('script', 'data')[0])
    assert data['rows'][3] == [1, 0.75, -0.5] and data['rows'][7] == [None, None, None]
    assert data['windows'][1]['best'] == [['cat', 0.5], ['dog', 0.25], ['rain', 0.25]]
    assert data['windows'][2]['best'] is None


def test_only_the_video_beside_the_page_may_be_loaded():
    text = timeline_page.render(timeline(), {})
    markup = Markup(text)
    assert "media-src 'self' file: blob:;" in markup.policy and markup.policy.startswith("default-src 'none'")
    assert 'style' not in {name for _, attributes in markup.tags for name in attributes}
    without = timeline_page.render(timeline(), {}, problem='It is broken.')
    assert 'It is broken.' in without and '<video' not in without


def test_names_from_data_never_become_markup():
    tame = Markup(timeline_page.render(timeline(), {0: 'a.html'}))
    wild = Markup(timeline_page.render(timeline((HOSTILE, 'cat', 'rain'), HOSTILE), {0: 'a.html'}))
    assert wild.tags == tame.tags


def test_windows_that_overlap_have_rows_of_their_own():
    two = dataclasses.replace(timeline(), explanations={0: None, 1: None})
    text = timeline_page.render(two, {0: 'a.html', 1: 'b.html'})
    rows = [float(y) for y in re.findall(r'</title><rect x="[\d.]+%" width="50%" y="([\d.]+)"', text)]
    assert len(rows) == 2 and rows[0] != rows[1]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('timeline')
    source = clips.write_twenty(folder / 'twenty.mp4')
    names = timeline_page.write(timeline(), source, folder, {0: 'window.html'})
    assert names == ['timeline.html', 'timeline.mp4']
    (folder / 'window.html').write_text('<title>the window</title>')
    return folder / 'timeline.html'


def test_a_video_that_cannot_be_copied_is_named(tmp_path):
    assert timeline_page.write(timeline(), tmp_path / 'missing.mp4', tmp_path, {}) == ['timeline.html']
    assert 'cannot be played here: there is no such file' in (tmp_path / 'timeline.html').read_text()
    assert [path.name for path in tmp_path.iterdir()] == ['timeline.html']


def test_the_page_seeks_by_mouse_and_keys_and_leads_to_a_window(chromium, written):
    chromium.open(written)
    chromium.until('document.querySelector("video").readyState >= 1')
    assert chromium.run('document.querySelector("video").duration') == pytest.approx(8, abs=0.15)
    assert chromium.text('#now-title') == '0:10 to 0:11' and chromium.text('#best tr td') == 'dog'
    # The evidence lane, in the middle of segment 4.
    chromium.click('#chart', x=4.5 / 8, y=0.7)
    chromium.until('Math.abs(document.querySelector("video").currentTime - 4.5) < 0.1')
    assert chromium.text('#now-title') == '0:14 to 0:15' and chromium.text('#best tr td') == 'cat'
    assert 'adds +1.00 (visual) and \N{MINUS SIGN}0.50 (audio)' in chromium.text('#now-evidence')
    assert '--start=12 --end=16' in chromium.text('#now-page')
    chromium.run('document.querySelector("#slider").focus()')
    chromium.press('ArrowRight')
    assert chromium.text('#now-title') == '0:15 to 0:16'
    chromium.run('document.querySelector("video").currentTime = 7.5')
    chromium.until('document.querySelector("#now-title").textContent === "0:17 to 0:18"')
    assert chromium.text('#now-window') == 'no video or no audio here'
    assert chromium.complaints() == []
    chromium.click('#chart', x=1.5 / 8, y=0.7)
    assert chromium.run('document.querySelector("#slider").getAttribute("aria-valuetext")') == '0:11 to 0:12, dog 70%'
    chromium.run('document.querySelector("#slider").focus()')
    chromium.press('Enter')
    chromium.until('document.title === "the window"')
