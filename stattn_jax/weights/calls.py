"""The names that a pickle of PyTorch may use (storages, tensors, containers), and the objects that replace them."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any


class RefusedError(Exception):
    """Raised for a pickle that would call an unknown function; the message is the name of the function."""


class PickleError(Exception):
    """Raised for a pickle that is cut off, is inconsistent, or has an instruction that PyTorch does not write."""


@dataclasses.dataclass(frozen=True, eq=False)
class Global:
    """A name that a pickle refers to, such as 'torch.FloatStorage'."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Opaque:
    """A placeholder for an object that is not built: an instance of a class, or the result of a harmless call."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A flat array of one type. view: first index and length of a part of it (in the older format only)."""

    kind: str  # 'FloatStorage'
    key: str
    numel: int
    view: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view of a storage, in elements; dtype (such as 'torch.uint16') is set if the storage is plain bytes."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None


# The longest name of a class or function, NumPy's largest number of dimensions, and a bound on sizes and offsets.
LONGEST_NAME, _MOST_DIMENSIONS, _TOO_LARGE = 255, 64, 2**63
# Keys of any other type are left out with their values, because hashing nested tuples from a file can take forever.
_KEYS = (str, int, float, bytes, type(None))


def filled(target, items):
    """Adds alternating keys and values to a dict and returns it; an `Opaque` ignores them."""
    if not isinstance(target, (dict, Opaque)):
        raise PickleError('it adds items to an object that is no dict')
    if len(items) % 2:
        raise PickleError('it adds a key without a value to a dict')
    if isinstance(target, dict):
        target.update({key: value for key, value in zip(items[::2], items[1::2]) if isinstance(key, _KEYS)})
    return target


def named(text: Any) -> Global:
    """Returns the `Global` of this name; raises PickleError if the name is not valid."""
    if not isinstance(text, str) or len(text) > LONGEST_NAME or not re.fullmatch(r'[\w.<>]+', text):
        raise PickleError('a GLOBAL has no valid module and name')
    return Global(text)


def instance(kind):
    """Returns the replacement for an object that is made without calling its class's constructor."""
    if not isinstance(kind, Global):
        raise PickleError('it makes an object of something that is no class')
    return {} if kind.name in _MAPPINGS else Opaque(kind.name)


def called(function, arguments, count: Callable[[int], None]):
    """Returns the result of a known call; raises RefusedError for all other calls.

    count(items) is called with the number of items that the call reads, because many calls may be given the same list.
    """
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise PickleError('it calls something that is no function')
    if function.name in _CALLS:
        count(len(arguments))
        count(sum(len(value) for value in arguments if isinstance(value, (list, tuple))))
        return _CALLS[function.name](*arguments)
    if function.name in _HARMLESS:
        return Opaque(function.name)
    raise RefusedError(function.name)


def storage(reference) -> Storage:
    """Returns the storage for PyTorch's reference ('storage', type, key, device, numel[, view]) in both formats."""
    if len(reference) not in (5, 6):
        raise PickleError('it refers to something outside that is no storage')
    tag, kind, key, _, numel, *rest = reference
    if isinstance(key, int):
        key = str(*_naturals((key,)))
    if tag != 'storage' or not isinstance(kind, Global) or not isinstance(key, str):
        raise PickleError('it refers to something outside that is no storage')
    view = rest[0] if rest else None
    if view is not None:
        _, first, count = view
        view = _naturals((first, count))
    (numel,) = _naturals((numel,))
    return Storage(kind.name.rpartition('.')[2], key, numel, view)


def _naturals(values) -> tuple[int, ...]:
    if isinstance(values, (tuple, list)) and len(values) > _MOST_DIMENSIONS:
        raise PickleError(f'a tensor in it has {len(values)} dimensions, more than {_MOST_DIMENSIONS}')
    if not isinstance(values, (tuple, list)) or not all(
        isinstance(value, int) and 0 <= value < _TOO_LARGE for value in values
    ):
        raise PickleError('a size, a stride or an offset in it is no natural number of 63 bits')
    return tuple(values)


def _mapping(items=()):
    pairs = items if isinstance(items, (list, tuple)) else []
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise PickleError('it makes a dict of items that are no pairs of a key and a value')
    return filled({}, [part for pair in pairs for part in pair])


def _tensor(storage, offset, size, stride, *_, dtype=None) -> Tensor:
    if not isinstance(storage, Storage):
        raise PickleError('a tensor in it has no storage')
    (offset,), size, stride = _naturals((offset,)), _naturals(size), _naturals(stride)
    if len(size) != len(stride):
        raise PickleError('a tensor in it has more sizes than strides, or fewer')
    return Tensor(storage, offset, size, stride, dtype)


def _tensor_of_bytes(storage, offset, size, stride, _, __, dtype, *___) -> Tensor:
    if not isinstance(dtype, Global):
        raise PickleError('a tensor in it has no type')
    return _tensor(storage, offset, size, stride, dtype=dtype.name)


def _parameter(tensor, *_) -> Any:
    return tensor


_MAPPINGS = ('collections.OrderedDict', 'collections.defaultdict', 'builtins.dict')
_CALLS: dict[str, Callable[..., Any]] = {
    'collections.OrderedDict': _mapping,
    'collections.defaultdict': lambda *_: {},
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_of_bytes,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
}
# Numbers, paths and similar objects that training scripts store with the tensors. These are not called either, but a
# file with them is accepted.
_HARMLESS = frozenset(
    '_codecs.encode copyreg._reconstructor copy_reg._reconstructor builtins.set builtins.frozenset builtins.bytearray '
    '__builtin__.set collections.Counter collections.deque numpy.dtype numpy.core.multiarray.scalar '
    'numpy._core.multiarray.scalar numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct '
    'pathlib.PosixPath pathlib.WindowsPath pathlib.PurePosixPath pathlib._local.PosixPath pathlib._local.WindowsPath '
    'torch.device torch.Size datetime.datetime datetime.timedelta'.split()
)
