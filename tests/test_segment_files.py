"""Tests that the table and the cues contain the record's numbers, and that class names cannot break either file."""

import csv
import re

import numpy as np
import pytest
from explained import make

T, H, W = 4, 3, 2


def random_record(**options):
    rng = np.random.default_rng(5)
    names = [f'class {c}' for c in range(7)]
    visual, audio = rng.normal(size=(7, T, H, W)), rng.normal(size=(7, T))
    return make(visual, audio, **{'classes': names, 'probabilities': np.full(7, 1 / 7), **options})


def rows_of(record, path):
    record.save_csv(path)
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def cues_of(record, path):
    """Returns (start, end, text) of every cue, parsed by the grammar of WebVTT."""
    record.save_vtt(path)
    blocks = path.read_text(encoding='utf-8').rstrip('\n').split('\n\n')
    assert blocks[0] == 'WEBVTT'
    cues = []
    for block in blocks[1:]:
        if block.startswith('NOTE'):
            assert '-->' not in block and '\n' not in block
            continue
        _, times, text = block.split('\n')
        match = re.fullmatch(r'(\d\d):(\d\d):(\d\d\.\d{3}) --> (\d\d):(\d\d):(\d\d\.\d{3})', times)
        h, m, s, h2, m2, s2 = map(float, match.groups())
        assert '-->' not in text and '<' not in text
        cues.append((3600 * h + 60 * m + s, 3600 * h2 + 60 * m2 + s2, text))
    return cues


def test_the_table_holds_the_terms_of_the_five_best_classes(tmp_path):
    record = random_record(start=1.5, seconds=0.5, valid=[True, True, True, False])
    rows = rows_of(record, tmp_path / 'a.csv')
    assert len(rows) == T and [row['valid'] for row in rows] == ['1', '1', '1', '0']
    assert [(float(row['start']), float(row['end'])) for row in rows] == [(1.5, 2), (2, 2.5), (2.5, 3), (3, 3.5)]
    names = [name for name in rows[0] if ': ' in name]
    assert names == [f'{modality}: class {c}' for c in range(5) for modality in ('picture', 'sound')]
    for c in range(5):
        terms = sum(float(row[f'{modality}: class {c}']) for row in rows for modality in ('picture', 'sound'))
        assert record.reference[c] + terms == pytest.approx(record.logits[c], rel=1e-5)
    assert [float(row['nothing_visible']) for row in rows] == pytest.approx(record.null.tolist())


def test_the_table_names_the_strongest_cell_and_its_place(tmp_path):
    """The model sees a crop of the frame's middle half, so the right cells have centres at 5/8 of the width."""
    record = random_record(affine=(0.5, 0.25, 1.0, 0.0))
    record.visual[0, 2] = -1
    rows = rows_of(record, tmp_path / 'a.csv')
    for t in (0, 1, 3):
        i, j = np.unravel_index(record.visual[0, t].argmax(), (H, W))
        assert (int(rows[t]['cell_row']), int(rows[t]['cell_column'])) == (i, j)
        assert float(rows[t]['cell_x']) == pytest.approx((0.375, 0.625)[j])
        assert float(rows[t]['cell_y']) == pytest.approx((1 / 6, 1 / 2, 5 / 6)[i])
    assert [rows[2][name] for name in ('cell_row', 'cell_column', 'cell_x', 'cell_y')] == [''] * 4


def test_names_from_data_stay_in_their_column(tmp_path):
    name = 'a,"b"\n=1+1; ä'
    record = make(np.ones((1, 2, 1, 1)), np.ones((1, 2)), classes=(name,), probabilities=(0.5,))
    rows = rows_of(record, tmp_path / 'a.csv')
    assert len(rows) == 2 and rows[0][f'picture: {name}'] == '1'


def test_cues_follow_each_other_and_describe_the_numbers(tmp_path):
    visual, audio = np.zeros((1, 4, 3, 3)), np.zeros((1, 4))
    visual[0, 0, 0, 2], audio[0, 0] = 1.5, -0.25
    visual[0, 1, 2, 0], visual[0, 1, 1, 1] = -2, 0.5
    visual[0, 2, 0, 0] = 0.004
    record = make(
        visual, audio, start=30.0, seconds=0.96, classes=('dog',), probabilities=(0.5,), valid=[True, True, True, False]
    )
    cues = cues_of(record, tmp_path / 'a.vtt')
    np.testing.assert_allclose([cue[0] for cue in cues], np.arange(4) * 0.96, atol=1e-9)
    assert [cue[1] for cue in cues[:-1]] == [cue[0] for cue in cues[1:]]
    assert cues[0][2] == (
        'dog: visual evidence for it (+1.50), strongest cell: upper right; audio evidence against it (−0.25); '
        '20% of the spatial attention is on the null cell (no visible source).'
    )
    assert 'visual evidence against it (−1.50), strongest cell: centre; no audio evidence (0.00)' in cues[1][2]
    assert 'no visual evidence (0.00); no audio evidence (0.00)' in cues[2][2]
    assert cues[3][2] == 'No data in this segment.'


def test_an_hour_has_its_digits(tmp_path):
    record = make(np.zeros((1, 2, 1, 1)), np.zeros((1, 2)), seconds=3723.25, classes='a', probabilities=[1])
    assert '01:02:03.250 --> 02:04:06.500' in (record.save_vtt(tmp_path / 'a.vtt') or (tmp_path / 'a.vtt').read_text())


def test_names_from_data_are_no_markup(tmp_path):
    name = '<b>dog & cat</b> -->\n\n1\n00:00'
    record = make(np.ones((1, 2, 1, 1)), np.ones((1, 2)), classes=(name,), probabilities=(0.5,))
    cues = cues_of(record, tmp_path / 'a.vtt')
    assert len(cues) == 2 and cues[0][2].startswith('&lt;b&gt;dog &amp; cat&lt;/b&gt; --&gt; 1 00:00: visual')
