"""Divides the training split of a data set in two: training clips and validation clips, which choices are made on.

  python -m data_prep.divide --data=DATA --out=OUT [--every=7]

Every seventh training clip, counted class by class, becomes a clip of the split val; the other splits are copied. Clips
that come from one recording are not known to belong together: list such a division in the table of data_prep.folder
instead.
"""

import functools
import pathlib

from absl import flags

from data_prep import cli, prepare
from data_prep.synthetic import SOUNDS_FILE
from data_prep.work import Job, UsageError
from stattn_jax import files
from stattn_jax.data import extracted, records, source

FLAGS = flags.FlagValues()
flags.DEFINE_string('data', None, 'Data set directory without a split val.', required=True, flag_values=FLAGS)
flags.DEFINE_string('out', None, 'Directory to write; a stopped run continues there.', required=True, flag_values=FLAGS)
flags.DEFINE_integer(
    'every', 7, 'One training clip in this many becomes a validation clip.', lower_bound=2, flag_values=FLAGS
)
flags.DEFINE_integer('workers', None, 'Processes. Default: one per CPU.', lower_bound=0, flag_values=FLAGS)


def main(_: list[str]) -> None:
    data = pathlib.Path(FLAGS.data)
    info = source.DatasetInfo.load(data)
    if 'val' in info.splits:
        raise UsageError(f'--data={data} has a split val already; use it as it is')
    if 'train' not in info.splits:
        raise UsageError(f'--data={data} has no split train; it has {", ".join(sorted(info.splits))}')

    def copy_others(out):
        for name in (extracted.ABSENT_FILE, SOUNDS_FILE):
            if (data / name).exists():
                files.copy(data / name, out / name)

    prepare.prepare(
        FLAGS.out,
        info.name,
        list_jobs(data, info, FLAGS.every),
        functools.partial(make_record, str(data.absolute())),
        classes=info.classes,
        spec=info.spec,
        multi_label=info.multi_label,
        workers=FLAGS.workers,
        finish=copy_others,
        options={'divided': info.fingerprint},
    )


def list_jobs(data: pathlib.Path, info: source.DatasetInfo, every: int) -> list[Job]:
    """Returns a job for each record.

    The training clips are counted class by class (clips with several labels by their set of labels), and each one whose
    count is a multiple of `every` is held out, so that classes have their share even if they are small.
    """
    found = {}
    for split, count in info.splits.items():
        clips = source.RecordSource(data, split)
        found[split] = [(record.clip_id, record.labels) for record in map(clips.__getitem__, range(count))]
    by_class = sorted(range(len(found['train'])), key=lambda number: found['train'][number][1])
    held_out = set(by_class[every - 1 :: every])
    if not held_out:
        raise UsageError(f'--every={every}: {data} has {len(by_class)} training clips; give at most {len(by_class)}')
    return [
        Job(name, 'val' if split == 'train' and number in held_out else split, labels, payload=[split, number])
        for split, clips in found.items()
        for number, (name, labels) in enumerate(clips)
    ]


def make_record(data: str, job: Job, spec: records.Spec) -> records.ClipRecord:
    """Returns the record of a job as it is stored in `data`."""
    split, number = job.payload
    return _source(data, split)[number]


@functools.lru_cache
def _source(data: str, split: str) -> source.RecordSource:
    return source.RecordSource(data, split)


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
