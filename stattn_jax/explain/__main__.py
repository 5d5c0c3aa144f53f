"""`python -m stattn_jax.explain --workdir=DIR --video=FILE --out=DIR`: what, where and when, as JSON, NPZ and PNG.

Exit codes: 0 done, 2 wrong use, 1 a video that cannot be read (named, the others are done) or another failure.
"""

import csv
import pathlib
import sys

from absl import flags, logging

from stattn_jax import run
from stattn_jax.data import media
from stattn_jax.explain.explanation import Truth
from stattn_jax.explain.model import load
from stattn_jax.runtime import checkpoint, perf

FLAGS = flags.FlagValues()
flags.DEFINE_string('workdir', None, 'A trained workdir.', required=True, flag_values=FLAGS)
flags.DEFINE_multi_string('video', None, 'A video file; may be given several times.', required=True, flag_values=FLAGS)
flags.DEFINE_string('out', None, 'Folder for the files; several videos get one subfolder each.', required=True, flag_values=FLAGS)
flags.DEFINE_float('start', None, 'First second of the stretch to explain.', flag_values=FLAGS)
flags.DEFINE_float('end', None, 'Last second of it.', flag_values=FLAGS)
flags.DEFINE_string('label', None, 'Class to draw. Default: the best one.', flag_values=FLAGS)
flags.DEFINE_string('truth', None, 'Folder with events.csv and boxes.csv of clips named as the files, to draw.', flag_values=FLAGS)
flags.DEFINE_string('compile_cache', None, 'Folder of your own that keeps compiled programs.', flag_values=FLAGS)


def main(argv: list[str] | None = None) -> int:
    """Explains every video; returns the exit code."""
    logging.set_verbosity('warning')
    try:
        rest = FLAGS(sys.argv if argv is None else argv)
        if len(rest) > 1:
            raise run.RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
        if FLAGS.compile_cache:
            perf.enable_compile_cache(FLAGS.compile_cache)
        model = load(FLAGS.workdir)
        known = model.trained.facts.classes
        if FLAGS.label is not None and FLAGS.label not in known:
            raise run.RunError(f'--label={FLAGS.label} is not a class of the model; expected one of {", ".join(known)}')
    except flags.Error as error:
        return _fail(f'{error}; see `python -m stattn_jax.explain --help`', 2)
    except run.RunError as error:
        return _fail(error, error.code)
    except checkpoint.CheckpointError as error:
        return _fail(error, 1)
    failed = 0
    for video in FLAGS.video:
        out = pathlib.Path(FLAGS.out)
        try:
            _explain(model, pathlib.Path(video), out / pathlib.Path(video).stem if len(FLAGS.video) > 1 else out)
        except media.MediaError as error:
            failed += 1
            _fail(error, 1)
    return 1 if failed else 0


def _explain(model, video: pathlib.Path, out: pathlib.Path) -> None:
    explanation = model.explain(video, FLAGS.start, FLAGS.end)
    out.mkdir(parents=True, exist_ok=True)
    label = FLAGS.label or explanation.top(1)[0]['label']
    explanation.save_json(out / 'explanation.json')
    explanation.save_npz(out / 'explanation.npz')
    explanation.save_png(out / 'explanation.png', label=label, truth=_truth(video.stem, label))
    print(f'{video}: ' + ', '.join(f'{row["label"]} {row["probability"]:.1%}' for row in explanation.top(3)))
    for note in explanation.media['notes']:
        print(f'  note: the clip is {note}')
    print(f'  sum of contributions against logit: {explanation.residual()[1]:.1e} relative')
    print(f'  {out}/explanation.png, explanation.json, explanation.npz', flush=True)


def _truth(clip_id: str, label: str) -> Truth:
    """What the tables in --truth say about a clip and a label; nothing without the flag."""
    if not FLAGS.truth:
        return Truth()

    def rows(name):
        path = pathlib.Path(FLAGS.truth) / name
        if not path.exists():
            return []
        with open(path, newline='', encoding='utf-8') as file:
            return [row for row in csv.DictReader(file) if row['clip_id'] == clip_id and row['label'] == label]

    return Truth(
        intervals=[(float(r['onset']), float(r['offset'])) for r in rows('events.csv')],
        boxes=[tuple(float(r[k]) for k in ('time', 'x0', 'y0', 'x1', 'y1')) for r in rows('boxes.csv')],
    )


def _fail(error, code: int) -> int:
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
