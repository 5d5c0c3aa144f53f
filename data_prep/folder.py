"""Anyone's own videos, described by three tables, to a data set directory.

  python -m data_prep.folder --videos=DIR --clips=clips.csv [--events=events.csv] [--boxes=boxes.csv] --out=DIR

The tables and what is counted: docs/datasets.md. Read next: tables.py (the tables), prepare.py (the engine).
"""

import functools
import pathlib

from absl import flags

from data_prep import cli, prepare, tables
from stattn_jax.data import media, records

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    'videos', None, 'Folder that the paths in the clips table start from.', required=True, flag_values=FLAGS
)
flags.DEFINE_string('clips', None, 'Table clip_id,video,start,end,split,labels.', required=True, flag_values=FLAGS)
flags.DEFINE_string('events', None, 'Table clip_id,label,onset,offset,modality.', flag_values=FLAGS)
flags.DEFINE_string('boxes', None, 'Table clip_id,time,label,x0,y0,x1,y1.', flag_values=FLAGS)
flags.DEFINE_string(
    'classes', None, 'Text file of the classes, one a line. Default: the sorted labels.', flag_values=FLAGS
)
flags.DEFINE_string('out', None, 'Directory to write; a stopped run continues there.', required=True, flag_values=FLAGS)
flags.DEFINE_string('name', 'own', 'Name of the data set, the first part of the file names.', flag_values=FLAGS)
flags.DEFINE_integer('segments', 10, 'Segments of a clip, a frame and a mel patch each.', flag_values=FLAGS)
flags.DEFINE_float('segment_seconds', 1.0, 'Length of a segment.', flag_values=FLAGS)
flags.DEFINE_integer('short_side', 256, 'Short side of the stored frames, in pixels.', flag_values=FLAGS)
flags.DEFINE_integer('workers', None, 'Processes. Default: one per CPU.', lower_bound=1, flag_values=FLAGS)


def main(_: list[str]) -> None:
    videos = pathlib.Path(FLAGS.videos)
    if not videos.is_dir():
        raise cli.UsageError(
            f'--videos={videos} is not a folder; expected the folder that the paths in {FLAGS.clips} start from'
        )
    try:
        spec = media.ClipSpec(
            segments=FLAGS.segments, segment_seconds=FLAGS.segment_seconds, short_side=FLAGS.short_side
        )
    except ValueError as error:
        raise cli.UsageError(f'--{error}') from None
    own = tables.read_tables(FLAGS.clips, FLAGS.events, FLAGS.boxes, FLAGS.classes)
    prepare.prepare(
        FLAGS.out,
        FLAGS.name,
        own.jobs,
        functools.partial(make_record, str(videos)),
        classes=own.classes,
        spec=spec,
        multi_label=own.multi_label,
        workers=FLAGS.workers,
    )


def make_record(videos: str, job: prepare.Job, spec: media.ClipSpec) -> records.ClipRecord:
    """Reads a job's stretch of its video file; raises media.MediaError when it cannot be used."""
    clip = media.read_clip(pathlib.Path(videos) / job.video, spec, job.start, job.end)
    return records.ClipRecord(job.clip_id, clip, job.labels, job.events, job.boxes, job.video, job.start or 0.0)


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
