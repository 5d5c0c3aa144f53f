"""Tests safetensors files: read as written, written completely, and refused where they contradict themselves."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from weight_files import SIX, fails

from stattn_jax.weights import formats
from stattn_jax.weights.errors import WeightsError


def in_safetensors(header, size, length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + bytes(size)


def entry(begin, end, shape=(2,), dtype='F32'):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]}


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (in_safetensors({'x': entry(0, 8)}, 8, length=10**6), 'header has 1000000 bytes'),
        (in_safetensors(b'no json here', 0), 'no JSON'),
        (in_safetensors(b'[' * 10**5, 0), 'no JSON'),
        (in_safetensors([1], 0), 'is a list'),
        (in_safetensors({}, 0), 'holds no tensors'),
        (in_safetensors({'x': {'dtype': 'F32'}}, 8), 'says of x no dtype, shape and data_offsets'),
        # A header of 25148 bytes; its length is '<b' and zeros.
        (in_safetensors(json.dumps({'x': entry(0, 8)}).encode().ljust(25148), 9), 'end at byte 8 of 9'),
        (in_safetensors({'x': entry(0, 8, dtype='F7')}, 8), 'x is of dtype F7; expected one of F64'),
        (in_safetensors({'x': entry(0, 8, dtype=['F32'])}, 8), "x is of dtype ['F32']"),
        (in_safetensors({'x': entry(0, 8, shape=(-2,))}, 8), 'has the shape [-2]'),
        (in_safetensors({'x': entry(0, 8)}, 4), 'x lies at bytes 0 to 8 of 4'),
        (in_safetensors({'x': entry(0, 8, shape=(3,))}, 8), 'x of shape (3,) and F32 has 8 bytes'),
        (in_safetensors({'x': entry(0, 8), 'y': entry(4, 12)}, 12), 'y begins at byte 4, but x ends at 8'),
        (in_safetensors({'x': entry(0, 8), 'y': entry(12, 20)}, 20), 'y begins at byte 12, but x ends at 8'),
        (in_safetensors({'x': entry(0, 8)}, 9), 'end at byte 8 of 9'),
        (in_safetensors({'x': entry(0, 4, shape=(1,) * 80)}, 4), 'x: '),
    ],
)
def test_safetensors_that_contradict_themselves(content, words, tmp_path):
    fails(tmp_path, content, words, ending='.safetensors')


def test_safetensors_are_read_as_they_are_written(tmp_path):
    half = np.array([1, -3, 0.5], ml_dtypes.bfloat16)
    tensors = {
        'flags': np.array([True, False, True]),
        'turned': SIX.reshape(2, 3).T,
        'number': np.float64(2.5),
        'none': np.empty((0, 3), np.int16),
        'big': np.array([1, 2], '>i4'),
        'half': half,
    }
    path = tmp_path / 'x.safetensors'
    formats.write_safetensors(path, tensors, {'source': 'made here'})
    found = formats.read(path)
    assert set(found) == set(tensors) and found['half'].dtype == np.float32 and found['number'].shape == ()
    for key, value in tensors.items():
        np.testing.assert_array_equal(found[key], np.asarray(value).astype(found[key].dtype))
    content = path.read_bytes()
    (length,) = struct.unpack('<Q', content[:8])
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and header.pop('__metadata__') == {'source': 'made here'}
    for value in header.values():
        width = {'BOOL': 1, 'F32': 4, 'F64': 8, 'I16': 2, 'I32': 4, 'BF16': 2}[value['dtype']]
        assert value['data_offsets'][0] % width == 0


def test_safetensors_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'x.safetensors'
    formats.write_safetensors(path, {'x': SIX})
    before = path.read_bytes()
    with pytest.raises(WeightsError, match='y of complex64 has no place in it; expected one of F64'):
        formats.write_safetensors(path, {'x': SIX + 1, 'y': np.ones(2, np.complex64)})
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match='absent/x.safetensors'):
        formats.write_safetensors(tmp_path / 'absent' / 'x.safetensors', {'x': SIX})

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left on device: .*x.safetensors'):
        formats.write_safetensors(path, {'x': SIX + 1})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
