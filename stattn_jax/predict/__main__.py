"""`python -m stattn_jax.predict --workdir=RUN --video=DIR --out=predictions.csv`: predicts the classes of many videos.

Writes one row per video: the probabilities of the classes, and the segment and the cell with the strongest evidence for
the best one. The name of --out chooses the format: .csv, .jsonl or .parquet. A video that cannot be read has a row
with the reason. The file appears when all videos are done; the same command goes on where it was stopped. Exit codes: 0
done, 2 wrong use, 1 some videos failed (their rows name the reasons), 130 stopped by Ctrl-C.
"""

import pathlib
import sys

from absl import flags

from stattn_jax import command, files
from stattn_jax.explain import console

FORMATS = ('csv', 'jsonl', 'parquet')
FLAGS = flags.FlagValues()
define = command.definers(FLAGS)
define.string('workdir', None, f'{console.WORKDIR}.')
define.string('out', None, 'The table to write: .csv, .jsonl or .parquet.')
define.integer('top', None, 'Number of classes per video. Default: every class.', 1)
define.integer('batch', 8, 'Number of clips per forward pass.', 1)
define.integer('workers', None, 'Processes that read videos. Default: one per core; 0: none but this one.', 0)
define.bool('overwrite', False, 'Replace --out, and predict all videos again.')
console.define_flags(FLAGS)


def main(argv: list[str] | None = None) -> int:
    """Predicts every video; returns the exit code."""
    return command.run(argv, __doc__, FLAGS, _main)


def _main(_: flags.FlagValues) -> int:
    _check_flags()
    files.make_folder(pathlib.Path(FLAGS.out).parent)
    # JAX is imported only here, so that wrong use is reported at once, and worker processes do not import it.
    times = console.StepTimes()
    with times('imports'):
        from stattn_jax.predict import predict_videos
    return predict_videos.run(FLAGS, times)


def _check_flags() -> None:
    """Raises flags.Error for missing or wrong flags."""
    command.require(FLAGS, ('workdir', 'video', 'out'), '--workdir=RUN --video=DIR --out=predictions.csv')
    if not FLAGS.out.endswith(tuple(f'.{kind}' for kind in FORMATS)):
        raise flags.Error(f'--out={FLAGS.out}; expected a file that ends with .{", .".join(FORMATS)}')


if __name__ == '__main__':
    sys.exit(main())
