"""Reads files of weights to NumPy arrays by name, without PyTorch: .safetensors, .pth and .pt (both formats), .npz.

A checkpoint of a training script may contain more than the tensors of one network. The mapping of names to tensors is
found by this rule: it is under the first of WRAPPERS that leads to tensors, if there is one; else it is the current
mapping, if that has tensors; else it is under the only other name that leads to tensors. The rule is applied again to a
mapping found under a name. Values that are not tensors are ignored.
"""

import io
import math
import pathlib
import re
import zipfile
from typing import Any

import numpy as np

from stattn_jax.weights import calls, pytorch
from stattn_jax.weights.errors import ZIP_ERRORS, WeightsError, damaged, listed
from stattn_jax.weights.safetensors import read_safetensors, write_safetensors

__all__ = ['ENDINGS', 'WRAPPERS', 'WeightsError', 'read', 'write_safetensors']

WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'teacher', 'network')
# The largest allowed ratio of the unpacked size of an .npz to its file size, and the allowed compression types.
_UNPACKED, _PACKED = 16, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The largest depth at which a state dict is searched in a checkpoint.
_DEPTH = 4


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Returns every tensor of a file by name; bfloat16 becomes float32, other types are kept.

    The arrays may be read-only. Raises WeightsError if the file cannot be used.
    """
    path = pathlib.Path(path)
    if path.suffix not in ENDINGS:
        raise WeightsError(f'{path} ends in {path.suffix!r}; expected {", ".join(ENDINGS)}; convert or rename it')
    if not path.is_file():
        raise WeightsError(f'{path} is not there; expected a file of weights; check the path')
    try:
        _check_head(path)
        tensors = ENDINGS[path.suffix](path)
    except OSError as error:
        raise WeightsError(f'{path} cannot be read: {error.strerror}; expected a file of weights') from None
    if not tensors:
        raise WeightsError(f'{path} holds no tensors; expected the state dict of a network')
    return tensors


def _check_head(path: pathlib.Path) -> None:
    """Raises WeightsError for common results of failed downloads: a git-lfs pointer, an HTML page, an empty file."""
    with open(path, 'rb') as file:
        head = file.read(256).lstrip()
    if head.startswith(b'version https://git-lfs'):
        raise WeightsError(
            f'{path} is a git-lfs pointer, not the weights; run git lfs pull, or download the file itself'
        )
    # A safetensors file begins with a length, whose first byte may also be '<', but zero bytes follow.
    if re.match(rb'<[!?a-zA-Z]', head) and b'\0' not in head:
        raise WeightsError(f'{path} is an HTML page, not weights; download the file itself, not the page about it')
    if not head:
        raise damaged(path, 'it is empty')


def _read_pytorch(path: pathlib.Path) -> dict[str, np.ndarray]:
    with pytorch.opened(path) as (tree, array):
        return {name: array(name, tensor) for name, tensor in _tensors(_state_dict(path, tree)).items()}


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith('.npy')]
            _check_unpacked(path, entries)
            return {entry.filename[:-4]: _npy(path, entry.filename[:-4], _content(archive, entry)) for entry in entries}
    except ZIP_ERRORS as error:
        raise damaged(path, str(error)) from None


def _check_unpacked(path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises WeightsError for an archive whose unpacked size is too large, or whose compression is not NumPy's."""
    size, unpacked = path.stat().st_size, sum(entry.file_size for entry in entries)
    if unpacked > _UNPACKED * size:
        raise WeightsError(
            f'{path} is longer unpacked than weights are: {unpacked} bytes from {size}; '
            f'expected at most {_UNPACKED} times as many; save it with np.savez'
        )
    packed = [entry.filename for entry in entries if entry.compress_type not in _PACKED]
    if packed:
        raise WeightsError(
            f'{path}: {listed(packed)} is not packed as NumPy packs; expected stored or deflated; save it with np.savez'
        )


def _content(archive, entry) -> bytes:
    """Reads an entry up to its stated length; archive.read would first unpack all data, even beyond that length."""
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _npy(path, name: str, content: bytes) -> np.ndarray:
    """Returns one array, whose length is checked before it is made; arrays of Python objects are refused."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in reads:
            raise ValueError(f'its version is {version}')
        shape, fortran, dtype = reads[version](stream)
        if dtype.kind not in 'biuf':
            raise WeightsError(f'{path}: {name} is of {dtype}; expected numbers; save it as float32')
        data, count = content[stream.tell() :], math.prod(shape)
        if len(data) != count * dtype.itemsize:
            raise ValueError(f'of shape {shape} and {dtype} it has {len(data)} bytes')
        array = np.frombuffer(data, dtype) if count else np.empty(0, dtype)
        array = array.reshape(shape, order='F' if fortran else 'C')
    except ValueError as error:
        raise damaged(path, f'{name}: {error}') from None
    return np.asarray(array, dtype.newbyteorder('='), order='C')


def _state_dict(path, tree: Any) -> dict:
    """Returns the mapping of names to tensors by the module's rule; raises WeightsError if there is none or several."""
    for _ in range(_DEPTH):
        if not isinstance(tree, dict):
            break
        inner = [name for name in WRAPPERS if _leads_to_tensors(tree.get(name))][:1]
        if not inner and _tensors(tree):
            return tree
        inner = inner or [name for name, value in tree.items() if _leads_to_tensors(value)]
        if len(inner) > 1:
            raise WeightsError(
                f'{path} holds several mappings of tensors: {listed([str(name) for name in inner])}; '
                f'expected one, or one called {", ".join(WRAPPERS)}; save the one that is meant by itself'
            )
        if not inner:
            break
        tree = tree[inner[0]]
    if isinstance(tree, calls.Opaque):
        held = f'an object of {tree.name}'
    else:
        held = f'a {type(tree).__name__}' + (
            f' of {listed([str(name) for name in tree])}' if isinstance(tree, dict) else ''
        )
    raise WeightsError(f'{path} holds no tensors by name, but {held}; expected a state dict; save model.state_dict()')


def _tensors(tree: dict) -> dict[str, calls.Tensor]:
    return {key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, calls.Tensor)}


def _leads_to_tensors(tree: Any) -> bool:
    """Returns whether a mapping has tensors, or contains mappings that do, down to `_DEPTH` levels.

    Each mapping is visited once, because mappings may contain themselves.
    """
    level, seen = [tree], set()
    for _ in range(_DEPTH):
        level = [value for value in level if isinstance(value, dict) and id(value) not in seen]
        if any(_tensors(value) for value in level):
            return True
        seen |= {id(value) for value in level}
        level = list(
            {id(inner): inner for value in level for key, inner in value.items() if isinstance(key, str)}.values()
        )
    return False


ENDINGS = {'.safetensors': read_safetensors, '.pth': _read_pytorch, '.pt': _read_pytorch, '.npz': _read_npz}
