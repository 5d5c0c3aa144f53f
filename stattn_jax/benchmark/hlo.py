"""Reads the text of a compiled program (HLO): its collectives, and the bytes that tiling adds to its arrays.

A TPU stores an array in tiles of, for example, 8 x 128 numbers (`{1,0:T(8,128)}` in the text), and fills the last tiles
of each row with zeros.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVE = re.compile(r' (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(')
# Type, sides, the axes from the fastest to the slowest, tiles, memory space (0 or none: the main memory).
_ARRAY = re.compile(
    r'\b(pred|[a-z]+\d+[a-z\d]*)\[([\d,]*)\](?:\{([\d,]*)(?::((?:T(?:\([\d,]+\))+)?)[^}]*?(?:S\((\d+)\))?[^}]*\})?)?'
)
_OPERATION = re.compile(r' +(?:ROOT )?(%?\S+) = (.*?) ([a-z][a-z\d-]*)\(')
_OPERAND = re.compile(r'%[\w.-]+')
# Their results are those of other operations.
_NOTHING_MOVED = ('tuple', 'get-tuple-element', 'bitcast', 'constant')


class Collective(NamedTuple):
    """A collective of a program: its kind, the bytes of its result, and the number of devices that take part in it.

    `devices` is None where the text does not say it.
    """

    kind: str
    bytes: int
    devices: int | None


class Tiled(NamedTuple):
    """Bytes of arrays: of their values, and with the padding of tiles."""

    values: int
    stored: int

    def plus(self, other: 'Tiled') -> 'Tiled':
        """Returns the bytes of both."""
        return Tiled(self.values + other.values, self.stored + other.stored)


class Memory(NamedTuple):
    """Bytes in main memory: those of a program's arguments, and those that its operations read and write."""

    arguments: Tiled
    read: Tiled
    written: Tiled

    @property
    def moved(self) -> int:
        """Returns all bytes read and written, with padding."""
        return self.read.stored + self.written.stored


def collectives(text: str) -> Iterator[Collective]:
    """Yields the collectives of a program; one in the body of a loop is yielded once.

    An asynchronous collective counts where it starts, without the operands that are part of the start's result.
    """
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if not match or ' = ' not in line[: match.start() + 1]:
            continue
        kind, start = match.groups()
        result = line[line.index(' = ') + 3 : match.start()]
        # The start of a gather or a permutation has the result (operands, results, ...).
        parts = _parts(result)
        if start and kind != 'all-reduce' and len(parts) > 1:
            result = parts[1]
        yield Collective(kind, sum(_values(array) for array in _ARRAY.finditer(result)), _group(line))


def totals(text: str) -> dict[str, tuple[int, int]]:
    """Returns the number of collectives of each kind in a program, and the bytes of their results."""
    found: dict[str, tuple[int, int]] = {}
    for collective in collectives(text):
        number, size = found.get(collective.kind, (0, 0))
        found[collective.kind] = (number + 1, size + collective.bytes)
    return found


def memory(text: str) -> Memory:
    """Returns the bytes that a program's operations read and write in main memory.

    Only the operations of the program's entry are read: within a fusion nothing is written, and the body of a loop is
    left out. An operation that needs a part of an array counts the whole.
    """
    arrays: dict[str, Tiled] = {}
    arguments = written = read = Tiled(0, 0)
    for line in _entry(text):
        match = _OPERATION.match(line)
        if not match:
            continue
        name, shape, operation = match.groups()
        # The start of a copy has the result (copy, original, ...).
        shape = _parts(shape)[0] if operation == 'copy-start' else shape
        arrays[name] = _in_main_memory(shape)
        if operation == 'parameter':
            arguments = arguments.plus(arrays[name])
        elif operation not in _NOTHING_MOVED and not operation.endswith('-done'):
            written = written.plus(arrays[name])
            for operand in _OPERAND.findall(line[match.end() :].split('), ')[0]):
                read = read.plus(arrays.get(operand, Tiled(0, 0)))
    return Memory(arguments, read, written)


def estimates(text: str) -> dict[str, int]:
    """Returns the cycles that the compiler of TPUs estimates for the operations of a program's entry.

    The keys are the names of the operations in the source (`op_name`), without those of transformations, and the shape
    of the first result. Operations without an estimate, such as collectives and copies, are left out.
    """
    found: dict[str, int] = {}
    for line in _entry(text):
        cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
        if cycles:
            name = re.search(r'op_name="([^"]*)"', line)
            words = re.sub(r'\b(?:jit|shard_map|transpose|jvp)\b|[()]|<\w+>', '', name[1] if name else 'no name')
            shape = re.search(r'\w+\[[\d,]*\]', line)
            key = f'{"/".join(filter(None, words.split("/")))} {shape[0]}'
            found[key] = found.get(key, 0) + int(cycles[1])
    return found


def _in_main_memory(shape: str) -> Tiled:
    arrays = [array for array in _ARRAY.finditer(shape) if array[5] in (None, '0')]
    return Tiled(sum(map(_values, arrays)), sum(map(_stored, arrays)))


def _entry(text: str) -> Iterator[str]:
    inside = False
    for line in text.splitlines():
        if line.startswith('ENTRY'):
            inside = True
        elif line.startswith('}'):
            inside = False
        elif inside:
            yield line


def _parts(shape: str) -> list[str]:
    """Returns the parts of a tuple's shape, or the shape itself."""
    if not shape.startswith('('):
        return [shape]
    parts, depth = [''], 0
    for letter in shape[1:-1]:
        depth += (letter in '({[') - (letter in ')}]')
        if letter == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _group(line: str) -> int | None:
    """Returns the number of devices in one group of a collective, None where it is not written as below.

    Two groups of two devices are {{0,1},{2,3}}, [2,2]<=[4], or mesh['x'=2,'y'=2] {'x'}.
    """
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]', line):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
        return match[1].count(',') + 1
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([\w',]+)\}", line):
        sides = dict(side.split('=') for side in match[1].split(','))
        return math.prod(int(sides[axis]) for axis in match[2].split(','))
    if match := re.search(r'source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}', line):
        return len(set(re.findall(r'\d+', match[1])))
    return None


def _bits(kind: str) -> int:
    return 8 if kind == 'pred' else int(re.search(r'\d+', kind)[0])


def _sides(array: re.Match) -> list[int]:
    return [int(side) for side in array[2].split(',') if side]


def _values(array: re.Match) -> int:
    return math.ceil(math.prod(_sides(array)) * _bits(array[1]) / 8)


def _stored(array: re.Match) -> int:
    """Returns the bytes of an array in its tiles; a second tile divides the first (openxla.org/xla/tiled_layout)."""
    sides = _sides(array)
    order = [int(axis) for axis in (array[3] or '').split(',') if axis]
    if sorted(order) == list(range(len(sides))):
        sides = [sides[axis] for axis in reversed(order)]
    for tile in re.findall(r'\(([\d,]+)\)', array[4] or ''):
        lengths = [int(length) for length in tile.split(',')]
        sides = [1] * (len(lengths) - len(sides)) + sides
        first = len(sides) - len(lengths)
        sides[first:] = [-(-side // length) for side, length in zip(sides[first:], lengths)] + lengths
    return math.ceil(math.prod(sides) * _bits(array[1]) / 8)
