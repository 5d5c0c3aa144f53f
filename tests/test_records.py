"""records.py: what is written comes back, TFDS reads it too, and any damaged byte is found."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import fakes
import google_crc32c
import numpy as np
import pytest
import tensorflow_datasets as tfds
from grain.experimental import TFRecordIterDataset

from stattn_jax.data import records


def _flat(record):
    """A record as a dict that == can compare."""
    clip = {field.name: getattr(record.clip, field.name) for field in dataclasses.fields(record.clip)}
    clip.update(log_mel=clip['log_mel'].tolist(), valid=clip['valid'].tolist(), log_mel_dtype=clip['log_mel'].dtype)
    return {**{field.name: getattr(record, field.name) for field in dataclasses.fields(record)}, 'clip': clip}


@pytest.mark.parametrize('seed', range(4))
def test_decode_undoes_encode(seed):
    features = records.make_features(fakes.CLASSES, fakes.SPEC)
    record = fakes.record(seed, video='a/b ü.mp4')
    again = records.decode(records.encode(record, features), fakes.SPEC)
    assert _flat(again) == _flat(record)


def test_tfds_decodes_the_same_record():
    features = records.make_features(fakes.CLASSES, fakes.SPEC)
    record = fakes.record(11)
    seen = features.deserialize_example_np(records.encode(record, features))
    np.testing.assert_array_equal(seen['log_mel'], record.clip.log_mel)
    np.testing.assert_array_equal(seen['valid'], record.clip.valid)
    assert [frame.shape for frame in seen['frames']] == [(24, 32, 3)] * 3
    assert list(seen['labels']) == list(record.labels)
    assert list(seen['events']['onset']) == [event.onset for event in record.events]
    assert [list(box) for box in seen['boxes']['box']] == [[b.x0, b.y0, b.x1, b.y1] for b in record.boxes]
    assert features['events']['modality'].int2str(int(seen['events']['modality'][1])) == record.events[1].modality


def test_bytes_are_the_same_in_every_process():
    code = (
        'import hashlib, fakes; from stattn_jax.data import records; '
        'features = records.make_features(fakes.CLASSES, fakes.SPEC); '
        'print(hashlib.sha256(records.encode(fakes.record(11), features)).hexdigest())'
    )
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(['tests', '.', *sys.path])}
    digests = [
        subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, check=True).stdout for _ in range(3)
    ]
    assert len(set(digests)) == 1
    assert len(digests[0].strip()) == 64


def _shard(path, count=5):
    data = [bytes([i]) * (10 * i) for i in range(count)]
    records.write_shard(path, iter(data))
    return data


def test_shard_reads_back_and_grain_reads_the_framing(tmp_path):
    path = tmp_path / 'x-train.tfrecord-00000-of-00001'
    data = _shard(path)
    offsets = records.read_index(path)
    assert [records.read_record(path, offsets, i) for i in range(5)] == data
    assert list(TFRecordIterDataset(str(path))) == data
    assert sorted(os.listdir(tmp_path)) == [path.name, path.name + '.index']


def test_masked_crc_is_that_of_tensorflow():
    # tensorflow/core/lib/hash/crc32c.h: rotate right by 15 bits, add 0xa282ead8.
    crc = google_crc32c.value(b'123456789')
    assert crc == 0xE3069283  # the check value of CRC-32C (RFC 3720, appendix B.4)
    rotated = int(f'{crc:032b}'[-15:] + f'{crc:032b}'[:-15], 2)
    assert records.masked_crc(b'123456789') == (rotated + 0xA282EAD8) % 2**32


def test_every_flipped_byte_is_found_and_placed(tmp_path):
    path = tmp_path / 'shard'
    _shard(path)
    whole = path.read_bytes()
    offsets = records.read_index(path)
    for at in range(len(whole)):
        path.write_bytes(whole)
        fakes.flip_byte(path, at)
        number = int(np.searchsorted(offsets, at, side='right')) - 1
        with pytest.raises(records.DataError, match=f'record {number} at byte {offsets[number]} is damaged'):
            records.read_record(path, offsets, number)
        others = [i for i in range(5) if i != number]
        assert [len(records.read_record(path, offsets, i)) for i in others] == [10 * i for i in others]


def test_damaged_index_short_shard_and_missing_files_are_named(tmp_path):
    path = tmp_path / 'shard'
    _shard(path)
    index = records.index_path(path)
    good = index.read_bytes()
    for at in range(len(good)):
        fakes.flip_byte(index, at)
        with pytest.raises(records.DataError, match='shard'):
            records.read_index(path)
        index.write_bytes(good)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(records.DataError, match='bytes long where its index says'):
        records.read_index(path)
    path.unlink()
    with pytest.raises(records.DataError, match='no such file; delete shard and run the same data_prep command again'):
        records.read_index(path)


def test_shard_cut_under_an_open_reader_is_named(tmp_path):
    path = tmp_path / 'shard'
    _shard(path)
    offsets = records.read_index(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(records.DataError, match='record 4 at byte .*53 of 56 bytes are there'):
        records.read_record(path, offsets, 4)


def test_failing_writer_leaves_nothing_under_the_final_name(tmp_path):
    def failing():
        yield b'one'
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        records.write_shard(tmp_path / 'shard', failing())
    assert not (tmp_path / 'shard').exists()
    assert not records.index_path(tmp_path / 'shard').exists()


def test_empty_shard(tmp_path):
    records.write_shard(tmp_path / 'shard', [])
    assert len(records.read_index(tmp_path / 'shard')) == 1


def test_directory_opens_with_tfds(tmp_path):
    fakes.dataset(tmp_path / 'd', 9, 2)
    builder = tfds.builder_from_directory(str(tmp_path / 'd'))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {'train': 9, 'test': 2}
    assert builder.info.splits['train'].shard_lengths == [4, 4, 1]
    assert builder.info.features['labels'].feature.names == list(fakes.CLASSES)
    files = [os.path.basename(path) for path in builder.info.splits['train'].filenames]
    assert all((tmp_path / 'd' / name).exists() for name in files)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is None, reason='TensorFlow is not installed (extra test-tf)'
)
def test_tensorflow_reads_decoded_frames(tmp_path):
    """In a process of its own: this suite never imports TensorFlow."""
    fakes.dataset(tmp_path / 'd', 3)
    code = (
        'import json, sys, tensorflow_datasets as tfds; '
        'data = tfds.builder_from_directory(sys.argv[1]).as_dataset(split="train"); '
        'print(json.dumps([[e["clip_id"].numpy().decode(), e["frames"].shape.as_list(), '
        'float(e["log_mel"].numpy().sum(dtype="float64"))]'
        ' for e in data]))'
    )
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'd')], capture_output=True, check=True, text=True)
    seen = {clip_id: (frames, total) for clip_id, frames, total in json.loads(run.stdout.splitlines()[-1])}
    for job in fakes.jobs(3):
        mel = fakes.make_record(job, fakes.SPEC).clip.log_mel
        assert seen[job.clip_id] == ([3, 24, 32, 3], pytest.approx(mel.sum(dtype='float64')))
