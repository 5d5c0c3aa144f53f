"""Tests of source.py.

Each number gives the right record from any thread or process; damage and wrong use are named in one line.
"""

import json
import multiprocessing
import pickle
from concurrent import futures

import fakes
import pytest

from stattn_jax.data import source, tfrecord


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return fakes.dataset(tmp_path_factory.mktemp('source') / 'd', 10, 2)


def test_records_are_in_the_order_of_the_jobs(directory):
    train = source.RecordSource(directory, 'train')
    assert len(train) == 10
    assert [train[i].clip_id for i in range(10)] == [f'train{i}' for i in range(10)]
    expected = fakes.make_record(fakes.jobs(10)[7], fakes.SPEC)
    assert train[7].clip.frames == expected.clip.frames
    assert train[7].labels == expected.labels


@pytest.mark.parametrize('number', [-1, 10])
def test_numbers_outside_raise(directory, number):
    with pytest.raises(IndexError, match=f'record {number}'):
        source.RecordSource(directory, 'train')[number]


def test_info_describes_the_prepared_data(directory):
    info = source.DatasetInfo.load(directory)
    assert (info.name, info.classes, info.multi_label, info.spec) == ('fake', fakes.CLASSES, False, fakes.SPEC)
    assert (info.splits, info.shards) == ({'test': 2, 'train': 10}, {'test': 1, 'train': 3})
    assert len(info.fingerprint) == 64


def test_threads_and_processes_read_the_same(directory):
    train = source.RecordSource(directory, 'train')
    expected = [train[i].clip.frames for i in range(10)] * 20
    with futures.ThreadPoolExecutor(8) as pool:
        assert [record.clip.frames for record in pool.map(train.__getitem__, list(range(10)) * 20)] == expected
    assert pickle.loads(pickle.dumps(train))[3].clip_id == 'train3'
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        assert pool.submit(train.__getitem__, 9).result().clip_id == 'train9'


def test_flipped_byte_is_named_with_file_record_and_offset(tmp_path):
    directory = fakes.dataset(tmp_path / 'd', 6)
    shard = directory / 'fake-train.tfrecord-00001-of-00002'
    offset = tfrecord.read_index(shard)[1]
    fakes.flip_byte(shard, int(offset) + 500)
    train = source.RecordSource(directory, 'train')
    assert train[4].clip_id == 'train4'
    with pytest.raises(tfrecord.DataError) as caught:
        train[5]
    text = str(caught.value)
    assert f'{shard}: record 1 at byte {offset} is damaged' in text
    assert 'run the same data_prep command again' in text
    assert '\n' not in text


@pytest.mark.parametrize(
    ('break_it', 'message'),
    [
        (lambda d: None, 'does not exist; make it with `python -m data_prep.folder'),
        (lambda d: d.mkdir(), r'has no stattn.json \(not a data set, or not finished\); make it with'),
        (lambda d: (d.mkdir(), (d / 'stattn.json').write_text('{"for')), 'not JSON'),
        (lambda d: (d.mkdir(), (d / 'stattn.json').write_text('{"format": "x/9"}')), "format is 'x/9', expected"),
    ],
)
def test_wrong_directory_is_one_line_with_the_fix(tmp_path, break_it, message):
    break_it(tmp_path / 'nowhere')
    with pytest.raises(tfrecord.DataError, match=message) as caught:
        source.RecordSource(tmp_path / 'nowhere', 'train')
    assert str(tmp_path / 'nowhere') in str(caught.value)
    assert '\n' not in str(caught.value)


def test_unknown_split_names_those_there_are(directory):
    with pytest.raises(tfrecord.NoDataError, match="has no split 'val'; it has test, train"):
        source.RecordSource(directory, 'val')


def test_counts_that_disagree_are_found(tmp_path):
    directory = fakes.dataset(tmp_path / 'd', 3)
    path = directory / source.INFO_FILE
    content = json.loads(path.read_text())
    content['splits']['train'] = 4
    path.write_text(json.dumps(content))
    with pytest.raises(tfrecord.DataError, match='hold 3 records where stattn.json says 4'):
        source.RecordSource(directory, 'train')
