"""Measures how many clips one core reads in a second, by the size and quality of stored frames, squares or features.

  python -m benchmarks.storage --video=clip.mp4 [--frame_size=224 --step_clips=1000] [--out=FILE.json]

A clip of the video is stored in each way; its record is then parsed and made into arrays again and again, as the input
pipeline does. The measure is CPU time, which other programs disturb little. The error of frames is the root mean square
difference of the arrays' pixels (0..255) from those of the same frames at quality 100. Nothing is enlarged when it is
stored. With --step_clips, the clips that one chip takes in a second (`stattn_jax.benchmark --topology`), the cores that
feed a chip are printed too.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from benchmarks import rounds
from data_prep import cli
from stattn_jax.data import extracted, media, pipeline, records

FLAGS = flags.FlagValues()
flags.DEFINE_string('video', None, 'A video file of at least ten seconds.', flag_values=FLAGS)
flags.DEFINE_integer('frame_size', 224, 'Pixels of the square frame.', lower_bound=8, flag_values=FLAGS)
flags.DEFINE_list('qualities', ['90', '75'], 'JPEG qualities.', flag_values=FLAGS)
flags.DEFINE_float('seconds', 1.0, 'CPU seconds of each way in each round, about.', lower_bound=0, flag_values=FLAGS)
flags.DEFINE_integer('rounds', 5, 'Rounds.', lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float('step_clips', None, 'Clips that one chip takes in a second.', lower_bound=0, flag_values=FLAGS)
flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=FLAGS)

# Cells of ResNet-18 for a frame of 224 pixels.
_CELLS = (7, 7, 512)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to store a clip: its spec, its serialized record, how frames are fitted, and the error of its pixels."""

    spec: Any
    serialized: bytes
    fit: str
    error: float | None


def ways(video: str, frame_size: int, qualities: list[int]) -> dict[str, Way]:
    """Returns the ways by name, made from the beginning of a video."""
    found = {}
    for (name, square, side, fit), quality in itertools.product(_forms(frame_size), qualities):
        spec = media.ClipSpec(short_side=side, jpeg_quality=quality, square=square)
        best = media.read_clip(video, dataclasses.replace(spec, jpeg_quality=100))
        clip = media.read_clip(video, spec)
        pixels, wanted = (pipeline.clip_arrays(x, frame_size, fit)['frames'].astype(float) for x in (clip, best))
        error = float(np.sqrt(np.square(pixels - wanted).mean()))
        height, width = spec.stored((clip.height, clip.width))
        found[f'{name}, {width} x {height}, quality {quality}'] = Way(spec, _serialize(clip, spec), fit, error)
    made = extracted.Extraction('resnet18', '', '', '', _CELLS)
    spec = extracted.ExtractedSpec(media.ClipSpec(), made, None, '')
    cells = np.random.default_rng(0).normal(size=made.stored(spec.segments)).astype(np.float16)
    common = {name: getattr(clip, name) for name in ('log_mel', 'valid', 'height', 'width', 'duration')}
    features = extracted.ExtractedClip(frames=None, audio=None, visual=cells, **common)
    found['features, 7 x 7 x 512'] = Way(spec, _serialize(features, spec), 'squash', None)
    return found


def _forms(frame_size: int) -> Iterator[tuple[str, bool, int, str]]:
    yield 'whole, made square when read', False, 256, 'squash'
    yield 'whole, cropped', False, 256, 'crop'
    yield f'whole, short side {frame_size}, cropped', False, frame_size, 'crop'
    yield 'squares', True, frame_size, 'squash'


def _serialize(clip, spec) -> bytes:
    return records.encode(records.ClipRecord('x', clip, (0,)), records.make_features(['x'], spec))


def clips_per_second(way: Way, frame_size: int, seconds: float) -> float:
    """Returns the clips that are parsed and made into arrays in a second of CPU time, of one thread."""
    done, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds or not done:
        pipeline.clip_arrays(records.decode(way.serialized, way.spec), frame_size, way.fit)
        done += 1
    return done / spent


def main(_: list[str]) -> None:
    if not FLAGS.video:
        raise cli.UsageError('--video is missing; give --video=FILE of at least ten seconds')
    found = ways(FLAGS.video, FLAGS.frame_size, [int(quality) for quality in FLAGS.qualities])
    rates = rounds.alternate(
        {name: lambda way=way: clips_per_second(way, FLAGS.frame_size, FLAGS.seconds) for name, way in found.items()},
        FLAGS.rounds,
    )
    rows = {
        name: {
            'bytes': len(way.serialized),
            'error': way.error,
            'clips_per_second': rounds.spread(rates[name]),
            'cores': FLAGS.step_clips and FLAGS.step_clips / rounds.spread(rates[name])['median'],
        }
        for name, way in found.items()
    }
    for name, row in rows.items():
        print(
            f'{name:>56}: {row["bytes"] / 1e3:7.0f} kB, {rounds.shown(row["clips_per_second"], ".0f")} clips/s a core'
            + ('' if row['error'] is None else f', error {row["error"]:.1f}')
            + (f', {row["cores"]:.1f} cores a chip' if row['cores'] else '')
        )
    rounds.write(FLAGS.out, {'frame_size': FLAGS.frame_size, 'ways': rows})


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
