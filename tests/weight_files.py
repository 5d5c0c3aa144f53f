"""Weight files that are assembled byte by byte, for the tests of stattn_jax/weights/."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from stattn_jax.weights import formats, pytorch
from stattn_jax.weights.errors import WeightsError

SIX = np.arange(6, dtype=np.float32)


class Ops(bytes):
    """Instructions of a pickle that leave one value on the stack."""


def ops(value) -> Ops:
    """Returns the instructions of protocol 2 that make a value."""
    if isinstance(value, Ops):
        return value
    if isinstance(value, dict):
        return Ops(b'}(' + b''.join(ops(part) for item in value.items() for part in item) + b'u')
    if isinstance(value, (list, tuple)):
        return Ops(b'(' + b''.join(map(ops, value)) + (b'l' if isinstance(value, list) else b't'))
    return Ops(pickle.dumps(value, 2)[2:-1])


def name(text) -> Ops:
    module, _, rest = text.rpartition('.')
    return Ops(f'c{module}\n{rest}\n'.encode())


def call(function, *arguments) -> Ops:
    return Ops(name(function) + ops(arguments) + b'R')


def whole(value) -> bytes:
    return b'\x80\x02' + ops(value) + b'.'


def storage(key, numel, kind='torch.FloatStorage', view=()) -> Ops:
    return Ops(ops(('storage', name(kind), key, 'cpu', numel, *view)) + b'Q')


def tensor(key, numel, size, stride, offset=0, kind='torch.FloatStorage', view=()) -> Ops:
    hooks = call('collections.OrderedDict')
    made = storage(key, numel, kind, view)
    return call('torch._utils._rebuild_tensor_v2', made, offset, tuple(size), tuple(stride), False, hooks)


def in_zip(value, storages) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        archive.writestr('archive/data.pkl', whole(value))
        archive.writestr('archive/byteorder', b'little')
        for key, numbers in storages.items():
            archive.writestr(f'archive/data/{key}', numbers.tobytes())
        archive.writestr('archive/version', b'3\n')
    return stream.getvalue()


def in_legacy(value, storages, facts=(('little_endian', True),)) -> bytes:
    head = [pytorch.MAGIC, pytorch.VERSION, dict(facts), value, list(storages)]
    rows = [struct.pack('<q', numbers.size) + numbers.tobytes() for numbers in storages.values()]
    return b''.join([*map(whole, head), *rows])


def read(folder, content, ending='.pth'):
    path = folder / f'weights{ending}'
    path.write_bytes(content)
    return formats.read(path)


def fails(folder, content, *words, ending='.pth'):
    """Asserts that reading the file raises a one-line error that names the file and contains these words."""
    with pytest.raises(WeightsError) as caught:
        read(folder, content, ending)
    line = str(caught.value)
    assert '\n' not in line and f'weights{ending}' in line
    assert all(word in line for word in words), line


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


STATE = {'x': tensor('0', 6, (2, 3), (3, 1)), 'y': tensor('1', 4, (4,), (1,))}
WHOLE = {'0': SIX, '1': np.ones(4, np.float32)}


def a_safetensors_file(folder):
    path = folder / 'made.safetensors'
    formats.write_safetensors(path, {'x': SIX.reshape(2, 3), 'y': np.ones(4, np.float32)}, {'format': 'pt'})
    return path.read_bytes()


def an_npz_file(folder):
    path = folder / 'made.npz'
    np.savez(path, x=SIX.reshape(2, 3), y=np.ones(4, np.float32))
    return path.read_bytes()


MADE = {
    'zip': ('.pth', lambda folder: in_zip(STATE, WHOLE)),
    'legacy': ('.pt', lambda folder: in_legacy(STATE, WHOLE)),
    'safetensors': ('.safetensors', a_safetensors_file),
    'npz': ('.npz', an_npz_file),
}
