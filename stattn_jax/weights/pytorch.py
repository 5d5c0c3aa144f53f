"""Reads PyTorch's files (.pth, .pt): the zip archive of version 1.6 and later, and the older format.

The older format is a sequence of pickles and storages.
"""

import contextlib
import io
import math
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from stattn_jax.weights import calls, pickles
from stattn_jax.weights.errors import ZIP_ERRORS, Allowance, WeightsError, damaged

# In the old format, the first pickle of a file is this number, and the second is this version.
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
_KINDS = {
    'FloatStorage': np.dtype('<f4'),
    'DoubleStorage': np.dtype('<f8'),
    'HalfStorage': np.dtype('<f2'),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
    'ShortStorage': np.dtype('<i2'),
    'CharStorage': np.dtype('i1'),
    'ByteStorage': np.dtype('u1'),
    'BoolStorage': np.dtype('?'),
    'UntypedStorage': np.dtype('u1'),
}
_DTYPES = {
    f'torch.{name}': np.dtype(name)
    for name in 'float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool'.split()
} | {'torch.bfloat16': np.dtype(ml_dtypes.bfloat16)}

Raw = Callable[[calls.Storage], memoryview]


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[tuple[Any, Callable[[str, calls.Tensor], np.ndarray]]]:
    """Yields the object in a file, with `Tensor` for tensors, and array(name, tensor), which reads their numbers."""
    with open(path, 'rb') as file:
        head = file.read(4)
    known = head[:4] == b'PK\x03\x04', head[:1] == b'\x80'
    if not any(known):
        raise WeightsError(
            f'{path} is no file of PyTorch: it begins with {head!r}; expected a file of torch.save; check the download'
        )
    with _zip(path) if known[0] else contextlib.nullcontext(_legacy(path, path.read_bytes())) as (tree, raw):
        copies = Allowance(path.stat().st_size)
        yield tree, lambda name, tensor: _array(path, name, tensor, raw, copies)


@contextlib.contextmanager
def _zip(path) -> Iterator[tuple[Any, Raw]]:
    """Reads the zip format: data.pkl is the object, data/KEY are the storages, all uncompressed in one folder."""
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise damaged(path, str(error)) from None
    read = Allowance(path.stat().st_size)
    with archive:
        roots = [name.removesuffix('data.pkl') for name in archive.namelist() if f'/{name}'.endswith('/data.pkl')]
        if len(roots) != 1:
            raise WeightsError(
                f'{path} is a zip archive, but not of PyTorch: it has {len(roots)} data.pkl; '
                'expected a file of torch.save'
            )
        if roots[0] + 'byteorder' in archive.namelist():
            _check_order(path, _entry(path, archive, roots[0] + 'byteorder', read) == b'little')
        tree, _ = _load(path, io.BytesIO(_entry(path, archive, roots[0] + 'data.pkl', read)))
        kept: dict[str, memoryview] = {}

        def raw(storage):
            if storage.key not in kept:
                kept[storage.key] = memoryview(_entry(path, archive, f'{roots[0]}data/{storage.key}', read))
            return kept[storage.key]

        yield tree, raw


def _entry(path, archive, name, read: Allowance) -> bytes:
    """Returns the content of an archive entry, whose length is checked first against the budget of bytes `read`."""
    try:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise damaged(path, f'{name} in it is compressed')
        if not read.lasts(entry.file_size):
            raise damaged(path, f'{name} in it is longer than the archive, or lies over other entries')
        return archive.read(entry)
    except KeyError:
        raise damaged(path, f'{name} in it is missing') from None
    except ZIP_ERRORS as error:
        raise damaged(path, f'{name}: {error}') from None


def _legacy(path, data: bytes) -> tuple[Any, Raw]:
    """Reads the old format: pickles of a magic number, a version, system facts, the object and the storage keys.

    The storages follow the pickles, each after its length.
    """
    stream = io.BytesIO(data)
    if _load(path, stream)[0] != MAGIC:
        raise WeightsError(f'{path} is a pickle, but not of PyTorch; expected a file of torch.save')
    version, facts = _load(path, stream)[0], _load(path, stream)[0]
    if version != VERSION or not isinstance(facts, dict):
        raise damaged(path, f'its second pickle is not the version {VERSION}, or its third is no dictionary')
    _check_order(path, facts.get('little_endian') is True)
    tree, storages = _load(path, stream)
    keys, _ = _load(path, stream)
    if not isinstance(keys, list):
        raise damaged(path, 'it does not list its storages')
    places: dict[str, memoryview] = {}
    position = stream.tell()
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise damaged(path, f'no tensor belongs to storage {len(places)} of it')
        count, size = int.from_bytes(data[position : position + 8], 'little'), _kind(path, storage).itemsize
        begin, position = position + 8, position + 8 + count * size
        if count != storage.numel or position > len(data):
            raise damaged(path, f'a storage of {storage.numel} numbers does not lie within its {len(data)} bytes')
        places[key] = memoryview(data)[begin:position]

    def raw(storage):
        if storage.key not in places:
            raise damaged(path, f'its storage {storage.key} is missing')
        first, count = storage.view or (0, storage.numel)
        size = _kind(path, storage).itemsize
        return places[storage.key][first * size : (first + count) * size]

    return tree, raw


def _load(path, stream):
    try:
        return pickles.load(stream)
    except calls.RefusedError as error:
        raise WeightsError(
            f'{path} would call {error} when it is unpickled, which makes no tensor; expected a state dict; '
            'nothing was run: if the file can be trusted, save model.state_dict() from it, or else get it elsewhere'
        ) from None
    except calls.PickleError as error:
        raise damaged(path, f'its pickle: {error}') from None


def _check_order(path, little: bool) -> None:
    if not little:
        raise WeightsError(
            f'{path} was written on a big-endian machine; expected little-endian; save it again on another'
        )


def _kind(path, storage) -> np.dtype:
    if storage.kind not in _KINDS:
        raise WeightsError(f'{path} holds a {storage.kind}; expected one of {", ".join(_KINDS)}; save it as float32')
    return _KINDS[storage.kind]


def _array(path, name: str, tensor: calls.Tensor, raw: Raw, copies: Allowance) -> np.ndarray:
    """Returns the numbers of a strided view, checked against the storage; bfloat16 becomes float32.

    copies: the budget of numbers that all tensors together may copy. A copy is made for bfloat16, and for a view that
      is not contiguous, such as a transposed or an expanded one.
    """
    dtype = _kind(path, tensor.storage)
    size = tensor.storage.numel * dtype.itemsize
    if tensor.dtype is not None:
        if tensor.dtype not in _DTYPES:
            raise WeightsError(f'{path}: {name} is of {tensor.dtype}; expected one of {", ".join(_DTYPES)}')
        dtype = _DTYPES[tensor.dtype]
    data = raw(tensor.storage)
    if tensor.storage.view is None and len(data) < size:
        raise damaged(path, f'{name} has {len(data)} of {size} bytes')
    numbers = (
        np.frombuffer(data, dtype, len(data) // dtype.itemsize) if len(data) >= dtype.itemsize else np.empty(0, dtype)
    )
    elements = math.prod(tensor.size)
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.size, tensor.stride))
    if elements and last >= len(numbers):
        raise damaged(path, f'{name} reaches number {last} of a storage of {len(numbers)}')
    strides = [step * dtype.itemsize if elements else 0 for step in tensor.stride]
    try:
        begin = tensor.offset if elements else 0
        view = np.lib.stride_tricks.as_strided(numbers[begin:], tensor.size, strides, writeable=False)
    except (ValueError, OverflowError) as error:
        raise damaged(path, f'{name} of shape {tensor.size}: {error}') from None
    wanted = np.dtype(np.float32) if dtype == ml_dtypes.bfloat16 else dtype
    if (wanted != dtype or not view.flags.c_contiguous) and not copies.lasts(view.size):
        raise WeightsError(
            f'{path}: the tensors up to {name} have more numbers than the file has bytes; '
            'expected tensors that do not share their numbers; save each with .clone()'
        )
    return np.asarray(view, wanted, order='C')
