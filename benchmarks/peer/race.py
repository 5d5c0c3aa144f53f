"""Times the JAX and PyTorch versions in alternating rounds of one process: seconds per call, their ratio, memory.

Every side holds the same weights and the same random batch, which lies on the device. A round is some calls of one side
in a row, with a wait for the device at its end. Bytes: for JAX the memory that XLA reports for the program, for PyTorch
the peak that it allocated.
"""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import torch

from benchmarks import rounds
from benchmarks.peer import compare, network, step, weights
from stattn_jax import assemble
from stattn_jax.benchmark import model
from stattn_jax.runtime import parallel

# Seconds to wait before a round: PyTorch's OpenMP threads keep spinning while they wait for more work, which would slow
# down the next side.
_SETTLE = 0.1


class Side(NamedTuple):
    """One version to time.

    call: the call; wait: waits for the result of the call; first_seconds: until the first call was done; bytes: on the
    device, if known.
    """

    call: Callable[[], Any]
    wait: Callable[[Any], Any]
    first_seconds: float
    bytes: int | None


class Plan(NamedTuple):
    """How to time: the number of alternating rounds, calls in each, and untimed calls before."""

    rounds: int
    calls: int
    warmup: int


def threads_of_xla() -> int:
    """Number of threads of XLA's CPU backend: $NPROC, or the processors that this process may use."""
    return int(os.environ.get('NPROC') or len(os.sched_getaffinity(0)))


def our_side(config: ml_collections.ConfigDict, data: model.Data, mode: str, batch: int) -> Side:
    """Returns the JAX version, compiled, on one device."""
    strategy = parallel.make_strategy('jit', jax.devices()[:1])
    made = model.build(config, data, model.Case(mode, 'jit', config.model.dtype, batch), strategy)
    memory = made.compiled.program.memory_analysis()
    held = memory and (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return Side(lambda: made.advance(made.batch), jax.block_until_ready, made.seconds, held)


def their_side(
    config: ml_collections.ConfigDict,
    data: model.Data,
    mode: str,
    batch: int,
    *,
    device: str,
    channels_last: bool,
    compiled: bool,
) -> Side:
    """Returns the PyTorch version, eager or by torch.compile.

    The bytes are PyTorch's own peak over a call, on CUDA only.
    """
    cuda = device == 'cuda'
    before = torch.cuda.memory_allocated() if cuda else 0
    torch.manual_seed(config.seed)
    peer = network.build(config, data.classes, channels_last=channels_last).to(device)
    weights.copy(assemble.make_state(config, compare.shape_of(config, data), None)[1], peer)
    placed = step.place(model.made_batch(config, data, batch), device)
    advance = (step.Trainer if mode == 'train' else step.make_forward)(peer, config, compiled=compiled)

    def call():
        return advance(placed)

    def wait(_):
        if cuda:
            torch.cuda.synchronize()

    start = time.perf_counter()
    wait(call())
    first = time.perf_counter() - start
    if not cuda:
        return Side(call, wait, first, None)
    torch.cuda.reset_peak_memory_stats()
    wait(call())
    return Side(call, wait, first, torch.cuda.max_memory_allocated() - before)


def run(sides: dict[str, Side], plan: Plan) -> dict[str, list[float]]:
    """Returns seconds per call of each side in each round."""
    for side in sides.values():
        for _ in range(plan.warmup):
            side.wait(side.call())

    def timed(side):
        def seconds():
            time.sleep(_SETTLE)
            start = time.perf_counter()
            for _ in range(plan.calls):
                result = side.call()
            side.wait(result)
            return (time.perf_counter() - start) / plan.calls

        return seconds

    return rounds.alternate({name: timed(side) for name, side in sides.items()}, plan.rounds)


def row(mode: str, batch: int, sides: dict[str, Side], seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns the timings as JSON types: seconds of every side, and for every peer the ratio ours/theirs by round."""
    content = {
        name: {
            'seconds': quartiles(seconds[name]),
            'clips_per_second': batch / float(np.median(seconds[name])),
            'first_seconds': side.first_seconds,
            'bytes': side.bytes,
        }
        for name, side in sides.items()
    }
    peers = [name for name in seconds if name != 'ours'] if 'ours' in seconds else []
    ratios = {name: quartiles(np.divide(seconds['ours'], seconds[name])) for name in peers}
    return {'mode': mode, 'batch': batch, 'sides': content, 'ratios': ratios}


def quartiles(values) -> dict[str, float]:
    """Returns the median, the lower and upper quartile, and the minimum."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {'median': float(median), 'low': float(low), 'high': float(high), 'least': float(np.min(values))}


def lines(row: dict[str, Any]) -> list[str]:
    """Returns the timings as text, one line per side."""
    shown = []
    for name, side in row['sides'].items():
        ms = {key: value * 1e3 for key, value in side['seconds'].items()}
        line = (
            f'{row["mode"]:8}{name:10}{ms["median"]:10.2f} ms  ({ms["low"]:.2f}..{ms["high"]:.2f})'
            f'  {side["clips_per_second"]:9.1f} clips/s  first call {side["first_seconds"]:.1f} s'
        )
        if side['bytes'] is not None:
            line += f'  {side["bytes"] / 1e6:.0f} MB'
        if name in row['ratios']:
            ratio = row['ratios'][name]
            line += f'  ours/theirs {ratio["median"]:.3f} ({ratio["low"]:.3f}..{ratio["high"]:.3f})'
        shown.append(line)
    return shown
