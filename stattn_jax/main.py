"""Trains or evaluates: `python -m stattn_jax.main --config=configs/X.py --workdir=DIR [--mode=eval] [--config.FIELD=VALUE]`.

Exit codes: 0 done (or stopped by SIGTERM after saving), 2 wrong use in one line, 1 a failure. Read next: train.py.
"""

import difflib
import sys

import jax
import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from stattn_jax import evaluate, run, train
from stattn_jax.data import records, source
from stattn_jax.runtime import checkpoint

FLAGS = flags.FlagValues()
CONFIG = config_flags.DEFINE_config_file('config', None, 'A file of configs/.', lock_config=True, flag_values=FLAGS)
flags.DEFINE_string('workdir', None, 'Where the run lives; an unfinished run there continues.', required=True, flag_values=FLAGS)
flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.', flag_values=FLAGS)
flags.DEFINE_string('coordinator', None, 'host:port of process 0, for several processes.', flag_values=FLAGS)
flags.DEFINE_integer('processes', None, 'How many processes there are.', flag_values=FLAGS)
flags.DEFINE_integer('process', None, 'The number of this process.', flag_values=FLAGS)
flags.mark_flag_as_required('config', FLAGS)


def main(argv: list[str] | None = None) -> int:
    """Parses flags, runs, and returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.set_verbosity('warning')
    try:
        _parse(argv)
        _start_processes()
        config = FLAGS.config
        if not config.data.dir:
            raise run.RunError(
                'config.data.dir is not set; expected a directory that data_prep wrote; give --config.data.dir=DIR'
            )
        numbers = train.train(config, FLAGS.workdir) if FLAGS.mode == 'train' else _evaluate(config)
    except (run.RunError, records.NoDataError) as error:
        return _fail(error, getattr(error, 'code', 2))
    except (records.DataError, checkpoint.CheckpointError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail('stopped', 130)
    if jax.process_index() == 0:
        _print(numbers)
    return 0


def _parse(argv):
    try:
        rest = FLAGS(argv)
    except AttributeError:
        raise run.RunError(_unknown_field(argv)) from None
    except (flags.Error, ValueError, TypeError, KeyError, OSError) as error:
        raise run.RunError(f'{error}; see `python -m stattn_jax.main --help`') from None
    if len(rest) > 1:
        raise run.RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')


def _unknown_field(argv):
    """One line on the fields that --config does not have, with the nearest names."""
    config_only = [argv[0], *(a for a in argv if not a.startswith('--config.'))]
    FLAGS.unparse_flags()
    FLAGS(config_only)
    known = list(run.flatten(FLAGS.config.to_dict()))
    given = [a.split('=')[0].removeprefix('--config.') for a in argv if a.startswith('--config.')]
    unknown = [name for name in given if name not in known]
    near = {match for name in unknown for match in difflib.get_close_matches(name, known, n=3, cutoff=0.4)}
    return f'config has no field {", ".join(unknown)}; ' + (f'near: {", ".join(sorted(near))}' if near else f'it has {", ".join(known)}')


def _start_processes():
    if FLAGS.coordinator is not None:
        jax.distributed.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)


def _evaluate(config: ml_collections.ConfigDict):
    trained = run.load(FLAGS.workdir, parallel_kind=config.parallel)
    evaluator = evaluate.Evaluator(trained.graphdef, trained.strategy, config)
    info = source.DatasetInfo.load(config.data.dir)
    return {
        split: evaluator.write(trained.state, split, trained.step, FLAGS.workdir)
        for split in evaluate.splits_of(config, info)
    }


def _print(numbers):
    for split, values in numbers.items():
        print(f'\n{split}:')
        for name, value in sorted(values.items()):
            print(f'  {name:<40} {value:.4f}' if isinstance(value, float) else f'  {name:<40} {value}')


def _fail(error, code: int) -> int:
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
