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
define = cli.definers(FLAGS)
define.string('videos', None, 'Folder that the paths in the clips table start from.', required=True)
define.string('clips', None, 'Table clip_id,video,start,end,split,labels.', required=True)
define.string('events', None, 'Table clip_id,label,onset,offset,modality.')
define.string('boxes', None, 'Table clip_id,time,label,x0,y0,x1,y1.')
define.string('presence', None, 'Table clip_id,label,modality,flags.')
define.string('classes', None, 'Text file of the classes, one a line. Default: the sorted labels.')
define.bool(
    'merge_labels',
    False,
    'Labels that differ only by case, Unicode form or surrounding space are one class instead of an error.',
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
    listing = published.Listing(own.classes, [], own.multi_label, remarks=remarks)
    jobs = [dataclasses.replace(job, video=others.get(job.video, job.video)) for job in own.jobs]
    make = functools.partial(published.make_record, str(videos))
    published.prepare_jobs(FLAGS, listing, jobs, make, spec, beam)


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
