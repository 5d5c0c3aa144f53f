"""Tests of the index page: its numbers are those of an evaluation, and it finds, filters and sorts in a browser."""

import dataclasses
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from pages import record
from test_page import HOSTILE, TRUTH, Markup, hostile

from stattn_jax.explain import index
from stattn_jax.explain.explanation import GroundTruth
from stattn_jax.metrics import localization

FAILURES = (index.Failure('b/half.mp4', 'truncated', 'its sound ends'), index.Failure(HOSTILE, 'failed', HOSTILE))


def test_names_in_the_index_never_become_markup():
    entries = [
        index.explained_clip(e, href, true_label='cat') for e, href in ((record(), 'a.html'), (hostile(), HOSTILE))
    ]
    entries[0] = dataclasses.replace(entries[0], notes=('short',))
    tame, wild = (Markup(index.render([entry], [failure])) for entry, failure in zip(entries, FAILURES))
    # Labels are in alphabetical order in the confusion matrix.
    assert sorted(wild.tags) == sorted(tame.tags)
    # The address is quoted, so that a name with a colon is not taken for javascript: or another scheme.
    assert '%3C/script%3E' in wild.addresses[1]
    odd = Markup(index.render([dataclasses.replace(entries[0], href='javascript:alert(1)')]))
    assert odd.addresses[1] == 'javascript%3Aalert%281%29'


def test_an_entry_knows_error_and_pointing_as_an_evaluation_counts_them():
    rng = np.random.default_rng(3)
    e = record()
    e = dataclasses.replace(e, alpha=rng.random(e.alpha.shape, np.float32))
    truth = GroundTruth(
        (), [(t + 0.5, *sorted_box) for t, sorted_box in enumerate([(0, 0, 0.5, 0.67), (0, 0, 1, 1), (0, 0, 0.5, 1)])]
    )
    entry = index.explained_clip(e, 'e.html', 'cat', truth)
    rates = localization.spatial_pointing(
        e.alpha[None], [np.array(truth.boxes)], [(1.0, 0.0, 1.0, 0.0)], 1.0, prefix='p', tau=0, classes_n=np.array([0])
    )
    assert entry.pointing == pytest.approx(rates['p']) and 0 < entry.pointing < 1
    assert entry.error == pytest.approx(1 - e.probabilities[1]) and entry.label == 'dog' and entry.is_right is False
    unknown = index.explained_clip(e, 'e.html')
    assert unknown.error is unknown.pointing is unknown.true_label is unknown.is_right is None


def test_cards_carry_their_sort_keys():
    e = record()
    entries = [
        index.explained_clip(e, 'a.html', 'dog', TRUTH),
        index.explained_clip(e, 'b.html', title='x, 0:00 to 0:10'),
    ]
    text = index.render(entries, FAILURES[:1])
    keys = re.findall(r'<li data-confidence="(.*?)" data-error="(.*?)" data-pointing="(.*?)" data-agr', text)
    assert len(keys) == 2 and keys[1][1:] == ('', '')
    assert float(keys[0][0]) == pytest.approx(entries[0].probability, rel=1e-5)
    assert float(keys[0][1]) == pytest.approx(1 - entries[0].probability, rel=1e-5)
    assert '1 of 1 labelled clips classified correctly' in text and '2 clips explained, 1 video not' in text
    assert 'x, 0:00 to 0:10' in text
    # Only numbers that some clip has can be sorted by.
    assert 'value="pointing 1"' in text and 'agreement 1' not in text
    assert 'value="pointing 1"' not in index.render(entries[1:])


def test_entries_survive_json():
    entry = dataclasses.replace(index.explained_clip(record(), 'a.html', 'dog', TRUTH), agreement=0.5, notes=('short',))
    assert index.ExplainedClip.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_a_thumbnail_is_the_frame_of_the_strongest_cell_with_its_heat():
    visual = np.zeros((3, 4, 3, 2))
    visual[0, 2, 0, 1] = 1
    e = record(visual=visual)
    image = np.asarray(PIL.Image.open(io.BytesIO(index.explained_clip(e, 'e.html').thumbnail)).convert('RGB')).astype(
        int
    )
    assert image.shape == (240, 320, 3)
    hot = image.max(axis=-1) > 100
    assert hot[4:76, 164:316].all() and hot.sum() == pytest.approx(80 * 160, rel=0.05)


# ---------------------------------------------------------------------------------------------------------------------
# In a browser
# ---------------------------------------------------------------------------------------------------------------------

ORDER = 'Array.from(document.querySelectorAll("#cards li:not([hidden])"), (card) => Number(card.dataset.order))'


@pytest.fixture
def opened(chromium, tmp_path):
    """An index of four clips, of which one has no true label, and two failures."""
    e = record(tuple(f'class {c}' for c in range(4)))
    labels = ('class 3', None, 'class 0', 'class 1')
    entries = [index.explained_clip(e, 'page.html', label, title=f'clip {10 - i}') for i, label in enumerate(labels)]
    (tmp_path / 'page.html').write_text('<title>the page</title>')
    (tmp_path / 'index.html').write_text(index.render(entries, FAILURES), encoding='utf-8')
    chromium.open(tmp_path / 'index.html')
    return chromium, entries


def choose(driver, name, value):
    driver.run(
        f'(() => {{ const s = document.querySelector("#{name}"); s.value = {json.dumps(value)}; '
        's.dispatchEvent(new Event("input")); })()'
    )


def test_the_index_sorts_and_leads_to_the_page(opened):
    driver, entries = opened
    assert driver.run(ORDER) == [0, 1, 2, 3]
    known = sorted((0, 2, 3), key=lambda i: entries[i].error)
    for choice, expected in (('error 1', [*known, 1]), ('error -1', [*known[::-1], 1]), ('title 1', [3, 2, 1, 0])):
        choose(driver, 'sort', choice)
        assert driver.run(ORDER) == expected
    assert driver.complaints() == []
    driver.click('#cards li a')
    driver.until('location.href.endsWith("page.html") && document.title === "the page"')


def test_a_cell_of_the_confusion_matrix_shows_its_clips(opened):
    driver, _ = opened
    cell = '#confusion button[data-true="class 3"][data-predicted="class 0"]'
    assert driver.text(cell) == '1' and driver.run('document.querySelectorAll("#confusion button").length') == 3
    driver.click(cell)
    assert driver.run(ORDER) == [0] and driver.run(f'document.querySelector(`{cell}`).ariaPressed') == 'true'
    driver.click(cell)
    assert driver.run(ORDER) == [0, 1, 2, 3]
    driver.click('#confusion button[data-true="class 0"]')
    assert driver.run(ORDER) == [2]
    driver.click('#reset')
    assert driver.run(ORDER) == [0, 1, 2, 3] and driver.complaints() == []


def test_the_index_searches_and_filters(opened):
    driver, _ = opened
    for name, value, expected in (
        ('search', 'CLIP 9', [1]),
        ('search', 'class 3', [0]),
        ('class', 'class 1', [3]),
        ('class', 'class 0', [0, 1, 2, 3]),
        ('result', 'right', [2]),
        ('result', 'wrong', [0, 3]),
        ('result', 'unknown', [1]),
    ):
        choose(driver, name, value)
        assert driver.run(ORDER) == expected, (name, value)
        assert driver.text('#shown') == f'{len(expected)} of 4 shown'
        choose(driver, name, '')
    choose(driver, 'search', 'half')
    assert driver.run(ORDER) == []
    rows = 'Array.from(document.querySelectorAll("#failures tr:not([hidden])"), (row) => row.firstChild.textContent)'
    assert driver.run(rows) == ['b/half.mp4']
    driver.click('#reset')
    assert driver.run(ORDER) == [0, 1, 2, 3] and driver.run(rows)[1] == HOSTILE
    assert driver.complaints() == []
