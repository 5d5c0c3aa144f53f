"""Checks that the host memory of a training run stays flat, by the resident set size at regular steps.

  python -m benchmarks.memory --config=configs/synthetic.py --data=DIR [--steps=2000] [--out=FILE.json]

The loop has the parts of train.py's (pipeline, prefetch, compiled step, late metrics), on the config with TOY's sizes,
which override the command line for these fields: a leak of the loop does not depend on them. Exit codes: 0 flat; 1 not
flat; 2 wrong use.
"""

import contextlib
import sys
from typing import Any

import jax
import ml_collections
import numpy as np
import psutil
from absl import flags

from benchmarks import rounds
from stattn_jax import assemble, command, evaluate, run, trunk_setup
from stattn_jax.data import pipeline, source
from stattn_jax.runtime import parallel

TOY = {
    'data': {'frame_size': 32, 'threads': 2},
    'model': {'frame_size': 32, 'visual': 'tiny', 'audio': 'tiny', 'width': 16, 'hidden': 8, 'dtype': 'float32'},
    'train': {'batch': 8},
}
# Largest relative distance of the memory from the middle of its range that counts as flat.
BAND = 0.02


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_string('data', None, 'A data set directory, of videos.', flag_values=values)
    flags.DEFINE_integer('steps', 2000, 'Steps.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('warmup', 200, 'Steps before memory is looked at.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('every', 50, 'Steps from one look to the next.', lower_bound=1, flag_values=values)
    flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=values)
    flags.mark_flag_as_required('data', values)
    return values


def watch(config: ml_collections.ConfigDict, steps: int, warmup: int, every: int) -> dict[int, int]:
    """Trains and reads the resident set size (bytes) every `every` steps after the warm-up: step -> bytes."""
    data = source.RecordSource(config.data.dir, config.data.split)
    facts = run.DataFacts.of(data.info)
    trunk_setup.check(config, facts.spec)
    strategy = run.make_strategy(config, config.train.batch)
    graphdef, state, optimiser, _ = run.make_state(config, facts, strategy.axis)
    binary = run.is_binary(config, facts)
    compiled = strategy.compile(assemble.make_step(config, graphdef, optimiser, binary=binary, axis=strategy.axis))
    state, found, pending, process = strategy.place_state(state), {}, [], psutil.Process()
    batches = pipeline.train_batches(
        data,
        global_batch=config.train.batch,
        seed=config.seed,
        threads=config.data.threads,
        frame_size=config.data.frame_size,
        fit=config.data.fit,
    )
    feed = parallel.prefetch(map(evaluate.device_part, batches), strategy.place_batch)
    with contextlib.closing(batches), contextlib.closing(feed):
        for number in range(1, steps + 1):
            state, metrics = compiled(state, next(feed))
            pending.append(metrics)
            if number % every == 0:
                jax.device_get(pending)
                pending = []
                if number > warmup:
                    found[number] = process.memory_info().rss
    return found


def flatness(found: dict[int, int]) -> dict[str, Any]:
    """Summarises memory sizes (step -> bytes): range, slope, and half the range divided by its middle.

    The slope is by least squares (bytes per thousand steps). `flat`: no size is further than BAND from the middle of
    the range.
    """
    steps, sizes = np.array(list(found)), np.array(list(found.values()), float)
    low, high = sizes.min(), sizes.max()
    slope = float(np.polyfit(steps, sizes, 1)[0]) if len(steps) > 1 else 0.0
    deviation = float((high - low) / (high + low))
    return {
        'least_bytes': int(low),
        'greatest_bytes': int(high),
        'slope_bytes_per_1000_steps': 1000 * slope,
        'deviation': deviation,
        'flat': deviation <= BAND,
    }


def main(argv: list[str] | None = None) -> int:
    """Parses flags, trains, prints, writes JSON, and returns the exit code."""
    return command.run(argv, __doc__, make_flags(), _main, config=command.ConfigFlag())


def _main(values: flags.FlagValues) -> int:
    config = ml_collections.ConfigDict(values.config.to_dict())
    for part, fields in TOY.items():
        config[part].update(fields)
    config.data.dir = values.data
    if values.steps < values.warmup + 2 * values.every:
        raise command.RunError(
            f'--steps={values.steps}: expected at least {values.warmup + 2 * values.every}, two looks after '
            f'--warmup={values.warmup}'
        )
    found = watch(config, values.steps, values.warmup, values.every)
    measured = flatness(found)
    print(
        f'{len(found)} looks after step {values.warmup} of {values.steps}: {measured["least_bytes"] / 1e6:.1f} to '
        f'{measured["greatest_bytes"] / 1e6:.1f} MB, '
        f'+-{measured["deviation"]:.2%} ({"flat" if measured["flat"] else "NOT flat"}: {BAND:.0%} are allowed), '
        f'slope {measured["slope_bytes_per_1000_steps"] / 1e6:+.2f} MB in 1000 steps'
    )
    rounds.write(values.out, {'config': config.to_dict(), 'resident_bytes': found, **measured})
    return 0 if measured['flat'] else 1


if __name__ == '__main__':
    sys.exit(main())
