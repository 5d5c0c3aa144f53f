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

_EVENT, _BOX = ('onset', 'offset'), ('time', 'x0', 'y0', 'x1', 'y1')
FLAGS = flags.FlagValues()
flags.DEFINE_string('workdir', None, 'A trained workdir.', required=True, flag_values=FLAGS)
flags.DEFINE_multi_string('video', None, 'A video file; may be given several times.', required=True, flag_values=FLAGS)
flags.DEFINE_string(
    'out', None, 'Folder for the files; several videos get one subfolder each.', required=True, flag_values=FLAGS
)
flags.DEFINE_float('start', None, 'First second of the stretch to explain.', flag_values=FLAGS)
flags.DEFINE_float('end', None, 'Last second of it.', flag_values=FLAGS)
flags.DEFINE_string('label', None, 'Class to draw. Default: the best one.', flag_values=FLAGS)
flags.DEFINE_string(
    'truth', None, 'Folder with events.csv and boxes.csv of clips named as the files, to draw.', flag_values=FLAGS
)
flags.DEFINE_string('compile_cache', None, 'Folder of your own that keeps compiled programs.', flag_values=FLAGS)


def main(argv: list[str] | None = None) -> int:
    """Explains every video; returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.set_verbosity('warning')
    if '--help' in argv or '-h' in argv:
        print(f'{__doc__}\n{FLAGS.get_help()}')
        return 0
    try:
        folders = _parse(argv)
        model = load(FLAGS.workdir)
        known = model.trained.facts.classes
        if FLAGS.label is not None and FLAGS.label not in known:
            raise run.RunError(f'--label={FLAGS.label} is not a class of the model; expected one of {", ".join(known)}')
        truths = {video: _truth(video.stem) for video in folders}
    except flags.Error as error:
        return _fail(f'{error}; see `python -m stattn_jax.explain --help`', 2)
    except run.RunError as error:
        return _fail(error, error.code)
    except checkpoint.CheckpointError as error:
        return _fail(error, 1)
    failed = 0
    for video, out in folders.items():
        try:
            _explain(model, video, out, truths[video])
        except media.MediaError as error:
            failed += 1
            _fail(error, 1)
    return 1 if failed else 0


def _parse(argv) -> dict[pathlib.Path, pathlib.Path]:
    """Parses the flags; the folder of each video."""
    FLAGS.unparse_flags()
    rest = FLAGS(argv)
    if len(rest) > 1:
        raise run.RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
    if FLAGS.compile_cache:
        perf.enable_compile_cache(FLAGS.compile_cache)
    videos, out = [pathlib.Path(video) for video in FLAGS.video], pathlib.Path(FLAGS.out)
    folders = {video: out / video.stem if len(videos) > 1 else out for video in videos}
    if len(set(folders.values())) < len(videos):
        raise run.RunError(
            f'--video={" --video=".join(FLAGS.video)}: two have the same name and would share a folder of --out={out}'
        )
    return folders


def _explain(model, video: pathlib.Path, out: pathlib.Path, truth: dict[str, Truth]) -> None:
    explanation = model.explain(video, FLAGS.start, FLAGS.end)
    out.mkdir(parents=True, exist_ok=True)
    label = FLAGS.label or explanation.top(1)[0]['label']
    explanation.save_json(out / 'explanation.json')
    explanation.save_npz(out / 'explanation.npz')
    explanation.save_png(out / 'explanation.png', label=label, truth=truth.get(label))
    print(f'{video}: ' + ', '.join(f'{row["label"]} {row["probability"]:.1%}' for row in explanation.top(3)))
    for note in explanation.media['notes']:
        print(f'  note: the clip is {note}')
    print(f'  sum of contributions against logit: {explanation.residual()[1]:.1e} relative')
    print(f'  {out}/explanation.png, explanation.json, explanation.npz', flush=True)


def _truth(clip_id: str) -> dict[str, Truth]:
    """What the tables in --truth say about a clip, by label; nothing without the flag. Raises RunError for tables that cannot be read."""
    if FLAGS.truth is None:
        return {}
    folder = pathlib.Path(FLAGS.truth)
    paths = [path for path in (folder / 'events.csv', folder / 'boxes.csv') if path.exists()]
    if not paths:
        raise run.RunError(
            f'--truth={folder} holds neither events.csv nor boxes.csv; expected a folder with at least one of them'
        )
    found: dict[str, dict[str, list]] = {}
    for path in paths:
        kind, columns = ('intervals', _EVENT) if path.name == 'events.csv' else ('boxes', _BOX)
        with open(path, newline='', encoding='utf-8') as file:
            try:
                for row in csv.DictReader(file):
                    if row['clip_id'] == clip_id:
                        values = tuple(float(row[name]) for name in columns)
                        found.setdefault(row['label'], {}).setdefault(kind, []).append(values)
            except (KeyError, ValueError) as error:
                raise run.RunError(
                    f'{path}: {error}; expected the columns clip_id, label, {", ".join(columns)}'
                ) from None
    return {label: Truth(**rows) for label, rows in found.items()}


def _fail(error, code: int) -> int:
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
