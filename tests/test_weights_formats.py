"""Tests every kind of weights file that is truncated, changed, of impossible lengths, or not weights; and .npz."""

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from weight_files import MADE, SIX, Evil, Ops, an_npz_file, fails, in_legacy, in_zip, read, tensor

from stattn_jax.weights import formats
from stattn_jax.weights.errors import WeightsError


@pytest.mark.parametrize('kind', MADE)
def test_a_file_that_is_cut_anywhere_is_one_line(kind, tmp_path):
    ending, make = MADE[kind]
    content = make(tmp_path)
    assert set(read(tmp_path, content, ending)) == {'x', 'y'}
    for length in range(0, len(content), 3):
        fails(tmp_path, content[:length], ending=ending)


@pytest.mark.parametrize('kind', MADE)
def test_a_file_with_changed_bytes_is_read_or_one_line(kind, tmp_path):
    ending, make = MADE[kind]
    content, rng, refused = make(tmp_path), np.random.default_rng(0), 0
    for _ in range(150):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        try:
            read(tmp_path, bytes(changed), ending)
        except WeightsError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 25


@pytest.mark.parametrize(
    ('ending', 'content'),
    [
        ('.safetensors', struct.pack('<Q', 2**63) + b'{}'),
        ('.pth', in_legacy(Ops(b'\x8e' + struct.pack('<Q', 2**62)), {})),
        ('.pth', in_zip(Ops(b'B' + struct.pack('<I', 2**32 - 1)), {})),
        ('.pth', in_legacy({'x': tensor('0', 2**60, (2,), (1,))}, {'0': SIX})),
        ('.pth', in_zip({'x': tensor('0', 6, (2**20, 2**20), (0, 0))}, {'0': SIX})),
        ('.pth', in_zip({'x': tensor('0', 6, (2**40,), (1,))}, {'0': SIX})),
        ('.pth', in_zip({'x': tensor('0', 6, (1,) * 80, (1,) * 80)}, {'0': SIX})),
        ('.pth', in_zip(Ops(b'}r' + struct.pack('<I', 2**32 - 1) + b'Nh\x00'), {})),
    ],
)
def test_lengths_in_a_file_are_checked_before_memory_is_allocated(ending, content, tmp_path):
    tracemalloc.start()
    fails(tmp_path, content, ending=ending)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**22


def test_files_that_are_no_weights_are_refused(tmp_path):
    lfs = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'
    for ending in formats.ENDINGS:
        fails(tmp_path, b'\n <!DOCTYPE html><html>404</html>', 'HTML page', 'download the file itself', ending=ending)
        fails(tmp_path, lfs, 'git-lfs pointer', 'git lfs pull', ending=ending)
        fails(tmp_path, b'', 'it is empty', ending=ending)
        fails(tmp_path, b'some text that is no weights', ending=ending)
    fails(tmp_path, pickle.dumps({'x': 1}), 'a pickle, but not of PyTorch')
    fails(tmp_path, an_npz_file(tmp_path), 'has 0 data.pkl')
    fails(tmp_path, b'', "ends in '.h5'; expected .safetensors, .pth, .pt, .npz", ending='.h5')
    with pytest.raises(WeightsError, match='absent.pth is not there; expected a file of weights'):
        formats.read(tmp_path / 'absent.pth')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz_in_every_order(save, tmp_path):
    path = tmp_path / 'x.npz'
    grid = np.arange(24, dtype='>f4').reshape(2, 3, 4)
    save(path, a=grid, b=np.asfortranarray(grid), number=np.int64(3), none=np.empty((0, 2)))
    found = formats.read(path)
    np.testing.assert_array_equal(found['a'], grid)
    np.testing.assert_array_equal(found['b'], grid)
    assert found['a'].dtype.isnative and found['b'].flags.c_contiguous
    assert found['number'] == 3 and found['number'].shape == () and found['none'].shape == (0, 2)


def test_npz_of_objects_is_refused_and_not_run(tmp_path):
    path, marker = tmp_path / 'x.npz', tmp_path / 'marker'
    np.savez(path, a=np.array([Evil(f'touch {marker}')], object))
    with pytest.raises(WeightsError, match='x.npz: a is of object; expected numbers'):
        formats.read(path)
    assert not marker.exists()


def test_npz_that_unpacks_to_more_than_weights_are(tmp_path):
    path = tmp_path / 'x.npz'
    np.savez_compressed(path, a=np.zeros(2**20, np.float32))
    content = bytearray(path.read_bytes())
    words = 'is longer unpacked than weights are', 'expected at most 16 times', 'save it with np.savez'
    tracemalloc.start()
    fails(tmp_path, content, *words, ending='.npz')
    # The file is the same, but the directory at the end of the archive declares 1000 unpacked bytes.
    struct.pack_into('<I', content, content.index(b'PK\x01\x02') + 24, 1000)
    fails(tmp_path, content, 'Bad CRC-32', ending='.npz')
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    np.savez_compressed(path, a=np.repeat(np.arange(2**12, dtype=np.float32), 4))
    assert len(formats.read(path)['a']) == 2**14


def test_npz_that_is_not_packed_as_numpy_packs(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w', zipfile.ZIP_BZIP2) as archive:
        archive.writestr('a.npy', b'x' * 100)
    fails(
        tmp_path, content.getvalue(), 'a.npy is not packed as NumPy packs; expected stored or deflated', ending='.npz'
    )


def test_npz_that_claims_more_than_it_holds(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {'descr': '<f8', 'fortran_order': False, 'shape': (2**50,)})
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as archive:
        archive.writestr('a.npy', stream.getvalue() + bytes(8))
    fails(tmp_path, content.getvalue(), 'a: of shape', 'has 8 bytes', ending='.npz')
