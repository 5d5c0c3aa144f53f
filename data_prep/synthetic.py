"""Writes the synthetic data set as TFRecords, through the same front-end as real video.

  python -m data_prep.synthetic --out=DIR [--variant=events|lopsided|binding] [--train=N --val=N --test=N --seed=S
  --videos=N --sounds]

`--videos=N` also writes N test clips as OUT/videos/*.mp4 with their clips.csv, events.csv and boxes.csv, ready for
data_prep.folder and explain. `--sounds` also writes OUT/sounds-test.npy for studies that remove audio before the
log-mel: the waveform of each test clip in the order of the records, int16 [clips samples] at 16 kHz, full scale 32767.

scenes.py and scenes_binding.py define the scenes, and prepare.py writes the shards.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np
from absl import flags

from data_prep import cli, prepare, published, rows, scenes, scenes_binding, tables
from stattn_jax import files
from stattn_jax.data import media, records


@dataclasses.dataclass(frozen=True)
class Variant:
    """The label names, the default number of segments, and the function (segments, seed) -> Scene."""

    classes: tuple[str, ...]
    segments: int
    make_scene: Callable[[int, tuple[int, ...]], scenes.Scene]


VARIANTS = {
    'events': Variant(scenes.CLASSES, 8, functools.partial(scenes.make_scene, 'events')),
    'lopsided': Variant(scenes.CLASSES, 10, functools.partial(scenes.make_scene, 'lopsided')),
    'binding': Variant(scenes_binding.CLASSES, 8, scenes_binding.make_scene),
}

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string('out', None, 'Directory to write; a stopped run continues there.', required=True)
define.enum('variant', 'events', sorted(VARIANTS), 'Which scenes; see scenes.py and scenes_binding.py.')
define.integer('train', 2000, 'Training clips.', lower_bound=1)
define.integer('val', 0, 'Validation clips; 0 leaves the split out.', lower_bound=0)
define.integer('test', 400, 'Test clips.', lower_bound=1)
define.integer('seed', 0, 'Another seed gives other clips.', lower_bound=0)
define.integer('segments', None, 'Seconds of a clip. Default: 8 (events, binding), 10 (lopsided).', lower_bound=6)
define.integer('videos', 0, 'Test clips to write as mp4 too.', lower_bound=0)
published.define_mel(FLAGS)
define.bool('sounds', False, 'Write the waveforms of the test clips too.')
define.integer('workers', None, 'Processes. Default: one per CPU. 0: none but this one.', lower_bound=0)

SIZE = 64
VIDEO_SIZE, VIDEO_FPS = 256, 12
SPLITS = ('train', 'val', 'test')
SOUNDS_FILE = 'sounds-test.npy'


def main(_: list[str]) -> None:
    if FLAGS.videos > FLAGS.test:
        raise cli.UsageError(
            f'--videos={FLAGS.videos} is more than the {FLAGS.test} test clips; give --test={FLAGS.videos}'
        )
    variant = VARIANTS[FLAGS.variant]
    segments = FLAGS.segments or variant.segments
    jobs = [job(FLAGS.variant, segments, FLAGS.seed, split, i) for split in SPLITS for i in range(FLAGS[split].value)]
    spec = media.ClipSpec(segments=segments, short_side=SIZE, mel=FLAGS.mel)
    prepare.prepare(
        FLAGS.out,
        f'synthetic_{FLAGS.variant}',
        jobs,
        functools.partial(make_record, FLAGS.variant),
        classes=variant.classes,
        spec=spec,
        multi_label=False,
        workers=FLAGS.workers,
    )
    tests = [j for j in jobs if j.split == 'test']
    if FLAGS.videos:
        write_videos(pathlib.Path(FLAGS.out) / 'videos', tests[: FLAGS.videos], segments)
    if FLAGS.sounds:
        write_sounds(pathlib.Path(FLAGS.out) / SOUNDS_FILE, tests, segments)


def job(variant: str, segments: int, seed: int, split: str, number: int) -> prepare.Job:
    """Returns the job of one clip; its ground truth comes from the scene, and its payload is the scene's seed."""
    scene_seed = (seed, SPLITS.index(split), number)
    scene = VARIANTS[variant].make_scene(segments, scene_seed)
    first, end = scene.event
    return prepare.Job(
        clip_id=f'{split}_{number:06d}',
        split=split,
        labels=(scene.label,),
        events=(records.Event(scene.label, float(first), float(end), 'both'),),
        boxes=tuple(records.Box(t + 0.5, scene.label, *map(float, scene.box(t + 0.5))) for t in range(first, end)),
        payload=list(scene_seed),
    )


def make_record(variant: str, work: prepare.Job, spec: media.ClipSpec) -> records.ClipRecord:
    """Renders the frames and the audio of a job's scene."""
    scene = VARIANTS[variant].make_scene(spec.segments, tuple(work.payload))
    frames = scenes.draw(scene, np.arange(spec.segments) + 0.5, SIZE)
    clip = media.clip_from_arrays(frames, scenes.sound(scene), spec)
    return records.ClipRecord(work.clip_id, clip, work.labels, work.events, work.boxes, '', 0.0)


def write_videos(folder: pathlib.Path, jobs: list[prepare.Job], segments: int) -> None:
    """Writes jobs as H.264 + AAC mp4 with the three tables that data_prep.folder reads."""
    folder.mkdir(exist_ok=True)
    variant = VARIANTS[FLAGS.variant]
    for work in jobs:
        scene = variant.make_scene(segments, tuple(work.payload))
        frames = scenes.draw(scene, np.arange(segments * VIDEO_FPS) / VIDEO_FPS, VIDEO_SIZE)
        media.write_video(folder / f'{work.clip_id}.mp4', frames, VIDEO_FPS, scenes.sound(scene), scenes.RATE)
    name = variant.classes.__getitem__
    rows.write_rows(folder / 'clips.csv', tables.CLIP_COLUMNS, [
        (j.clip_id, f'{j.clip_id}.mp4', '', '', j.split, name(j.labels[0])) for j in jobs
    ])  # fmt: skip
    rows.write_rows(folder / 'events.csv', tables.EVENT_COLUMNS, [
        (j.clip_id, name(e.label), e.onset, e.offset, e.modality) for j in jobs for e in j.events
    ])  # fmt: skip
    rows.write_rows(folder / 'boxes.csv', tables.BOX_COLUMNS, [
        (j.clip_id, b.time, name(b.label), b.x0, b.y0, b.x1, b.y1) for j in jobs for b in j.boxes
    ])  # fmt: skip


def write_sounds(path: pathlib.Path, jobs: list[prepare.Job], segments: int) -> None:
    """Writes the waveforms of jobs as one array; the file appears under its name only when it is complete."""
    with files.whole_path(path) as part:
        sounds = np.lib.format.open_memmap(part, 'w+', np.int16, (len(jobs), segments * scenes.RATE))
        for row, work in zip(sounds, jobs):
            scene = VARIANTS[FLAGS.variant].make_scene(segments, tuple(work.payload))
            row[:] = np.rint(scenes.sound(scene) * np.iinfo(np.int16).max)
        sounds.flush()


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
