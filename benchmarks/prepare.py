"""Benchmarks data_prep: against bare library calls, decoding only the needed frames, and with more processes.

  OMP_NUM_THREADS=1 python -m benchmarks.prepare --videos=8 [--workers=1,2] [--profile] [--out=FILE.json]

Makes short clips (H.264, AAC) of data_prep's scenes, with a keyframe every N frames for each N of --keyframes. `record`
is what a worker of data_prep does for a clip, from the file to serialized bytes; `bare` makes the same JPEGs and
log-mel with PyAV, simplejpeg and NumPy alone, decoding everything, and `bare_skip` decodes only the needed ones.
`whole`, `seek` and `skip` only decode (prepare_frames.py). OMP_NUM_THREADS: data_prep's workers have one thread for
BLAS.
"""

import cProfile
import functools
import itertools
import os
import pathlib
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags

from benchmarks import prepare_frames, rounds
from data_prep import cli, local, published, report, scenes, work
from stattn_jax.data import media, records, tfrecord

FLAGS = flags.FlagValues()
flags.DEFINE_integer('videos', 8, 'Videos to make.', lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer('seconds', 10, 'Length of each.', lower_bound=8, flag_values=FLAGS)
flags.DEFINE_integer('width', 320, 'Pixels; the height is three quarters of it.', lower_bound=64, flag_values=FLAGS)
flags.DEFINE_list('keyframes', ['25', '250'], 'Frames from one keyframe to the next.', flag_values=FLAGS)
flags.DEFINE_list('workers', ['1', '2'], 'Numbers of processes to compare.', flag_values=FLAGS)
flags.DEFINE_integer(
    'clips', 64, 'Clips that the processes make, of the same videos.', lower_bound=8, flag_values=FLAGS
)
flags.DEFINE_integer('rounds', 5, 'Rounds.', lower_bound=1, flag_values=FLAGS)
flags.DEFINE_bool('profile', False, "Print where a record's time goes.", flag_values=FLAGS)
flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=FLAGS)

FPS = 25
_SHARD_CLIPS = 2


def make_videos(
    folder: pathlib.Path, count: int, seconds: int, width: int, keyframes: list[int]
) -> dict[int, list[str]]:
    """Writes `count` scenes once for each keyframe distance; returns their names in `folder` by that distance."""
    names = {distance: [f'scene_{i}_{distance}.mp4' for i in range(count)] for distance in keyframes}
    height = width * 3 // 8 * 2
    for i in range(count):
        scene = scenes.make_scene('lopsided', seconds, (0, 0, i))
        top = (width - height) // 2
        frames = scenes.draw(scene, np.arange(seconds * FPS) / FPS, width)[:, top : top + height]
        for distance in keyframes:
            # write_video would leave the keyframes to the encoder. The quality is as low as that of videos on the web.
            quality = {'g': str(distance), 'sc_threshold': '0', 'crf': '28'}
            media.encode_video(folder / names[distance][i], frames, FPS, scenes.sound(scene), scenes.RATE, **quality)
    return names


def compare(folder: pathlib.Path, names: list[str], spec: media.ClipSpec, count: int) -> dict[str, Any]:
    """Returns milliseconds per clip of every variant, and their ratios, over all clips and rounds; JSON types only."""
    features = records.make_features(('scene',), spec)
    times = prepare_frames.centres(spec)

    def record(name):
        records.encode(published.make_record(str(folder), _job(0, name), spec), features)

    sides = {
        'record': record,
        'bare': lambda name: prepare_frames.bare(folder / name, spec),
        'bare_skip': lambda name: prepare_frames.bare_skip(folder / name, spec),
        'whole': lambda name: prepare_frames.whole(folder / name, times),
        'seek': lambda name: prepare_frames.seek(folder / name, times),
        'skip': lambda name: prepare_frames.skip(folder / name, times),
    }
    found = {name: [] for name in sides}
    # One untimed call, which reads or makes the filter bank.
    record(names[0])
    for name in names:
        timed = rounds.alternate({side: _timed(call, name) for side, call in sides.items()}, count)
        for side, values in timed.items():
            found[side] += values
    ratios = (('bare', 'record'), ('bare_skip', 'record'), ('whole', 'seek'), ('whole', 'skip'))
    return {
        'milliseconds': {side: rounds.spread([1e3 * x for x in values]) for side, values in found.items()},
        'ratios': {f'{upper}/{lower}': rounds.ratio(found[upper], found[lower]) for upper, lower in ratios},
    }


def _timed(call: Callable[[str], Any], name: str) -> Callable[[], float]:
    def timed():
        start = time.perf_counter()
        call(name)
        return time.perf_counter() - start

    return timed


def _job(number: int, name: str) -> work.Job:
    return work.Job(f'clip_{number}', 'train', (0,), video=name)


class _Ends:
    """Keeps the times at which clips were done, in place of a progress line."""

    def __init__(self):
        self.ends: list[float] = []

    def add(self, clips: int) -> None:
        self.ends += [time.perf_counter()] * clips


def rate(folder: pathlib.Path, names: list[str], spec: media.ClipSpec, workers: int, clips: int) -> float:
    """Returns clips per second of `workers` processes, from when each has finished a shard to the end.

    The start of the processes is therefore not counted.
    """
    jobs = [_job(i, name) for i, name in zip(range(clips), itertools.cycle(names))]
    count = -(-clips // _SHARD_CLIPS)
    shards = [
        work.Shard(tfrecord.shard_name('scenes', 'train', i, count), jobs[i * _SHARD_CLIPS : (i + 1) * _SHARD_CLIPS])
        for i in range(count)
    ]
    progress = _Ends()
    with tempfile.TemporaryDirectory(prefix='stattn-prepare-') as out:
        (pathlib.Path(out) / report.WORK_DIR).mkdir()
        maker = work.Maker(pathlib.Path(out), functools.partial(published.make_record, str(folder)), ('scene',), spec)
        local.run(maker, shards, progress, workers)
    begun = workers * _SHARD_CLIPS
    return (clips - begun) / (progress.ends[-1] - progress.ends[begun - 1])


def scaling(
    folder: pathlib.Path, names: list[str], spec: media.ClipSpec, workers: list[int], clips: int, count: int
) -> dict[str, Any]:
    """Returns clips per second of each number of processes, in rounds, and the ratio to the first number."""
    sides = {str(number): (lambda number=number: rate(folder, names, spec, number, clips)) for number in workers}
    found = rounds.alternate(sides, count)
    first = str(workers[0])
    return {
        'clips_per_second': {name: rounds.spread(values) for name, values in found.items()},
        'ratios': {f'{name}/{first}': rounds.ratio(found[name], found[first]) for name in found if name != first},
    }


def profile(folder: pathlib.Path, names: list[str], spec: media.ClipSpec) -> None:
    """Prints the functions that take most time when records are made."""
    profiler, features = cProfile.Profile(), records.make_features(('scene',), spec)

    def work_through():
        for name in names:
            records.encode(published.make_record(str(folder), _job(0, name), spec), features)

    profiler.runcall(work_through)
    pstats.Stats(profiler).sort_stats('tottime').print_stats(15)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yields the results as lines of text."""
    for distance, sides in found['clips'].items():
        yield f'a keyframe every {distance} frames'
        for name, spread in sides['milliseconds'].items():
            yield f'{name:>16}  {rounds.shown(spread, ".1f")} ms a clip'
        for name, spread in sides['ratios'].items():
            yield f'{name:>16}  {rounds.shown(spread)}'
    for name, spread in found['workers']['clips_per_second'].items():
        yield f'{name} processes: {rounds.shown(spread, ".1f")} clips/s'
    for name, spread in found['workers']['ratios'].items():
        yield f'{name:>16}  {rounds.shown(spread)}'


def main(_: list[str]) -> None:
    keyframes, workers = _numbers('keyframes'), _numbers('workers')
    spec = media.ClipSpec(segments=FLAGS.seconds)
    with tempfile.TemporaryDirectory(prefix='stattn-videos-') as made:
        folder = pathlib.Path(made)
        names = make_videos(folder, FLAGS.videos, FLAGS.seconds, FLAGS.width, keyframes)
        found = {
            'videos': {
                'count': FLAGS.videos, 'seconds': FLAGS.seconds, 'width': FLAGS.width, 'fps': FPS,
                'bytes': {str(n): sum((folder / name).stat().st_size for name in names[n]) for n in keyframes},
            },
            'blas_threads': os.environ.get('OMP_NUM_THREADS'),
            'rounds': FLAGS.rounds,
            'clips': {str(n): compare(folder, names[n], spec, FLAGS.rounds) for n in keyframes},
            'workers': scaling(folder, names[keyframes[-1]], spec, workers, FLAGS.clips, FLAGS.rounds),
        }  # fmt: skip
        print('\n'.join(lines(found)))
        if FLAGS.profile:
            profile(folder, names[keyframes[-1]], spec)
    rounds.write(FLAGS.out, found)


def _numbers(name: str) -> list[int]:
    try:
        numbers = [int(x) for x in FLAGS[name].value]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise cli.UsageError(
            f'--{name}={",".join(FLAGS[name].value)}; expected whole numbers of 1 or more, such as '
            f'{FLAGS[name].default}'
        )
    return numbers


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
