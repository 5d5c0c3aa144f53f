"""Benchmarks the input pipeline, from records to batches on the device, against JPEG decoding alone and tf.data.

  python -m benchmarks.input --data=DIR [--batch=16 --threads=2 --frame_size=224 --seconds=2 --tf] [--out=FILE.json]
  python -m benchmarks.input --records=200000 [--out=FILE.json]

The variants run in alternating rounds of one run, with the records in the page cache. `pipeline` is what training
reads, placed on the device; `decode` is simplejpeg on the JPEGs of the same clips, held in memory, with the same number
of threads; `arrays` adds the resizing, as in pipeline.clip_arrays; `tfdata` (--tf, needs TensorFlow) is input_tf.py and
reads the same shards. --records instead makes this many tiny records and times opening them (input_many.py).
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np
import simplejpeg
from absl import flags

from benchmarks import input_many, input_tf, rounds
from data_prep import cli
from stattn_jax import evaluate
from stattn_jax.data import features, pipeline, records, source
from stattn_jax.runtime import parallel

FLAGS = flags.FlagValues()
flags.DEFINE_string('data', None, 'A data set directory, of videos.', flag_values=FLAGS)
flags.DEFINE_string('split', 'train', 'Its split.', flag_values=FLAGS)
flags.DEFINE_integer('batch', 16, 'Clips a batch.', lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer('threads', os.cpu_count(), 'Threads of each side.', lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer('frame_size', 224, 'Pixels of the square frame.', lower_bound=8, flag_values=FLAGS)
flags.DEFINE_enum('fit', 'squash', pipeline.FITS, 'How a frame becomes a square.', flag_values=FLAGS)
flags.DEFINE_float('seconds', 2.0, 'Of each side in each round, about.', lower_bound=0, flag_values=FLAGS)
flags.DEFINE_integer('rounds', 7, 'Rounds.', lower_bound=1, flag_values=FLAGS)
flags.DEFINE_bool('tf', False, 'Compare with tf.data too.', flag_values=FLAGS)
flags.DEFINE_integer(
    'records', None, 'Make so many tiny records and time opening them.', lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=FLAGS)

# Batches that are read before timing starts, so that the buffers are full.
_WARMUP = 3
# Seconds to wait after closing Grain, whose threads still finish some clips and would disturb the next measurement.
_SETTLE = 0.2
# Batches on either side of the end of an epoch; the nearest _NEAR of each side are compared with the others.
_HALF, _NEAR = 12, 3


@dataclasses.dataclass(frozen=True)
class Setting:
    """The data to read and the options of reading."""

    data: str
    split: str
    batch: int
    threads: int
    frame_size: int
    fit: str

    def open(self, start: int = 0):
        """Returns the training batches from step `start` on; the caller closes them."""
        return pipeline.train_batches(
            source.RecordSource(self.data, self.split),
            global_batch=self.batch,
            seed=0,
            start_step=start,
            threads=self.threads,
            frame_size=self.frame_size,
            fit=self.fit,
        )


@dataclasses.dataclass(frozen=True)
class Reading:
    """Timings of reading some batches, and their clips.

    first: seconds to the first batch; gaps: seconds between batches after the warm-up; numbers: the clips [b] of each
    of these batches.
    """

    first: float
    gaps: np.ndarray
    numbers: list[np.ndarray]

    def rate(self, batch: int) -> float:
        """Returns clips per second."""
        return batch * len(self.gaps) / self.gaps.sum()


def read(setting: Setting, place: Callable[[Any], Any], steps: int, start: int = 0, warmup: int = _WARMUP) -> Reading:
    """Opens the records at step `start` and reads `warmup` and then `steps` batches onto the device."""
    numbers = []

    def device_part(batch):
        numbers.append(batch['index'])
        return evaluate.device_part(batch)

    begun = time.perf_counter()
    with contextlib.closing(setting.open(start)) as batches:
        first, gaps = clock(map(device_part, batches), place, begun, steps, warmup)
    time.sleep(_SETTLE)
    return Reading(first, gaps, numbers[warmup : warmup + steps])


def clock(
    batches: Iterator, place: Callable, begun: float, steps: int, warmup: int = _WARMUP
) -> tuple[float, np.ndarray]:
    """Returns seconds from `begun` to the first batch on the device, and between `steps` batches after the warm-up."""
    with contextlib.closing(parallel.prefetch(batches, place)) as feed:
        ends = []
        for _ in range(warmup + steps):
            jax.block_until_ready(next(feed))
            ends.append(time.perf_counter())
    return ends[0] - begun, np.diff(ends[warmup - 1 :])


def decode(clips: list[list[bytes]], frame_size: int, pool: futures.Executor) -> float:
    """Returns the seconds to decode the JPEGs of some clips at the size that the pipeline needs."""

    def work(jpegs):
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, min_height=frame_size, min_width=frame_size)

    return _seconds(work, clips, pool)


def arrays(clips: list[records.ClipRecord], setting: Setting, pool: futures.Executor) -> float:
    """Returns the seconds to make arrays of some clips: decoding and resizing."""
    return _seconds(lambda record: pipeline.clip_arrays(record, setting.frame_size, setting.fit), clips, pool)


def _seconds(work: Callable, items: list, pool: futures.Executor) -> float:
    start = time.perf_counter()
    for _ in pool.map(work, items):
        pass
    return time.perf_counter() - start


def measure(setting: Setting, *, seconds: float, count: int, with_tf: bool) -> dict[str, Any]:
    """Compares the variants in `count` rounds; JSON types only. Raises UsageError for data without frames."""
    if with_tf:
        input_tf.check()
    data = source.RecordSource(setting.data, setting.split)
    if isinstance(data.info.spec, features.FeatureSpec):
        raise cli.UsageError(f'--data={setting.data} holds features, nothing to decode; give a data set of videos')
    place = parallel.make_strategy('jit', jax.local_devices()[:1]).place_batch
    rate = read(setting, place, 4).rate(setting.batch)
    steps = max(4, round(seconds * rate / setting.batch))
    # Every round reads the same steps, so that the other variants use the same clips, held in memory.
    held = [data[int(number)] for number in np.concatenate(read(setting, place, steps).numbers)]
    jpegs = [record.clip.frames for record in held]
    firsts = {'pipeline': []}

    def ours():
        reading = read(setting, place, steps)
        firsts['pipeline'].append(reading.first)
        return reading.rate(setting.batch)

    with futures.ThreadPoolExecutor(setting.threads) as pool:
        sides = {
            'pipeline': ours,
            'decode': lambda: len(jpegs) / decode(jpegs, setting.frame_size, pool),
            'arrays': lambda: len(held) / arrays(held, setting, pool),
        }
        if with_tf:
            sides['tfdata'], firsts['tfdata'] = _tf_side(setting, data.info, place, steps)
        rates = rounds.alternate(sides, count)
    return {
        'setting': dataclasses.asdict(setting),
        'clips_a_round': len(held),
        'rounds': count,
        'clips_per_second': {name: rounds.spread(values) for name, values in rates.items()},
        'ratios': {
            f'pipeline/{name}': rounds.ratio(rates['pipeline'], rates[name]) for name in rates if name != 'pipeline'
        },
        'first_batch_seconds': {name: rounds.spread(values) for name, values in firsts.items()},
        'epoch_end': epoch_end(setting, place, len(data), count),
    }  # fmt: skip


def _tf_side(setting: Setting, info: source.DatasetInfo, place, steps: int) -> tuple[Callable[[], float], list[float]]:
    """Returns the timing function of tf.data, and the list to which it appends its seconds to the first batch."""
    firsts = []

    def side():
        begun = time.perf_counter()
        batches = input_tf.batches(setting, info)
        first, gaps = clock(map(evaluate.device_part, batches), place, begun, steps)
        firsts.append(first)
        return setting.batch * steps / gaps.sum()

    return side, firsts


def epoch_end(setting: Setting, place: Callable, clips: int, count: int) -> dict[str, Any]:
    """Returns the longest wait (s) for a batch near the end of an epoch of `clips` clips, and further from it.

    The latter covers the batches before and after, of which there are more than near the end.
    """
    end = -(-_HALF * setting.batch // clips) * clips // setting.batch
    near, elsewhere = [], []
    for _ in range(count):
        gaps = read(setting, place, 2 * _HALF, start=end - _HALF, warmup=1).gaps
        around = np.zeros(len(gaps), bool)
        around[_HALF - 1 - _NEAR : _HALF - 1 + _NEAR] = True
        near.append(gaps[around].max())
        elsewhere.append(gaps[~around].max())
    return {
        'longest_near_seconds': rounds.spread(near),
        'longest_elsewhere_seconds': rounds.spread(elsewhere),
        'ratio': rounds.ratio(near, elsewhere),
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yields the result of `measure` as lines of text."""
    for name, spread in found['clips_per_second'].items():
        yield f'{name:>10}  {rounds.shown(spread, ".1f")} clips/s'
    for name, spread in found['ratios'].items():
        yield f'{name:>18}  {rounds.shown(spread)}'
    for name, spread in found['first_batch_seconds'].items():
        yield f'first batch, {name}: {rounds.shown(spread, ".3f")} s'
    end = found['epoch_end']
    yield (
        f'longest wait for a batch: {rounds.shown(end["longest_near_seconds"], ".3f")} s at the end of an epoch, '
        f'{rounds.shown(end["longest_elsewhere_seconds"], ".3f")} s before and after it, ratio '
        f'{rounds.shown(end["ratio"])}'
    )


def main(_: list[str]) -> None:
    if FLAGS.records:
        found = input_many.measure(FLAGS.records, FLAGS.batch, FLAGS.threads, FLAGS.rounds)
        print('\n'.join(input_many.lines(found)))
    else:
        if not FLAGS.data:
            raise cli.UsageError(
                '--data is missing; give --data=DIR, a directory that data_prep made, or --records=200000'
            )
        setting = Setting(FLAGS.data, FLAGS.split, FLAGS.batch, FLAGS.threads, FLAGS.frame_size, FLAGS.fit)
        found = measure(setting, seconds=FLAGS.seconds, count=FLAGS.rounds, with_tf=FLAGS.tf)
        print('\n'.join(lines(found)))
    rounds.write(FLAGS.out, found)


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
