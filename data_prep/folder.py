"""Prepares a data set directory from your own videos, described by tables.

  python -m data_prep.folder --videos=DIR --clips=clips.csv [--events=events.csv] [--boxes=boxes.csv]
      [--presence=presence.csv] --out=DIR

docs/datasets.md describes the tables and the counts that are reported. tables.py reads the tables, and prepare.py
writes the data set.
"""

import dataclasses
import functools

from absl import flags

from data_prep import cli, published, tables
from data_prep import videos as video_files

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    'videos', None, 'Folder that the paths in the clips table start from.', required=True, flag_values=FLAGS
)
flags.DEFINE_string('clips', None, 'Table clip_id,video,start,end,split,labels.', required=True, flag_values=FLAGS)
flags.DEFINE_string('events', None, 'Table clip_id,label,onset,offset,modality.', flag_values=FLAGS)
flags.DEFINE_string('boxes', None, 'Table clip_id,time,label,x0,y0,x1,y1.', flag_values=FLAGS)
flags.DEFINE_string('presence', None, 'Table clip_id,label,modality,flags.', flag_values=FLAGS)
flags.DEFINE_string(
    'classes', None, 'Text file of the classes, one a line. Default: the sorted labels.', flag_values=FLAGS
)
flags.DEFINE_bool(
    'merge_labels',
    False,
    'Labels that differ only by case, Unicode form or surrounding space are one class instead of an error.',
    flag_values=FLAGS,
)
published.define_flags(FLAGS, 'own')


def main(beam: list[str]) -> None:
    videos = published.folder(FLAGS, 'videos', f'the folder that the paths in {FLAGS.clips} start from')
    spec = published.clip_spec(FLAGS)
    own = tables.read_tables(
        FLAGS.clips, FLAGS.events, FLAGS.boxes, FLAGS.classes, FLAGS.presence, merge_labels=FLAGS.merge_labels
    )
    remarks = [*own.remarks]
    others = video_files.match_paths(videos, [job.video for job in own.jobs], remarks)
    published.prepare_jobs(
        FLAGS,
        [dataclasses.replace(job, video=others.get(job.video, job.video)) for job in own.jobs],
        functools.partial(published.make_record, str(videos)),
        beam,
        classes=own.classes,
        spec=spec,
        multi_label=own.multi_label,
        remarks=remarks,
    )


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
