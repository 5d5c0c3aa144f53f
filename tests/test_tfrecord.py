"""Tests of tfrecord.py.

The framing is TFRecord's, every damaged byte is found and located, and no incomplete file has a final name.
"""

import os

import fakes
import google_crc32c
import numpy as np
import pytest
from grain.experimental import TFRecordIterDataset

from stattn_jax.data import tfrecord


def _shard(path, count=5):
    data = [bytes([i]) * (10 * i) for i in range(count)]
    tfrecord.write_shard(path, iter(data))
    return data


def test_shard_reads_back_and_grain_reads_the_framing(tmp_path):
    path = tmp_path / 'x-train.tfrecord-00000-of-00001'
    data = _shard(path)
    offsets = tfrecord.read_index(path)
    assert [tfrecord.read_record(path, offsets, i) for i in range(5)] == data
    assert list(TFRecordIterDataset(str(path))) == data
    assert sorted(os.listdir(tmp_path)) == [path.name, path.name + '.index']


def test_masked_crc_is_that_of_tensorflow():
    # tensorflow/core/lib/hash/crc32c.h: rotate right by 15 bits, add 0xa282ead8.
    crc = google_crc32c.value(b'123456789')
    assert crc == 0xE3069283  # the check value of CRC-32C (RFC 3720, appendix B.4)
    rotated = int(f'{crc:032b}'[-15:] + f'{crc:032b}'[:-15], 2)
    assert tfrecord.masked_crc(b'123456789') == (rotated + 0xA282EAD8) % 2**32


def test_every_flipped_byte_is_found_and_placed(tmp_path):
    path = tmp_path / 'shard'
    _shard(path)
    whole = path.read_bytes()
    offsets = tfrecord.read_index(path)
    for at in range(len(whole)):
        path.write_bytes(whole)
        fakes.flip_byte(path, at)
        number = int(np.searchsorted(offsets, at, side='right')) - 1
        with pytest.raises(tfrecord.DataError, match=f'record {number} at byte {offsets[number]} is damaged'):
            tfrecord.read_record(path, offsets, number)
        others = [i for i in range(5) if i != number]
        assert [len(tfrecord.read_record(path, offsets, i)) for i in others] == [10 * i for i in others]


def test_damaged_index_short_shard_and_missing_files_are_named(tmp_path):
    path = tmp_path / 'shard'
    _shard(path)
    index = tfrecord.index_path(path)
    good = index.read_bytes()
    for at in range(len(good)):
        fakes.flip_byte(index, at)
        with pytest.raises(tfrecord.DataError, match='shard'):
            tfrecord.read_index(path)
        index.write_bytes(good)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(tfrecord.DataError, match='bytes long where its index says'):
        tfrecord.read_index(path)
    path.unlink()
    with pytest.raises(tfrecord.DataError, match='no such file; delete shard and run the same data_prep command again'):
        tfrecord.read_index(path)


def test_shard_cut_under_an_open_reader_is_named(tmp_path):
    path = tmp_path / 'shard'
    _shard(path)
    offsets = tfrecord.read_index(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(tfrecord.DataError, match='record 4 at byte .*53 of 56 bytes are there'):
        tfrecord.read_record(path, offsets, 4)


def test_failing_writer_leaves_nothing_under_the_final_name(tmp_path):
    def failing():
        yield b'one'
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tfrecord.write_shard(tmp_path / 'shard', failing())
    assert not (tmp_path / 'shard').exists()
    assert not tfrecord.index_path(tmp_path / 'shard').exists()


def test_empty_shard(tmp_path):
    tfrecord.write_shard(tmp_path / 'shard', [])
    assert len(tfrecord.read_index(tmp_path / 'shard')) == 1
