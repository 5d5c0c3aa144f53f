"""Benchmarks: `python -m stattn_jax.benchmark --config=configs/X.py [--strategies=jit,pmap] [--out=FILE.json]`.

The command measures a config's training step, its head alone, its forward pass, and its forward pass with explanation.
These modes run on made-up clips and need only JAX and Flax. With --config.data.dir=DATA, the mode `fed` measures the
input by itself and together with the step. Every combination of modes, strategies, dtypes and batches is printed as one
line. Times depend on the current load of the computer, so compare only lines of one run.

With --topology=v5e-4, nothing is measured: the programs are compiled for TPUs or GPUs that need not be there
(pip install "stattn-jax[tpu]"), and their memory, bytes and collectives are counted (docs/benchmarks.md).

Exit codes: 0 done; 2 wrong use.
"""

import datetime
import json
import pathlib
import sys

import jax
from absl import flags

from stattn_jax import command, files
from stattn_jax.benchmark import model, table, topology_command
from stattn_jax.runtime import parallel

MODES = (*model.MODES, 'fed')


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    define = command.definers(values)
    define.list('strategies', ['jit'], f'Of {", ".join(parallel.KINDS)}.')
    define.list('dtypes', [], "Of float32, bfloat16. Default: the config's.")
    define.list('batches', [], "Global batch sizes. Default: the config's.")
    define.list('modes', list(model.MODES), f'Of {", ".join(MODES)}; fed needs data.')
    define.integer('calls', 20, 'Timed rounds of each line.', lower_bound=1)
    define.integer('warmup', 3, 'Untimed calls before them.', lower_bound=0)
    define.integer('together', 1, 'Calls in a round, the device not waited for in between.', lower_bound=1)
    define.integer('classes', 309, 'Classes of made-up clips.', lower_bound=2)
    define.integer('segments', 10, 'Segments of made-up clips.', lower_bound=1)
    define.string('out', None, 'A JSON file to write the lines to.')
    define.string('profile', None, 'A folder for an xprof trace of each line.')
    topology_command.define_flags(values)
    return values


def main(argv: list[str] | None = None) -> int:
    """Parses the flags, measures, prints a table, writes JSON, and returns the exit code."""
    return command.run(argv, __doc__, make_flags(), _main, config=command.ConfigFlag(), wrong_use=ValueError)


def _main(values: flags.FlagValues) -> int:
    if values.topology:
        jobs = topology_command.jobs(values, _cases(values, split=False))
        return topology_command.run(values, _data(values), jobs)
    cases, data, rows = _cases(values), _data(values), []
    if values.out:
        files.make_folder(pathlib.Path(values.out).parent)
    for case in cases:
        rows.append(_measure(values, data, case))
        print('\n'.join(table.lines(rows[-1], head=len(rows) == 1)), flush=True)
    for line in table.shares(rows):
        print(line)
    if values.out:
        content = {
            'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
            'versions': {'python': sys.version.split()[0], 'jax': jax.__version__},
            'data': {'classes': data.classes, 'segments': data.segments, 'mel': list(data.mel)},
            'config': values.config.to_dict(),
            'rows': rows,
        }
        files.write_text(values.out, json.dumps(content, indent=1) + '\n')
    return 0


def _cases(values, split: bool = True) -> list[model.Case]:
    """Returns every combination of the flags, all checked before the first is compiled.

    With `split`, batches must split over the devices of this computer.
    """
    config = values.config
    choices = {
        'modes': (values.modes, MODES),
        'strategies': (values.strategies, parallel.KINDS),
        'dtypes': (values.dtypes or [config.model.dtype], ('float32', 'bfloat16')),
    }
    for name, (given, known) in choices.items():
        for value in given:
            if value not in known:
                raise command.RunError(f'--{name} has {value!r}; expected some of {", ".join(known)}')
    try:
        batches = [int(batch) for batch in values.batches or [config.train.batch]]
    except ValueError:
        raise command.RunError(f'--batches={",".join(values.batches)}; expected whole numbers such as 16,32') from None
    if 'fed' in values.modes and not config.data.dir:
        raise command.RunError('--modes has fed, which reads data; give --config.data.dir=DIR, or leave fed out')
    if 'explain' in values.modes and config.model.kind != 'stan':
        raise command.RunError(
            f'--modes has explain, but the logits of config.model.kind {config.model.kind!r} are no sum of terms; '
            'expected stan, or --modes without explain'
        )
    if config.model.visual == 'precomputed':
        raise command.RunError('config.model.visual is precomputed; expected a trunk that reads frames')
    for batch in batches if split else ():
        for strategy in values.strategies:
            parallel.make_strategy(strategy).check_batch(batch)
    return [
        model.Case(mode, strategy, dtype, batch)
        for dtype in choices['dtypes'][0]
        for batch in batches
        for mode in values.modes
        for strategy in values.strategies
    ]


def _data(values) -> model.Data:
    """Returns the shape of the data in config.data.dir, or else of made-up clips with VGGish's patches."""
    if not values.config.data.dir:
        return model.Data(values.classes, values.segments, (96, 64))
    from stattn_jax.benchmark import feed  # imported here because not every installation has its imports

    return feed.data_of(values.config)


def _measure(values, data: model.Data, case: model.Case) -> dict:
    if case.mode == 'fed':
        from stattn_jax.benchmark import feed

        case = model.Case('train', case.strategy, case.dtype, case.batch)
        return feed.measure(values.config, data, case, steps=values.calls * values.together, warmup=values.warmup)
    trace = values.profile and f'{values.profile}/{case.mode}-{case.strategy}-{case.dtype}-{case.batch}'
    return model.measure(
        values.config, data, case, calls=values.calls, warmup=values.warmup, together=values.together, trace=trace
    )


if __name__ == '__main__':
    sys.exit(main())
