"""Measures how the work of a training step grows with clip length, frame size, batch size and number of devices.

  python -m benchmarks.growth --config=configs/synthetic.py [--out=FILE.json]

The measures are counts, not seconds: products (benchmark/flops.py), bytes moved and temporary bytes of the compiled
step, each fitted by a line through the sizes tried, with the largest relative distance from it; frames count by their
area. Then the batch per device is fixed, and the number of simulated devices of one process grows, and after that the
number of processes with one device each: FLOPs, bytes and collectives of one device. The program always runs on CPU
devices, whatever the machine has. The processes run growth_processes.py.
"""

import copy
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags

from benchmarks import rounds
from stattn_jax import command
from stattn_jax.benchmark import flops, hlo, model
from stattn_jax.runtime import parallel

AXES = ('segments', 'sizes', 'batches')
COUNTS = ('products_flops', 'moved_bytes', 'temp_bytes')


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed; while one axis grows, the others stay at their first size."""
    values = flags.FlagValues()
    flags.DEFINE_list('segments', ['5', '10', '20'], 'Segments of a clip.', flag_values=values)
    flags.DEFINE_list('sizes', ['64', '96', '128'], 'Pixels of a side of a frame.', flag_values=values)
    flags.DEFINE_list('batches', ['8', '16', '32'], 'Clips a step, on one device.', flag_values=values)
    flags.DEFINE_list('devices', ['1', '2', '4'], 'Devices, each with the first batch.', flag_values=values)
    flags.DEFINE_list(
        'processes', ['2', '4'], 'Processes of one device, each with the first batch.', flag_values=values
    )
    flags.DEFINE_integer('classes', 28, 'Classes.', lower_bound=2, flag_values=values)
    flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=values)
    return values


def counts(
    config: ml_collections.ConfigDict,
    classes: int,
    segments: int,
    size: int,
    batch: int,
    kind: str = 'jit',
    devices: int = 1,
) -> dict[str, Any]:
    """Counts the work of a training step on the first `devices` devices; `batch` counts clips on all of them.

    products_flops: of all devices; flops, moved_bytes, temp_bytes and collectives ({kind: (number, bytes)}): of one
    device's program.
    """
    config = copy.deepcopy(config)
    config.data.frame_size = config.model.frame_size = size
    case = model.Case('train', kind, config.model.dtype, batch)
    strategy = parallel.make_strategy(kind, jax.devices()[:devices])
    strategy.check_batch(batch)
    made = model.build(config, model.Data(classes, segments, (96, 64)), case, strategy)
    costs, memory = made.compiled.program.cost_analysis(), made.compiled.program.memory_analysis()
    return {
        # The shapes hold the rows of one process only.
        'products_flops': flops.count(made.counted, *made.shapes) * jax.process_count(),
        'flops': costs['flops'],
        'moved_bytes': costs['bytes accessed'],
        'temp_bytes': memory.temp_size_in_bytes,
        'collectives': hlo.totals(made.compiled.program.as_text()),
    }


def fit(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Fits a least-squares line to the values: slope, intercept, largest relative distance of a value from it."""
    slope, intercept = np.polyfit(sizes, values, 1)
    residual = max(abs(intercept + slope * x - y) / y for x, y in zip(sizes, values, strict=True))
    return {'slope': float(slope), 'intercept': float(intercept), 'residual': float(residual)}


def grow(config: ml_collections.ConfigDict, classes: int, sizes: dict[str, list[int]]) -> dict[str, Any]:
    """Returns counts along each of AXES, the others at their first size, and the fitted lines; JSON types only."""
    first, cache, found = {axis: values[0] for axis, values in sizes.items()}, {}, {}
    for axis in AXES:
        rows = []
        for value in sizes[axis]:
            at = tuple((first | {axis: value})[name] for name in AXES)
            if at not in cache:
                cache[at] = counts(config, classes, *at)
            rows.append({axis: value} | {name: cache[at][name] for name in COUNTS})
        along = [value**2 if axis == 'sizes' else value for value in sizes[axis]]
        found[axis] = {'rows': rows, 'fits': {name: fit(along, [row[name] for row in rows]) for name in COUNTS}}
    return found


def spread_out(
    config: ml_collections.ConfigDict, classes: int, first: dict[str, int], devices: list[int], kinds: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns counts of one device's program for each strategy and each number of devices; JSON types only.

    Each device has the first batch size.
    """
    rows = []
    for kind in kinds:
        for number in devices:
            batch = number * first['batches']
            measured = counts(config, classes, first['segments'], first['sizes'], batch, kind, number)
            rows.append(_row(measured, kind, number, 1))
    return rows


def _row(measured, kind, devices, processes):
    # The products are those of all devices; each device does an equal share.
    each = {'products_flops': measured['products_flops'] / devices}
    return {'strategy': kind, 'devices': devices, 'processes': processes} | measured | each


def in_processes(
    config: ml_collections.ConfigDict, classes: int, first: dict[str, int], numbers: list[int]
) -> list[dict[str, Any]]:
    """Returns the counts of `spread_out` under jit, with each device in its own process."""
    rows = []
    for number in numbers:
        sizes = (classes, first['segments'], first['sizes'], number * first['batches'])
        rows.append(_row(_together(config, sizes, number), 'jit', number, number))
    return rows


def _together(config, sizes, number) -> dict[str, Any]:
    """Returns the counts of the first of `number` processes of growth_processes.py; raises RunError if one failed."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    command_line = [sys.executable, '-m', 'benchmarks.growth_processes']
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    started = [subprocess.Popen(command_line, text=True, **pipes) for _ in range(number)]
    request = {'config': config.to_dict(), 'sizes': sizes, 'coordinator': f'localhost:{port}', 'processes': number}
    # Every process gets its input before any is waited for, since they wait for each other.
    for i, process in enumerate(started):
        process.stdin.write(json.dumps(request | {'process': i}))
        process.stdin.close()
        process.stdin = None
    measured = [process.communicate() for process in started]
    for process, (_, wrong) in zip(started, measured, strict=True):
        if process.returncode:
            last = ''.join(wrong.strip().splitlines()[-1:])
            raise command.RunError(f'one of {number} processes failed (exit code {process.returncode}): {last}')
    # Only the last line, because Gloo prints to stdout too.
    return json.loads(measured[0][0].splitlines()[-1])


def lines(grown: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of both tables."""
    for axis, measured in grown.items():
        yield f'{axis:>8}  {"GFLOP":>10} {"moved MB":>10} {"temp MB":>10}'
        for row in measured['rows']:
            yield (
                f'{row[axis]:>8}  {row["products_flops"] / 1e9:>10.3f} {row["moved_bytes"] / 1e6:>10.1f} '
                f'{row["temp_bytes"] / 1e6:>10.1f}'
            )
        yield f'{"off line":>8}  ' + ' '.join(f'{measured["fits"][name]["residual"]:>10.2%}' for name in COUNTS)
    yield (
        f'{"strategy":>8} {"devices":>7} {"processes":>9}  {"GFLOP":>10} {"XLA GFLOP":>10} {"moved MB":>10} '
        f'{"temp MB":>10}  collectives'
    )
    for row in rows:
        text = (
            ', '.join(f'{number} {kind} ({size / 1e6:.3f} MB)' for kind, (number, size) in row['collectives'].items())
            or 'none'
        )
        yield (
            f'{row["strategy"]:>8} {row["devices"]:>7} {row["processes"]:>9}  {row["products_flops"] / 1e9:>10.3f} '
            f'{row["flops"] / 1e9:>10.3f} '
            f'{row["moved_bytes"] / 1e6:>10.1f} {row["temp_bytes"] / 1e6:>10.1f}  {text}'
        )


def main(argv: list[str] | None = None) -> int:
    """Parses flags, counts, prints tables, writes JSON, and returns the exit code."""
    return command.run(argv, __doc__, make_flags(), _main, config=command.ConfigFlag(), wrong_use=ValueError)


def _main(values: flags.FlagValues) -> int:
    sizes = {axis: _numbers(values, axis) for axis in AXES}
    devices, processes = _numbers(values, 'devices'), _numbers(values, 'processes')
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', max(devices))
    grown = grow(values.config, values.classes, sizes)
    first = {axis: found[0] for axis, found in sizes.items()}
    rows = spread_out(values.config, values.classes, first, devices, parallel.KINDS)
    rows += in_processes(values.config, values.classes, first, processes)
    print('\n'.join(lines(grown, rows)))
    rounds.write(values.out, {'config': values.config.to_dict(), 'growth': grown, 'devices': rows})
    return 0


def _numbers(values: flags.FlagValues, name: str) -> list[int]:
    given = values[name].value
    # Any two points lie on a line, so a fit needs three.
    least = 3 if name in AXES else 1
    try:
        numbers = [int(x) for x in given]
    except ValueError:
        numbers = []
    if len(set(numbers)) < least or min(numbers) < 1:
        default = ','.join(values[name].default)
        raise command.RunError(
            f'--{name}={",".join(given)}; expected at least {least} different whole numbers, such as {default}'
        )
    return numbers


if __name__ == '__main__':
    sys.exit(main())
