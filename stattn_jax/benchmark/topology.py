"""Compiles a config's programs for TPUs or GPUs that are only described, and counts their work; nothing is run.

libtpu (the extra `tpu`) holds the compiler of TPUs, JAX's CUDA plugin (`cuda12`, `cuda13`) that of GPUs. The counts are
memory by kind, products, bytes moved and collectives; with cost_model.py they give the least time of a step.
"""

import copy
import dataclasses
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
from jax.experimental import topologies

from stattn_jax.benchmark import cost_model, flops, gpu_target, hlo, model
from stattn_jax.models import layers
from stattn_jax.runtime import parallel, perf

# Names of the cloud's accelerator types, which count cores on v4 and v5p (two a chip) and chips otherwise.
_TYPE = re.compile(r'(v5e|v5litepod|v6e|v4|v5p|a100|h100)-(\d+)')
_SLICE = re.compile(r'(v5e|v5litepod|v6e|v4|v5p):(\d+(?:x\d+)+)')
EXAMPLES = 'v5e-1, v5e-4 (v5e:2x2), v5e-8, v5e-256 (v5e:16x16), v6e-8, v4-8 (v4:2x2x1), v5p-8, a100-8, h100-8'
# libtpu asks a server of the cloud for the machine it runs on, unless these are set.
_ENVIRONMENT = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'}
_BINARY = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def parse(name: str) -> cost_model.Slice:
    """Returns the slice of a name such as 'v5e-4', 'v5e:2x2' or 'v5p:2x2x1'; raises ValueError for another."""
    if match := _TYPE.fullmatch(name):
        chip, count = _chip(match[1]), int(match[2])
        chips = count // 2 if cost_model.CHIPS[chip].axes == 3 else count
        hosts = cost_model.CHIPS[chip].cores
        within = {1: chips in hosts, 2: True, 3: chips >= cost_model.HOST}[cost_model.CHIPS[chip].axes]
        if within and chips > 0 and chips & (chips - 1) == 0:
            return cost_model.grown(chip, chips)
    elif match := _SLICE.fullmatch(name):
        chip, sides = _chip(match[1]), tuple(int(side) for side in match[2].split('x'))
        if len(sides) == cost_model.CHIPS[chip].axes and min(sides) > 0:
            return cost_model.Slice(chip, sides)
    raise ValueError(
        f'--topology={name}; expected a type of TPU or GPU and a number, or the sides of a TPU slice: {EXAMPLES}'
    )


def _chip(name: str) -> str:
    return 'v5e' if name == 'v5litepod' else name


def devices(where: cost_model.Slice) -> list[Any]:
    """Returns the described devices of a slice; raises ValueError, in one line, where the compiler is missing."""
    return (_gpus if cost_model.CHIPS[where.chip].axes == 1 else _tpus)(where)


def _tpus(where: cost_model.Slice) -> list[Any]:
    _require('libtpu', 'TPUs, libtpu', 'tpu')
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {}
    if where.chips == where.host_chips and cost_model.CHIPS[where.chip].axes == 2:
        options['chips_per_host_bounds'] = [*where.sides, 1]
    if where.chip == 'v4':
        # Otherwise each of a chip's two cores is a device, which Cloud TPUs do not offer.
        options['chip_config_name'] = 'megacore'
    name = f'{where.chip}:{"x".join(map(str, where.sides))}'
    try:
        return list(topologies.get_topology_desc(topology_name=name, platform='tpu', **options).devices)
    except jax.errors.JaxRuntimeError as error:
        if 'lockfile' in str(error):
            raise ValueError(
                'another process holds libtpu; wait for its end, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1'
            ) from None
        raise ValueError(f'--topology={name}: {error}; known are {EXAMPLES}') from None


def _gpus(where: cost_model.Slice) -> list[Any]:
    _require('jax_plugins', "GPUs, JAX's CUDA plugin", 'cuda12')
    chip = cost_model.CHIPS[where.chip]
    text = gpu_target.description(chip.kind, chip.hbm_bytes, perf.PEAKS[chip.kind][1])
    # One process on one host with so many cards.
    options = {'topology_name': 'host', 'topology': f'1x1x{where.chips}', 'target_config': text}
    try:
        return list(topologies.get_topology_desc(platform='cuda', **options).devices)
    except NotImplementedError:
        raise ValueError('--topology: this JAX does not compile for GPUs that are not there; use jax 0.10.2') from None


def _require(package: str, compiler: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f'--topology needs the compiler of {compiler}, which is not installed; '
            f'pip install "stattn-jax[{extra}]" (or ".[{extra}]" in a checkout)'
        )


def measure(
    config: ml_collections.ConfigDict, data: model.Data, case: model.Case, where: cost_model.Slice, effort: float = 0.0
) -> dict[str, Any]:
    """Compiles a case for a slice and counts its work; returns the counts in JSON types, all of one chip.

    effort: XLA's exec_time_optimization_effort, from -1 to 1. With -1 the compiler takes a tenth of the time, but
      hardly uses the fast memory of a TPU: memory and bytes are then upper limits (docs/benchmarks.md).

    Where the program does not fit, the row has `fits` False and the compiler's message. Raises ValueError for a
    batch that does not split over the chips.
    """
    strategy = parallel.make_strategy(case.strategy, devices(where))
    strategy.check_batch(case.batch)
    config = copy.deepcopy(config)
    if config.model.layers == layers.AUTO:
        # By default the layers have the form of the platform that compiles.
        config.model.layers = layers.form_of_platform(strategy.devices[0].platform)
    made = model.prepare(config, data, case, strategy, 1, abstract=True)
    arguments = strategy.abstract(made.state), strategy.abstract_batch(made.rows, case.batch)
    row = dataclasses.asdict(case) | {
        'chip': where.chip,
        'sides': list(where.sides),
        'chips': where.chips,
        'layers': config.model.layers,
        'effort': effort,
        'device_kind': strategy.devices[0].device_kind,
    }
    start = time.perf_counter()
    lowered = made.compiled.lower(*arguments)
    begun = time.perf_counter()
    row['lower_seconds'] = begun - start
    try:
        program = lowered.compile(compiler_options={'exec_time_optimization_effort': effort} if effort else None)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return row | {'fits': False, 'compile_seconds': time.perf_counter() - begun, **_refusal(str(error))}
    row['compile_seconds'] = time.perf_counter() - begun
    products = flops.count(made.counted, made.plain_state, _whole(made.rows, case.batch)) / where.chips
    row |= counts(program, where, products)
    row['fits'] = row['used_bytes'] <= row['hbm_bytes']
    if not row['fits']:
        row['refusal'] = f'{row["used_bytes"] / 2**30:.2f} of {row["hbm_bytes"] / 2**30:.2f} GiB'
    return row


def _whole(rows, batch):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), rows)


def _refusal(text: str) -> dict[str, Any]:
    """Returns the line in which the compiler says that memory does not suffice, and the bytes that it names."""
    line = next((line for line in text.splitlines() if 'xceed' in line), text.splitlines()[0])
    sizes = [float(size) * _BINARY[unit] for size, unit in re.findall(r'\b(\d+(?:\.\d+)?)([KMGT]?)\b', line)]
    return {'refusal': line.strip()} | ({'used_bytes': sizes[0]} if sizes else {})


def counts(program: Any, where: cost_model.Slice, products: float) -> dict[str, Any]:
    """Returns the counts of a compiled program and its floors on a slice, in JSON types; `products` are one chip's."""
    found = model.analysis(program)
    text = program.as_text()
    moved, collectives = hlo.memory(text), list(hlo.collectives(text))
    work = cost_model.Work(products, moved.moved, tuple(collectives))
    floor = cost_model.floors(work, where)
    used = sum(found[f'{name}_bytes'] for name in ('argument', 'output', 'temp', 'generated_code'))
    return {
        **{name: value for name, value in found.items() if name != 'moved_bytes'},
        'used_bytes': used - found['alias_bytes'],
        'hbm_bytes': cost_model.CHIPS[where.chip].hbm_bytes,
        'products_flops': products,
        'xla_flops': (program.cost_analysis() or {}).get('flops'),
        'xla_moved_bytes': found['moved_bytes'],
        'moved_bytes': moved.moved,
        'padding': {'arguments': _padding(moved.arguments), 'moved': _padding(moved.read.plus(moved.written))},
        'collectives': [collective._asdict() for collective in collectives],
        'estimated_cycles': hlo.estimates(text),
        **{f'{name}_seconds': value for name, value in floor.items()},
        'step_seconds': cost_model.step_seconds(floor),
        'binding': cost_model.binding(floor),
    }


def _padding(size: hlo.Tiled) -> float:
    """Returns the share of padding in the stored bytes."""
    return 1 - size.values / size.stored if size.stored else 0.0


def work_of(row: dict[str, Any]) -> cost_model.Work:
    """Returns the work of a chip from a row of `measure`."""
    collectives = tuple(hlo.Collective(**collective) for collective in row['collectives'])
    return cost_model.Work(row['products_flops'], row['moved_bytes'], collectives)


def largest_batch(
    config: ml_collections.ConfigDict, data: model.Data, case: model.Case, where: cost_model.Slice, effort: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Yields the rows of `measure` of each batch that the search for the largest one tries, and at last of that one.

    The search begins with the case's batch; it is exact to a twentieth. Batches are multiples of the chips.
    """
    search = cost_model.Search(max(1, case.batch // where.chips))
    best = None
    while search.candidate is not None:
        row = measure(config, data, dataclasses.replace(case, batch=search.candidate * where.chips), where, effort)
        search.record(row['fits'])
        best = row if row['fits'] else best
        yield row
    if best:
        yield best | {'largest': True}


def lines(row: dict[str, Any]) -> Iterator[str]:
    """Yields a description of a row of `measure` in words."""
    name = f'{row["chip"]}:{"x".join(map(str, row["sides"]))}'
    yield (
        f'{name} ({row["chips"]} x {row["device_kind"]}), {row["mode"]}, {row["strategy"]}, {row["dtype"]}, '
        f'{row["batch"]} clips: lowered in {row["lower_seconds"]:.0f} s, compiled in {row["compile_seconds"]:.0f} s'
    )
    if not row['fits']:
        yield f'  does not fit: {row["refusal"]}'
        return
    sizes = ', '.join(
        f'{word} {row[f"{kind}_bytes"] / 2**20:.0f}'
        for kind, word in (
            ('argument', 'arguments'), ('temp', 'temporaries'), ('output', 'outputs'), ('alias', 'of these in place'),
            ('generated_code', 'program'),
        )
    )  # fmt: skip
    yield (
        f'  fits: {row["used_bytes"] / 2**20:.0f} of {row["hbm_bytes"] / 2**20:.0f} MiB of each chip ({sizes}); '
        f'padding {row["padding"]["arguments"]:.1%} of the arguments, {row["padding"]["moved"]:.1%} of the bytes moved'
    )
    yield (
        f'  each chip: {row["products_flops"] / 1e9:.1f} GFLOP in products, {row["moved_bytes"] / 1e9:.2f} GB moved'
        + (
            f' (XLA counts {row["xla_flops"] / 1e9:.1f} GFLOP and {row["xla_moved_bytes"] / 1e9:.2f} GB)'
            if row['xla_flops']
            else ''
        )
    )
    yield from _estimate_lines(row['estimated_cycles'])
    for kind, (number, size, largest) in sorted(_by_kind(row['collectives']).items()):
        yield f'  {number} {kind}: {size / 1e6:.3f} MB, the largest {largest / 1e6:.3f} MB'
    if row['effort'] < 0:
        yield f'  at effort {row["effort"]:g}, memory and bytes are upper limits'
    floors = ', '.join(f'{kind} {row[f"{kind}_seconds"] * 1e3:.3f} ms' for kind in cost_model.RESOURCES)
    yield (
        f'  floors: {floors}; {row["binding"]} binds: at least {row["step_seconds"] * 1e3:.3f} ms, '
        f'at most {row["batch"] / row["step_seconds"]:.0f} clips/s'
    )


def _estimate_lines(cycles: dict[str, int]) -> Iterator[str]:
    if cycles:
        total = sum(cycles.values())
        most = sorted(cycles.items(), key=lambda item: -item[1])[:3]
        shares = ', '.join(f'{name} ({number / total:.0%})' for name, number in most)
        yield f'  the compiler estimates {total / 1e6:.1f} million cycles, most of them for {shares}'


def _by_kind(collectives: list[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    for collective in collectives:
        number, size, largest = found.get(collective['kind'], (0, 0, 0))
        size += collective['bytes']
        found[collective['kind']] = (number + 1, size, max(largest, collective['bytes']))
    return found


def plan_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a table of `cost_model.plan`."""
    heads = ('chips', 'sides', 'batch', 'compute ms', 'memory ms', 'links ms', 'clips/s', 'even at', 'cores/chip')
    yield '  '.join(f'{head:>10}' for head in (*heads, 'binding'))
    for row in rows:
        cells = (
            row['chips'],
            'x'.join(map(str, row['sides'])),
            row['global_batch'],
            *(f'{row[f"{name}_seconds"] * 1e3:.3f}' for name in cost_model.RESOURCES),
            f'{row["clips_per_second"]:.0f}',
            f'{math.ceil(row["balance_clips"])}',
            f'{row["cores_needed"]:.1f}/{row["cores"]:.0f}',
            row['binding'],
        )
        yield '  '.join(f'{cell:>10}' for cell in cells)
