"""Reads the pickles inside PyTorch files without running them.

A pickle is a program for a stack machine, and may call anything. The machine here supports containers, numbers, strings
and a few calls by name (calls.py). A call that makes a tensor gives a `Tensor`, which only describes it. Objects of
other classes (such as the argparse.Namespace of a training script) become an empty `Opaque`. Any other call is refused.
Nothing that a file names is ever imported.
"""

import io
import pickletools
import warnings
from typing import Any

from stattn_jax.weights import calls
from stattn_jax.weights.calls import Opaque, PickleError, Storage, Tensor
from stattn_jax.weights.errors import Allowance


def load(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Returns the value of the pickle that begins at the stream's position, and its storages by key.

    The stream is left at the end of the pickle. Raises RefusedError and PickleError.
    """
    machine = _Machine(stream.getbuffer().nbytes)
    try:
        with warnings.catch_warnings():
            # Invalid escape sequences in a string give a warning, which becomes an error.
            warnings.simplefilter('error')
            for opcode, argument, _ in pickletools.genops(stream):
                machine.run(opcode.name, argument)
        return machine.stack.pop(), machine.storages
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, Warning) as error:
        raise PickleError(' '.join(str(error).split()) or type(error).__name__) from None


# Instructions that push the value they carry.
_VALUES = frozenset(
    'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING '
    'BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8'.split()
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_PUTS = frozenset(('PUT', 'BINPUT', 'LONG_BINPUT'))
_GETS = frozenset(('GET', 'BINGET', 'LONG_BINGET'))


class _Machine:
    """The stack, its marks and the memo, with a method for each instruction that does not just push a value.

    length: of the stream in bytes. Every item takes at least one byte, so all calls together may read at most this many
      items.
    """

    def __init__(self, length: int):
        self.items = Allowance(length)
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack.append(tuple(self.pop() for _ in range(count))[::-1])
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name not in ('PROTO', 'FRAME', 'STOP'):
            known = getattr(self, f'do_{name.lower()}', None)
            if known is None:
                raise PickleError(f'it has the instruction {name}, which PyTorch does not write')
            known(argument)

    def pop(self) -> Any:
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def count(self, items: int) -> None:
        if not self.items.lasts(items):
            raise PickleError('its calls are given more items than it has bytes')

    def do_mark(self, _) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def do_pop(self, _) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def do_pop_mark(self, _) -> None:
        self.since_mark()

    def do_dup(self, _) -> None:
        self.stack.append(self.stack[-1])

    def do_memoize(self, _) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_empty_list(self, _) -> None:
        self.stack.append([])

    def do_empty_dict(self, _) -> None:
        self.stack.append({})

    def do_empty_set(self, _) -> None:
        self.stack.append(Opaque('set'))

    def do_tuple(self, _) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def do_list(self, _) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def do_dict(self, _) -> None:
        items = self.since_mark()
        self.stack.append(calls.filled({}, items))

    def do_frozenset(self, _) -> None:
        self.since_mark()
        self.stack.append(Opaque('frozenset'))

    def do_additems(self, _) -> None:
        self.since_mark()

    def do_append(self, _) -> None:
        value = self.pop()
        _appended(self.stack[-1], [value])

    def do_appends(self, _) -> None:
        items = self.since_mark()
        _appended(self.stack[-1], items)

    def do_setitem(self, _) -> None:
        value, key = self.pop(), self.pop()
        calls.filled(self.stack[-1], [key, value])

    def do_setitems(self, _) -> None:
        items = self.since_mark()
        calls.filled(self.stack[-1], items)

    def do_global(self, argument: str) -> None:
        self.stack.append(calls.named(argument.replace(' ', '.')))

    def do_stack_global(self, _) -> None:
        name, module = self.pop(), self.pop()
        # The length is checked before joining, because a pickle may join two long strings from its memo many times.
        if not all(isinstance(text, str) and len(text) <= calls.LONGEST_NAME for text in (module, name)):
            raise PickleError('a GLOBAL has no valid module and name')
        self.stack.append(calls.named(f'{module}.{name}'))

    def do_reduce(self, _) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(calls.called(function, arguments, self.count))

    def do_inst(self, argument: str) -> None:
        arguments = tuple(self.since_mark())
        self.stack.append(calls.called(calls.named(argument.replace(' ', '.')), arguments, self.count))

    def do_obj(self, _) -> None:
        function, *arguments = self.since_mark()
        self.stack.append(calls.called(function, tuple(arguments), self.count))

    def do_newobj(self, _) -> None:
        self.pop()
        self.stack.append(calls.instance(self.pop()))

    def do_newobj_ex(self, _) -> None:
        self.pop()
        self.do_newobj(_)

    def do_build(self, _) -> None:
        # The attributes of an object, such as the versions of a state dict, are dropped.
        self.pop()
        if not isinstance(self.stack[-1], (dict, Opaque, Tensor)):
            raise PickleError('it sets attributes of an object that has none')

    def do_persid(self, argument: str) -> None:
        raise PickleError(f'it refers to {argument!r} outside, which is no storage')

    def do_binpersid(self, _) -> None:
        reference = self.pop()
        if not isinstance(reference, tuple) or not reference:
            raise PickleError('it refers to something outside that is no storage')
        if reference[0] == 'module':
            self.stack.append(Opaque('torch.nn.Module'))
            return
        storage = calls.storage(reference)
        self.storages.setdefault(storage.key, storage)
        self.stack.append(storage)


def _appended(target, items):
    if not isinstance(target, (list, Opaque)):
        raise PickleError('it appends to an object that is no list')
    if isinstance(target, list):
        target.extend(items)
