"""Tests that two explanations are compared at the same points, whatever their grids, and by the names of classes."""

import dataclasses
import json

import numpy as np
import pytest
from pages import record
from test_page import HOSTILE, Markup, hostile

from stattn_jax.explain import compare, explanation


def test_equal_explanations_agree_wholly():
    e = record(seed=1)
    alpha = np.random.default_rng(0).random(e.alpha.shape, np.float32)
    e = dataclasses.replace(e, alpha=alpha)
    same = compare.compare({'a': e, 'b': e})
    assert same.attention_correlation == same.visual_correlation == same.audio_correlation == 1
    assert same.attention_intersection == pytest.approx(1) and same.label == 'dog'
    assert all(row['first'] == row['second'] for row in same.probabilities)


def test_attention_on_other_cells_does_not_intersect():
    first, second = (np.zeros((4, 2, 2), np.float32) for _ in range(2))
    first[:, 0], second[:, 1] = 0.5, 0.5
    pair = {name: dataclasses.replace(record(h=2, w=2), alpha=alpha) for name, alpha in (('a', first), ('b', second))}
    other = compare.compare(pair)
    assert other.attention_intersection == 0 and other.attention_correlation == pytest.approx(-1)
    half = {'a': pair['a'], 'b': dataclasses.replace(pair['a'], alpha=np.full((4, 2, 2), 0.25, np.float32))}
    # Half of the even attention lies where the other one is.
    assert compare.compare(half).attention_intersection == pytest.approx(0.5)
    assert compare.compare(half).attention_correlation is None


def test_grids_and_segments_of_other_sizes_are_read_at_the_same_points():
    coarse = np.random.default_rng(2).random((2, 2, 2)).astype(np.float32)
    first = dataclasses.replace(record(t=2, h=2, w=2, seconds=2.0), alpha=coarse)
    fine = coarse.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    second = dataclasses.replace(record(t=4, h=4, w=4, seconds=1.0), alpha=fine)
    assert compare.compare({'a': first, 'b': second}).attention_correlation == pytest.approx(1)
    assert compare.compare({'a': first, 'b': second}).attention_intersection == pytest.approx(1)


def test_a_grid_on_part_of_the_frame_is_compared_there_alone():
    """The second grid covers the right half of the frame only, and there equals the first."""
    alpha = np.random.default_rng(2).random((4, 2, 4)).astype(np.float32)
    first = dataclasses.replace(record(h=2, w=4), alpha=alpha)
    geometry = explanation.make_geometry((4, 2, 2), 1.0, (0.5, 0.5, 1.0, 0.0), 240, 320)
    second = dataclasses.replace(record(h=2, w=2), alpha=alpha[..., 2:], geometry=geometry)
    assert compare.compare({'a': first, 'b': second}).attention_correlation == pytest.approx(1)


def test_classes_are_compared_by_name():
    first, second = record(('dog', 'cat', 'rain')), record(('cat', 'bird'))
    found = compare.compare({'a': first, 'b': second})
    assert found.label == 'cat'
    rows = {row['label']: row for row in found.probabilities}
    assert rows['bird']['first'] is None and rows['dog']['second'] is None
    assert rows['cat']['second'] == pytest.approx(second.probabilities[0])
    alone = compare.compare({'a': first, 'b': record(('x', 'y'))})
    assert alone.label is alone.visual_correlation is None
    assert 'not a class' in alone.render({'a': first, 'b': record(('x', 'y'))}, {})
    with pytest.raises(ValueError, match="unknown label 'dog'"):
        compare.compare({'a': first, 'b': second}, 'dog')


def test_segments_without_data_do_not_count():
    e = record(valid=[True, True, True, False])
    other = e.audio.copy()
    other[:, 3] = 100
    found = compare.compare({'a': e, 'b': dataclasses.replace(e, audio=other)})
    assert found.audio_correlation == 1
    json.loads(found.to_json())


def test_names_from_data_never_become_markup():
    pages = []
    for name, e in (('b', record()), (HOSTILE, hostile())):
        pair = {'a': e, name: e}
        pages.append(compare.compare(pair).render(pair, {'a': 'a.html', name: 'b.html'}))
    tame, wild = map(Markup, pages)
    assert wild.tags == tame.tags
