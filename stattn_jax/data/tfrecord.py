"""Shards: plain TFRecord files, each with a small offset index beside it for random access.

Records are framed with masked CRC32C, as TensorFlow reads them; nothing here imports TensorFlow. records.py defines the
content of a record, and source.py gives random access to a split.
"""

import os
import pathlib
import struct
from collections.abc import Iterable

import google_crc32c
import numpy as np

from stattn_jax import files
from stattn_jax.command_error import CommandError

INDEX_SUFFIX = '.index'

_LENGTH = struct.Struct('<Q')
_CRC = struct.Struct('<I')
_HEADER = struct.Struct('<QI')
_FRAMING_BYTES = _HEADER.size + _CRC.size
_INDEX_ROW = np.dtype([('offset', '<u8'), ('crc', '<u4')])


class DataError(CommandError):
    """A data set directory cannot be used; the message names the file, the place and the fix."""


class NoDataError(DataError):
    """The data set or split does not exist: the request is wrong, and nothing is damaged."""

    code = 2


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """Returns the file name of a shard, by TFDS's convention."""
    return f'{name}-{split}.tfrecord-{number:05d}-of-{count:05d}'


def write_shard(path: str | os.PathLike, serialized: Iterable[bytes]) -> None:
    """Writes a TFRecord shard and its index; both get their final names only when they are complete and on disk.

    The index consists of rows of (offset uint64, crc uint32), little-endian: one per record with the masked CRC32C of
    its data, and a last one with the size of the shard and the masked CRC32C of the rows before it.
    """
    path = pathlib.Path(path)
    rows, offset = [], 0
    # The index gets its name first: a shard with a name has an index.
    with files.whole_file(path) as file:
        for data in serialized:
            length, crc = _LENGTH.pack(len(data)), masked_crc(data)
            file.write(length + _CRC.pack(masked_crc(length)) + data + _CRC.pack(crc))
            rows.append((offset, crc))
            offset += len(data) + _FRAMING_BYTES
        body = np.array(rows, _INDEX_ROW).tobytes()
        with files.whole_file(index_path(path)) as index:
            index.write(body + np.array([(offset, masked_crc(body))], _INDEX_ROW).tobytes())


def index_path(shard: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a shard's index."""
    shard = pathlib.Path(shard)
    return shard.with_name(shard.name + INDEX_SUFFIX)


def read_index(shard: str | os.PathLike) -> np.ndarray:
    """Returns the offsets of a shard's records, with its size as the last entry: int64 [n + 1].

    Raises:
      DataError: the shard or its index is missing or damaged, or the size of the shard differs from the one in its
        index.
    """
    path, fix = index_path(shard), _repair(shard)
    try:
        raw, size = path.read_bytes(), os.stat(shard).st_size
    except FileNotFoundError as error:
        raise DataError(f'{error.filename}: no such file; {fix}') from None
    if len(raw) < _INDEX_ROW.itemsize or len(raw) % _INDEX_ROW.itemsize:
        raise DataError(f'{path}: the index is {len(raw)} bytes long, not a multiple of {_INDEX_ROW.itemsize}; {fix}')
    rows = np.frombuffer(raw, _INDEX_ROW)
    if masked_crc(raw[: -_INDEX_ROW.itemsize]) != rows['crc'][-1]:
        raise DataError(f'{path}: the index is damaged (its checksum does not match); {fix}')
    if size != rows['offset'][-1]:
        raise DataError(f'{shard}: {size} bytes long where its index says {rows["offset"][-1]}; {fix}')
    return rows['offset'].astype(np.int64)


def read_record(shard: str | os.PathLike, offsets: np.ndarray, number: int) -> bytes:
    """Reads record `number` of a shard and verifies both of its checksums.

    The file is opened for each read, which costs microseconds: there is no state to pickle or lock, and no limit on
    open files.

    Raises:
      DataError: the record is damaged; the message has the file, the record number and the byte offset.
    """
    begin, end = int(offsets[number]), int(offsets[number + 1])
    descriptor = os.open(shard, os.O_RDONLY)
    try:
        # Data and framing are read separately, because cutting the data out would copy it.
        data = os.pread(descriptor, end - begin - _FRAMING_BYTES, begin + _HEADER.size)
        framing = os.pread(descriptor, _HEADER.size, begin) + os.pread(descriptor, _CRC.size, end - _CRC.size)
    finally:
        os.close(descriptor)
    fault = _fault(framing, data, end - begin)
    if fault:
        raise DataError(f'{shard}: record {number} at byte {begin} is damaged ({fault}); {_repair(shard)}')
    return data


def masked_crc(data: bytes) -> int:
    """Returns CRC32C with TFRecord's mask (tensorflow/core/lib/hash/crc32c.h)."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _fault(framing: bytes, data: bytes, expected: int) -> str | None:
    """Describes the fault of a record of `expected` bytes, or returns None.

    The framing is the bytes before and after the data.
    """
    if len(framing) + len(data) != expected:
        return f'{len(framing) + len(data)} of {expected} bytes are there'
    length, length_crc = _HEADER.unpack_from(framing)
    (data_crc,) = _CRC.unpack_from(framing, _HEADER.size)
    if masked_crc(framing[: _LENGTH.size]) != length_crc:
        return 'the checksum of its length does not match'
    if length != len(data):
        return f'its length is {length} where the index says {len(data)}'
    if masked_crc(data) != data_crc:
        return 'the checksum of its data does not match'
    return None


def _repair(shard: str | os.PathLike) -> str:
    shard = pathlib.Path(shard)
    return f'delete {shard.name} and run the same data_prep command again, which makes only this shard anew'
