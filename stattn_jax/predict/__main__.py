"""`python -m stattn_jax.predict --workdir=RUN --video=DIR --out=predictions.csv`: predicts the classes of many videos.

Writes one row per video: the probabilities of the classes, and the segment and the cell with the strongest evidence for
the best one. The name of --out chooses the format: .csv, .jsonl or .parquet. A video that cannot be read has a row
with the reason. The file appears when all videos are done; the same command goes on where it was stopped. Exit codes: 0
done, 2 wrong use, 1 some videos failed (their rows name the reasons), 130 stopped by Ctrl-C.
"""

import sys
import time

from absl import flags

from stattn_jax import flag_once

FORMATS = ('csv', 'jsonl', 'parquet')
FLAGS = flags.FlagValues()
flags.DEFINE_string('workdir', None, 'A trained workdir.', flag_values=FLAGS)
flags.DEFINE_multi_string(
    'video',
    None,
    'A folder (every video file below it), a pattern or a video file; may be given several times.',
    flag_values=FLAGS,
)
flags.DEFINE_string('out', None, 'The table to write: .csv, .jsonl or .parquet.', flag_values=FLAGS)
flags.DEFINE_integer('top', None, 'Number of classes per video. Default: every class.', 1, flag_values=FLAGS)
flags.DEFINE_integer('batch', 8, 'Number of clips per forward pass.', 1, flag_values=FLAGS)
flags.DEFINE_integer(
    'workers', None, 'Processes that read videos. Default: one per core; 0: none but this one.', 0, flag_values=FLAGS
)
flags.DEFINE_bool('overwrite', False, 'Replace --out, and predict all videos again.', flag_values=FLAGS)
flags.DEFINE_string(
    'compile_cache',
    None,
    'Folder in which compiled programs are kept; only you should be able to write to it.',
    flag_values=FLAGS,
)


def main(argv: list[str] | None = None) -> int:
    """Predicts every video; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if '--help' in argv or '-h' in argv:
        print(f'{__doc__}\n{FLAGS.get_help()}')
        return 0
    try:
        _parse(argv)
    except flags.Error as error:
        print(f'error: {" ".join(str(error).split())}; see `python -m stattn_jax.predict --help`', file=sys.stderr)
        return 2
    # JAX is imported only here, so that wrong use is reported at once, and worker processes do not import it.
    began = time.perf_counter()
    from stattn_jax.predict import predict_videos

    return predict_videos.run(FLAGS, time.perf_counter() - began)


def _parse(argv) -> None:
    FLAGS.unparse_flags()
    flag_once.check_once(argv, FLAGS)
    rest = FLAGS(argv)
    if len(rest) > 1:
        raise flags.Error(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
    missing = [name for name in ('workdir', 'video', 'out') if not FLAGS[name].value]
    if missing:
        raise flags.Error(f'--{missing[0]} is missing; expected --workdir=RUN --video=DIR --out=predictions.csv')
    if not FLAGS.out.endswith(tuple(f'.{kind}' for kind in FORMATS)):
        raise flags.Error(f'--out={FLAGS.out}; expected a file that ends with .{", .".join(FORMATS)}')


if __name__ == '__main__':
    sys.exit(main())
