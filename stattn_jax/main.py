"""Trains or evaluates: `python -m stattn_jax.main --config=configs/X.py --workdir=DIR [--mode=eval] [--config.FIELD=VALUE]`.

Exit codes: 0 done (or stopped by SIGTERM after saving), 2 wrong use in one line, 1 a failure. Read next: train.py.
"""

import difflib
import pathlib
import sys
from collections.abc import Callable

import jax
import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from stattn_jax import evaluate, run, score, train
from stattn_jax.data import source, tfrecord
from stattn_jax.runtime import checkpoint, perf


def make_flags(argv: list[str]) -> flags.FlagValues:
    """The command's flags, not yet parsed; `argv` tells which --config.FIELD flags there must be."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        'config', None, 'A file of configs/.', lock_config=True, flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string('workdir', None, 'Where the run lives; an unfinished run there continues.', flag_values=values)
    flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.', flag_values=values)
    flags.DEFINE_string('coordinator', None, 'host:port of process 0, for several processes.', flag_values=values)
    flags.DEFINE_integer('processes', None, 'How many processes there are.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('process', None, 'The number of this process.', lower_bound=0, flag_values=values)
    flags.mark_flags_as_required(['config', 'workdir'], values)
    return values


def main(argv: list[str] | None = None) -> int:
    """Parses flags, runs, and returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.set_verbosity('warning')
    if '--help' in argv or '-h' in argv:
        print(f'{__doc__}\n{make_flags(argv).get_help()}')
        return 0
    try:
        values = parse(argv, make_flags)
        config, workdir = values.config, pathlib.Path(values.workdir)
        _start_processes(values)
        if not config.data.dir:
            raise run.RunError(
                'config.data.dir is not set; expected a directory that data_prep wrote; give --config.data.dir=DIR'
            )
        numbers = train.train(config, workdir) if values.mode == 'train' else _evaluate(config, workdir)
    except (run.RunError, tfrecord.NoDataError) as error:
        return fail(error, getattr(error, 'code', 2))
    except (tfrecord.DataError, checkpoint.CheckpointError) as error:
        return fail(error, 1)
    except KeyboardInterrupt:
        return fail('stopped', 130)
    if jax.process_index() == 0:
        _print(numbers)
    return 0


def parse(argv: list[str], make: Callable[[list[str]], flags.FlagValues]) -> flags.FlagValues:
    """The flags of a command with --config; raises RunError, in one line, for what they cannot be."""
    values = make(argv)
    try:
        rest = values(argv)
        # A config file that could not be read says so only when it is touched.
        values.config.lock()
    except (AttributeError, KeyError):
        raise run.RunError(_unknown_field(argv, make)) from None
    except OSError as error:
        raise run.RunError(
            f'--config: {str(error).splitlines()[-1].strip()}; expected a file such as configs/own.py'
        ) from None
    except (flags.Error, ValueError, TypeError) as error:
        # An error inside the config file comes with its whole traceback; its last line is the message.
        text = str(error).strip()
        text = text.splitlines()[-1] if 'Traceback' in text else text
        raise run.RunError(f'{text}; --help lists the flags') from None
    if len(rest) > 1:
        raise run.RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
    return values


def _unknown_field(argv, make):
    """One line on the fields that --config does not have, with the nearest names."""
    config_only = [argument for argument in argv if not argument.startswith('--config.')]
    values = make(config_only)
    values(config_only)
    known = list(run.flatten(values.config.to_dict()))
    given = [a.split('=')[0].removeprefix('--config.') for a in argv if a.startswith('--config.')]
    unknown = [name for name in given if name not in known]
    near = {match for name in unknown for match in difflib.get_close_matches(name, known, n=3, cutoff=0.4)}
    return f'config has no field {", ".join(unknown)}; ' + (
        f'near: {", ".join(sorted(near))}' if near else f'it has {", ".join(known)}'
    )


def _start_processes(values):
    place = (values.coordinator, values.processes, values.process)
    if place == (None, None, None):
        return
    if None in place or values.process >= values.processes:
        raise run.RunError(
            f'--coordinator={values.coordinator} --processes={values.processes} --process={values.process}: '
            'expected all three, with --process from 0 to one less than --processes'
        )
    jax.distributed.initialize(*place)


def _evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path):
    run.check(config)
    run.check_workdir(workdir, config)
    run.make_strategy(config, config.eval.batch)
    if config.compile_cache:
        perf.enable_compile_cache(config.compile_cache)
    info = source.DatasetInfo.load(config.data.dir)
    run.check_trunks(config, info.spec)
    trained = run.load(workdir, parallel_kind=config.parallel)
    if (info.classes, info.spec) != (trained.facts.classes, trained.facts.spec):
        raise run.RunError(
            f'config.data.dir={config.data.dir} has other classes or another clip spec than the data that {workdir} was '
            'trained on; expected the same; prepare it with the same --classes and options'
        )
    evaluator = evaluate.Evaluator(trained.graphdef, trained.strategy, config)
    return {
        split: evaluator.write(trained.state, split, trained.step, workdir)
        for split in evaluate.splits_of(config, info)
    }


def _print(numbers):
    for split, values in numbers.items():
        print(f'\n{split}:')
        print(score.table(values))


def fail(error: Exception | str, code: int) -> int:
    """Prints an error as one line and returns the exit code."""
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
