"""`python -m stattn_jax.explain --workdir=DIR --video=FILE --out=DIR`: explains a model's predictions for videos.

Writes explanation.json, .npz, .png, .html, .mp4, .csv and .vtt, and index.html where it explains more than one clip.
--files chooses among them and adds others: --files=png,pdf,svg writes the figure in the formats of papers. --video also
takes a folder, which stands for every video file below it, and a pattern ('clips/*.mp4'); the same command, repeated,
goes on where it was stopped. With --long it explains all of a video that is longer than the model's clip: it writes
timeline.html, .mp4, .json and .csv, and the files above for the most probable windows. With two --workdir flags it
compares two runs on the same videos. `--check=FILE` verifies an explanation.json by recomputing its sums from the
numbers in the file. Exit codes: 0 done, 2 wrong use, 1 a video that cannot be read or a file that does not add up (the
message names it, and the others are still done) or another failure, 130 stopped by Ctrl-C.
"""

import sys

from absl import flags

from stattn_jax import command, files
from stattn_jax.explain import console

FLAGS = flags.FlagValues()
define = command.definers(FLAGS)
define.multi_string('workdir', None, console.WORKDIRS)
define.string('out', None, 'Folder for the files; several videos get one subfolder each.')
define.list(
    'files', list(console.KINDS), f'Which files to write, of {",".join((*console.KINDS, *console.MORE_KINDS))}.'
)
define.float('start', None, 'Start of the part to explain, in seconds.')
define.float('end', None, 'End of the part to explain, in seconds.')
define.string('label', None, 'Class to show. Default: the most probable one.')
define.bool(
    'finer',
    True,
    'Show the visual evidence on half cells, which takes eight more passes of the visual trunk. --nofiner: on cells.',
)
define.string('truth', None, 'Folder with events.csv or boxes.csv: annotations to draw, of clips named as the files.')
define.bool('long', False, 'Explain the whole video by overlapping windows.')
define.integer('hop', None, 'With --long: segments between the starts of two windows. Default: half a window.', 1)
define.integer(
    'top_windows', 5, 'With --long: number of windows, the most probable ones, for which all files are written.', 0
)
define.bool(
    'overwrite',
    False,
    'With several videos: explain again what an earlier call with the same --out, model and options explained.',
)
define.multi_string('check', None, 'An explanation.json to verify; no video is explained.')
console.define_flags(FLAGS)


def main(argv: list[str] | None = None) -> int:
    """Explains every video, or checks every file; returns the exit code."""
    return command.run(argv, __doc__, FLAGS, _main)


def _main(_: flags.FlagValues) -> int:
    _check_flags()
    if FLAGS.check:
        return max(_check(path) for path in FLAGS.check)
    files.make_folder(FLAGS.out)
    # JAX is imported only here, so that wrong use is reported at once and the time of the import can be measured.
    times = console.StepTimes()
    with times('imports'):
        from stattn_jax.explain import explain_videos
    return explain_videos.run(FLAGS, times)


def _check_flags() -> None:
    if not FLAGS.check:
        command.require(FLAGS, ('workdir', 'video', 'out'), '--workdir=DIR --video=FILE --out=DIR')
    kinds = (*console.KINDS, *console.MORE_KINDS)
    if not FLAGS.files or not set(FLAGS.files) <= set(kinds):
        raise flags.Error(f'--files={",".join(FLAGS.files)}; expected some of {",".join(kinds)}')
    if not FLAGS.long and (FLAGS['hop'].present or FLAGS['top_windows'].present):
        raise flags.Error('--hop and --top_windows need --long')
    console.check_workdirs(FLAGS.workdir or ())
    if FLAGS.long and len(FLAGS.workdir or ()) > 1:
        raise flags.Error('--long explains by one run; expected one --workdir')


def _check(path: str) -> int:
    """Prints the largest relative errors of an explanation.json; returns 0 if rounding explains them, else 1."""
    from stattn_jax.explain import record_files

    try:
        errors = record_files.check(path)
    except (OSError, ValueError) as error:
        return command.fail(error, 1)
    fine = max(errors.values()) <= record_files.TOLERANCE
    numbers = ', '.join(f'{name} {error:.1e}' for name, error in errors.items())
    print(
        f'{path}: {"ok" if fine else "DOES NOT ADD UP"} (largest relative errors: {numbers}; '
        f'{record_files.TOLERANCE:g} allowed)'
    )
    return 0 if fine else 1


if __name__ == '__main__':
    sys.exit(main())
