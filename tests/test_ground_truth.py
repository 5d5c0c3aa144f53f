"""Tests what tables give about a clip and about an interval of it."""

import pytest

from stattn_jax import run
from stattn_jax.explain import ground_truth
from stattn_jax.explain.explanation import GroundTruth


def test_tables_give_each_label_its_intervals_and_boxes(tmp_path):
    (tmp_path / 'events.csv').write_text('clip_id,label,onset,offset\na,dog,1,2\nb,dog,5,6\na,dog,3,4\na,cat,0,9\n')
    (tmp_path / 'boxes.csv').write_text('clip_id,time,label,x0,y0,x1,y1\na,0.5,dog,0.1,0.2,0.3,0.4\n')
    assert ground_truth.read(tmp_path, ('a', 'c')) == {
        'a': {
            'dog': GroundTruth([(1, 2), (3, 4)], [(0.5, 0.1, 0.2, 0.3, 0.4)]),
            'cat': GroundTruth([(0, 9)]),
        },
        'c': {},
    }


def test_a_bom_and_spaces_around_header_names_are_skipped(tmp_path):
    (tmp_path / 'events.csv').write_text('clip_id, label ,onset,offset\na,dog,1,2\n', encoding='utf-8-sig')
    (tmp_path / 'boxes.csv').write_text('clip_id,time,label,x0,y0,x1,y1\na,0,dog,0,0,1,1\n', encoding='utf-8-sig')
    assert ground_truth.read(tmp_path, 'a') == {'a': {'dog': GroundTruth([(1, 2)], [(0, 0, 0, 1, 1)])}}


def test_tables_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(run.RunError, match='holds neither events.csv nor boxes.csv'):
        ground_truth.read(tmp_path, 'a')
    (tmp_path / 'events.csv').write_text('clip_id,label,onset,offset\na,dog,soon,2\n')
    with pytest.raises(
        run.RunError, match=r"events\.csv: could not convert string to float: 'soon'; expected the columns"
    ):
        ground_truth.read(tmp_path, 'a')


def test_a_stretch_has_its_own_clock():
    whole = GroundTruth([(0, 2), (4, 12), (20, 30)], [(3.5, 0, 0, 1, 1), (5.0, 0, 0, 0.5, 1), (11.0, 0, 0, 1, 1)])
    assert ground_truth.within(whole, 5.0, 6.0) == GroundTruth([(0, 6)], [(0, 0, 0, 0.5, 1)])
    assert ground_truth.within(whole, 0.0, 100.0) == whole
