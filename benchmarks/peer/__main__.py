"""Benchmarks the JAX network and training step against the same ones in PyTorch.

  python -m benchmarks.peer --config=configs/vggsound.py [--compile] [--out=FILE.json]

Both get the same weights. Their outputs are compared first, and nothing is timed if they differ; --nocheck skips this.
Then all variants alternate in rounds of one process, on one device, with the same number of threads and the same random
clips. --layers
prints instead each distinct convolution of the frame trunk by itself. Needs only JAX, Flax, optax and torch (pip
install torch); computes where JAX does: JAX_PLATFORMS=cpu keeps both off an accelerator. Exit codes: 0 done; 1 the
outputs differ; 2 wrong use.
"""

import datetime
import json
import os
import pathlib
import sys

import jax
from absl import flags

from stattn_jax import command
from stattn_jax.benchmark import model

MODES = ('train', 'forward')


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_integer('batch', 16, 'Clips a step.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('segments', 10, 'Segments of a clip.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('classes', 309, 'Classes.', lower_bound=2, flag_values=values)
    flags.DEFINE_list('modes', list(MODES), f'Of {", ".join(MODES)}.', flag_values=values)
    flags.DEFINE_bool('check', True, 'Compare the outputs of both before timing them.', flag_values=values)
    flags.DEFINE_bool('ours', True, 'Time the JAX version.', flag_values=values)
    flags.DEFINE_bool('eager', True, 'Time PyTorch without torch.compile.', flag_values=values)
    flags.DEFINE_bool('compile', False, 'Time PyTorch with torch.compile too.', flag_values=values)
    flags.DEFINE_bool('channels_last', True, "PyTorch's layout of pictures.", flag_values=values)
    flags.DEFINE_bool('layers', False, 'Time the convolutions of the frame trunk.', flag_values=values)
    flags.DEFINE_integer('rounds', 10, 'Rounds of every side.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        'calls', 1, 'Calls in a round, the device not waited for in between.', lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer('warmup', 2, 'Untimed calls before the rounds.', lower_bound=0, flag_values=values)
    flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=values)
    return values


def main(argv: list[str] | None = None) -> int:
    """Parses flags, compares, times, prints, writes JSON, and returns the exit code."""
    # Two frameworks share an accelerator's memory, and by default JAX would preallocate most of it.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    return command.run(argv, __doc__, make_flags(), _main, config=command.ConfigFlag(), wrong_use=ValueError)


def _main(values: flags.FlagValues) -> int:
    content = _measure(values, *_ready(values))
    if values.out:
        pathlib.Path(values.out).write_text(json.dumps(content, indent=1) + '\n')
    return 0


def _ready(values) -> tuple[str, int]:
    """Returns the device that both compute on and the number of threads of each, and configures torch accordingly."""
    for mode in values.modes:
        if mode not in MODES:
            raise command.RunError(f'--modes has {mode!r}; expected some of {", ".join(MODES)}')
    try:
        import torch
    except ImportError:
        raise command.RunError('torch, which the peer is written in, is not installed; pip install torch') from None
    from benchmarks.peer import network, race  # imported here because they import torch

    network.check(values.config)
    backend = jax.default_backend()
    if backend not in ('cpu', 'gpu') or (backend == 'gpu' and not torch.cuda.is_available()):
        raise command.RunError(
            f'JAX computes on {backend}, where torch {torch.__version__} cannot; expected one device for both; '
            'set JAX_PLATFORMS=cpu or install a torch for it'
        )
    threads = race.threads_of_xla()
    torch.set_num_threads(threads)
    # This equals XLA's default for float32 products on tensor cores.
    torch.set_float32_matmul_precision('high')
    return ('cuda' if backend == 'gpu' else 'cpu'), threads


def _measure(values, device: str, threads: int) -> dict:
    """Compares, times and prints; returns the content of --out."""
    import torch

    from benchmarks.peer import compare, layers, race

    config, data = values.config, model.Data(values.classes, values.segments, (96, 64))
    kind = jax.devices()[0].device_kind
    print(
        f'{kind}: {threads} threads on each side, jax {jax.__version__}, torch {torch.__version__}, trunks in '
        f'{config.model.dtype}',
        flush=True,
    )
    found = {}
    try:
        if values.check:
            found = compare.same(config, data, device=device, channels_last=values.channels_last)
    except compare.DifferentError as error:
        raise command.RunError(str(error), code=1) from None
    for dtype, each in found.items():
        print(f'same in {dtype}: ' + ', '.join(f'{name} {x:.1e}' for name, x in each.items()), flush=True)
    content = {
        'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'versions': {'python': sys.version.split()[0], 'jax': jax.__version__, 'torch': torch.__version__},
        'device': kind,
        'threads': threads,
        'channels_last': values.channels_last,
        'data': {'classes': data.classes, 'segments': data.segments, 'mel': list(data.mel)},
        'config': config.to_dict(),
        'differences': found,
    }
    plan = race.Plan(values.rounds, values.calls, values.warmup)
    options = {'device': device, 'channels_last': values.channels_last}
    if values.layers:
        rows = layers.measure(config, data, values.batch, plan, **options)
        print('\n'.join(layers.lines(rows)))
        return content | {'layers': rows}
    rows = []
    for mode in values.modes:
        sides = {}
        if values.ours:
            sides['ours'] = race.our_side(config, data, mode, values.batch)
        for name, compiled, wanted in (('eager', False, values.eager), ('compiled', True, values.compile)):
            if wanted:
                sides[name] = race.their_side(config, data, mode, values.batch, compiled=compiled, **options)
        rows.append(race.row(mode, values.batch, sides, race.run(sides, plan)))
        print('\n'.join(race.lines(rows[-1])), flush=True)
    return content | {'rows': rows}


if __name__ == '__main__':
    sys.exit(main())
