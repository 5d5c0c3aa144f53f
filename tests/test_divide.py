"""Tests data_prep.divide: every clip is there once, with the bytes it had, and each class has its share of val."""

import collections

import commands
import fakes
import pytest

from data_prep import divide
from stattn_jax.data import source


@pytest.fixture
def data(tmp_path):
    fakes.dataset(tmp_path / 'data', 30, 6, workers=0)
    return tmp_path / 'data'


def clips(folder):
    info = source.DatasetInfo.load(folder)
    return {split: {r.clip_id: r for r in source.RecordSource(folder, split)} for split in info.splits}


def divided(capsys, data, out):
    return commands.run(divide, capsys, f'--data={data}', f'--out={out}', '--every=3')


def test_one_clip_in_three_of_each_class_is_held_out_and_no_record_changes(data, tmp_path, capsys):
    assert divided(capsys, data, tmp_path / 'out')[0] == 0
    before, after = clips(data), clips(tmp_path / 'out')
    assert before.keys() | {'val'} == after.keys() and not after['val'].keys() & after['train'].keys()
    together = after['train'] | after['val']
    assert together.keys() == before['train'].keys() and after['test'].keys() == before['test'].keys()
    for clip_id, record in before['train'].items():
        assert records_equal(record, together[clip_id])
    total, held = (collections.Counter(r.labels for r in some.values()) for some in (before['train'], after['val']))
    assert held.total() == total.total() // 3 == 10
    assert all(count // 3 <= held[labels] <= -(-count // 3) for labels, count in total.items())


def records_equal(one, other):
    same = (one.labels, one.events, one.boxes) == (other.labels, other.events, other.boxes)
    return same and one.clip.frames == other.clip.frames and (one.clip.log_mel == other.clip.log_mel).all()


def test_small_classes_are_divided_too_and_too_few_clips_are_refused(tmp_path, capsys):
    fakes.dataset(tmp_path / 'data', 3, 6, workers=0)
    assert divided(capsys, tmp_path / 'data', tmp_path / 'out')[0] == 0
    assert len(clips(tmp_path / 'out')['val']) == 1
    fakes.dataset(tmp_path / 'few', 2, 6, workers=0)
    code, _, (line,) = divided(capsys, tmp_path / 'few', tmp_path / 'none')
    assert code == 2 and 'has 2 training clips; give at most 2' in line


def test_a_set_that_has_validation_clips_is_refused(data, tmp_path, capsys):
    assert divided(capsys, data, tmp_path / 'out')[0] == 0
    code, _, (line,) = divided(capsys, tmp_path / 'out', tmp_path / 'again')
    assert code == 2 and 'has a split val already' in line
