"""Trains or evaluates a model.

  python -m stattn_jax.main --config=configs/X.py --workdir=DIR [--config.FIELD=VALUE]
  python -m stattn_jax.main --workdir=DIR --mode=eval [--config.FIELD=VALUE]

Without --config, --mode=eval takes the config of the run, DIR/config.json. A run is lengthened by the same command with
a larger --config.train.steps. The learning rate depends on the total: from there it follows the schedule of the new
total, so that it rises again before it falls to 0, and the result is not that of a run of this length from the start.

On several hosts, or as several processes, every process gets the same command (docs/scaling.md).

Exit codes: 0 done (or stopped by SIGTERM after saving), 2 wrong use (one line on stderr), 1 a failure.
"""

import importlib.util
import pathlib
import sys

import jax
import ml_collections
from absl import flags, logging

from stattn_jax import command, config_checks, evaluate, extraction, files, run, score, train, trunk_setup
from stattn_jax.config_files import fields
from stattn_jax.data import source
from stattn_jax.runtime import perf, processes

# The value of --coordinator that leaves the three flags about processes to JAX.
AUTO = 'auto'


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    define = command.definers(values)
    define.string('workdir', None, 'Where the run lives; an unfinished run there continues.')
    define.enum('mode', 'train', ['train', 'eval'], 'Train, or evaluate a trained run.')
    define.string('wandb', '', 'Project of Weights & Biases that gets the numbers, too (extra wandb).')
    define.string(
        'coordinator',
        None,
        'host:port of process 0, for several processes; auto: as the cluster says (Cloud TPU, GKE, Slurm, Open MPI).',
    )
    define.integer('processes', None, 'How many processes there are.', lower_bound=1)
    define.integer('process', None, 'The number of this process.', lower_bound=0)
    flags.mark_flag_as_required('workdir', values)
    return values


def _saved_config(values: flags.FlagValues) -> ml_collections.ConfigDict:
    if values.mode == 'train':
        raise run.RunError(f'--config is missing; expected one such as --config={CONFIG.example}')
    return run.saved_config(values.workdir)


CONFIG = command.ConfigFlag(
    help="A file of configs/, or the name of one of the package's; --mode=eval does without.", saved=_saved_config
)


def main(argv: list[str] | None = None) -> int:
    """Parses the flags, trains or evaluates, and returns the exit code."""
    logging.set_verbosity('warning')
    code = 1
    try:
        code = command.run(argv, __doc__, make_flags(), _main, config=CONFIG, describe_fields=fields.describe)
        return code
    finally:
        processes.leave(code)


def _main(values: flags.FlagValues) -> int:
    config, workdir = values.config, pathlib.Path(values.workdir)
    if values.wandb and values.mode == 'eval':
        raise run.RunError(f'--wandb={values.wandb} is for training; expected it without --mode=eval')
    if values.wandb and importlib.util.find_spec('wandb') is None:
        raise run.RunError(f'--wandb={values.wandb} needs the package wandb; pip install "stattn-jax[wandb]"')
    _start_processes(values)
    if not config.data.dir:
        raise run.RunError(
            'config.data.dir is not set; expected a directory that data_prep wrote; give --config.data.dir=DIR'
        )
    if config.data.extract and values.mode == 'train':
        config = extraction.prepared(config, workdir)
    if values.mode == 'train':
        numbers = train.train(config, workdir, lengthen=True, wandb=values.wandb)
    else:
        numbers = _evaluate(config, workdir)
    if jax.process_index() == 0:
        _print(numbers, workdir)
    return 0


def _start_processes(values):
    place = (values.coordinator, values.processes, values.process)
    if place == (None, None, None):
        return
    if place == (AUTO, None, None):
        place = (None, None, None)
    elif None in place or AUTO in place or values.process >= values.processes:
        raise run.RunError(
            f'--coordinator={values.coordinator} --processes={values.processes} --process={values.process}: '
            'expected all three, with --process from 0 to one less than --processes, or --coordinator=auto alone'
        )
    try:
        processes.join(*place)
    except ValueError as error:
        raise run.RunError(
            f'--coordinator={values.coordinator}: {error}; expected auto on Cloud TPU, GKE, Slurm or Open MPI, and '
            'elsewhere --coordinator=HOST:PORT --processes=N --process=I'
        ) from None


def _evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path):
    config_checks.check(config)
    run.check_workdir(workdir, config)
    run.make_strategy(config, config.eval.batch)
    if config.compile_cache:
        perf.enable_compile_cache(config.compile_cache)
    if not pathlib.Path(config.data.dir).is_dir():
        raise run.RunError(
            f'{workdir} was trained on the data in {config.data.dir}, which is no folder here; if the data have moved, '
            'give --config.data.dir=DIR'
        )
    info = source.DatasetInfo.load(config.data.dir)
    trained = run.load(workdir, parallel_kind=config.parallel)
    trunk_setup.check(config, info.spec, trained.trunks)
    files.make_folder(workdir)
    own, given = ((facts.classes, trunk_setup.media_of(facts.spec)) for facts in (trained.facts, info))
    if own != given:
        raise run.RunError(
            f'config.data.dir={config.data.dir} has other classes or another clip spec than the data that {workdir} '
            'was trained on; expected the same; prepare it with the same --classes and options'
        )
    own_data = info.fingerprint == trained.facts.fingerprint
    trained = run.with_spec(trained, info.spec)
    evaluator = evaluate.Evaluator(trained.graphdef, trained.strategy, config)
    if own_data:
        evaluator.write_training_distance(trained.state, trained.step, workdir)
    return {
        split: evaluator.write(trained.state, split, trained.step, workdir)
        for split in evaluate.splits_of(config, info)
    }


def _print(numbers, workdir: pathlib.Path):
    for split, values in numbers.items():
        print(f'\n{split}, {values["classification/n"]} clips (all numbers: {workdir}/eval_{split}.json):')
        print(score.summary(values))


if __name__ == '__main__':
    sys.exit(main())
