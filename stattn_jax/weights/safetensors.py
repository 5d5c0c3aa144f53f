"""Reads and writes the safetensors format: a length, a JSON header, and the bytes of all tensors in sequence.

Source: github.com/huggingface/safetensors, README.md.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from stattn_jax import files
from stattn_jax.weights.errors import WeightsError, damaged, listed

# The largest header in bytes that the format allows.
MAX_HEADER = 100_000_000
_DTYPES = {
    'F64': np.dtype('<f8'),
    'F32': np.dtype('<f4'),
    'F16': np.dtype('<f2'),
    'BF16': np.dtype(ml_dtypes.bfloat16),
    'I64': np.dtype('<i8'),
    'I32': np.dtype('<i4'),
    'I16': np.dtype('<i2'),
    'I8': np.dtype('i1'),
    'U64': np.dtype('<u8'),
    'U32': np.dtype('<u4'),
    'U16': np.dtype('<u2'),
    'U8': np.dtype('u1'),
    'BOOL': np.dtype('?'),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns a file's tensors by name, bfloat16 as float32; raises WeightsError if header and file do not agree."""
    content = path.read_bytes()
    header, begin = _header(path, content)
    data = memoryview(content)[begin:]
    header.pop('__metadata__', None)
    places = {name: _place(path, name, entry, len(data)) for name, entry in header.items()}
    _check_order(path, places, len(data))
    tensors = {}
    for name, (dtype, shape, first, last) in places.items():
        array = np.frombuffer(data[first:last], dtype) if last > first else np.empty(0, dtype)
        try:
            array = array.reshape(shape)
        except ValueError as error:
            raise damaged(path, f'{name}: {error}') from None
        tensors[name] = array.astype(np.float32) if dtype == ml_dtypes.bfloat16 else array
    return tensors


def write_safetensors(
    path: str | pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors and metadata (text to text) to `path` atomically: `path` is the whole file or not changed."""
    path = pathlib.Path(path)
    # Wide types come first, so that every tensor begins at a multiple of its item size.
    arrays = {name: _little(path, name, tensors[name]) for name in sorted(tensors)}
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))
    header: dict[str, Any] = {'__metadata__': dict(metadata)} if metadata else {}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {'dtype': _NAMES[array.dtype], 'shape': list(array.shape), 'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with files.whole_file(path) as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for array in arrays.values():
            file.write(array.tobytes())


def _little(path, name: str, tensor) -> np.ndarray:
    """Returns the array in the format's byte order; raises WeightsError for types that the format lacks."""
    array = np.asarray(tensor)
    array = array.astype(array.dtype.newbyteorder('<'), copy=False)
    if array.dtype not in _NAMES or name == '__metadata__':
        raise WeightsError(f'{path}: {name} of {array.dtype} has no place in it; expected one of {", ".join(_DTYPES)}')
    return array


def _header(path, content: bytes) -> tuple[dict[str, Any], int]:
    """Returns the header, and the position where the tensors' bytes begin."""
    length = int.from_bytes(content[:8], 'little')
    if len(content) < 8 or length > min(MAX_HEADER, len(content) - 8):
        raise damaged(path, f'its header has {length} bytes, the file {len(content)}')
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise damaged(path, f'its header is no JSON ({error})') from None
    if not isinstance(header, dict):
        raise damaged(path, f'its header is a {type(header).__name__}, not tensors by name')
    return header, 8 + length


def _place(path, name: str, entry: Any, size: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Returns the type, shape, first byte and end (exclusive) of a tensor, after checking its header entry."""
    if not isinstance(entry, dict) or not {'dtype', 'shape', 'data_offsets'} <= set(entry):
        raise damaged(path, f'its header says of {name} no dtype, shape and data_offsets')
    if entry['dtype'] not in (known := list(_DTYPES)):
        raise WeightsError(f'{path}: {name} is of dtype {str(entry["dtype"])[:40]}; expected one of {", ".join(known)}')
    dtype, shape, offsets = _DTYPES[entry['dtype']], entry['shape'], entry['data_offsets']
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise damaged(path, f'{name} has the shape {str(shape)[:60]} and the offsets {str(offsets)[:60]}')
    first, last = offsets
    if not first <= last <= size:
        raise damaged(path, f'{name} lies at bytes {first} to {last} of {size}')
    if last - first != math.prod(shape) * dtype.itemsize:
        raise damaged(path, f'{name} of shape {tuple(shape)} and {entry["dtype"]} has {last - first} bytes')
    return dtype, tuple(shape), first, last


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_order(path, places, size: int) -> None:
    """Raises WeightsError if tensors overlap, or if some bytes belong to no tensor."""
    end, before = 0, 'its header'
    for first, last, name in sorted((first, last, name) for name, (_, _, first, last) in places.items()):
        if first != end:
            raise damaged(path, f'{name} begins at byte {first}, but {before} ends at {end}')
        end, before = last, name
    if end != size:
        raise damaged(path, f'its tensors ({listed(list(places), 3)}) end at byte {end} of {size}')
