"""Measures by how much the writing of a checkpoint slows the training steps, on several processes of this machine.

  python -m benchmarks.saving --config=configs/synthetic.py [--processes=2] [--saves=5] [--between=20] [--out=FILE.json]

Each process trains on one CPU device, on made-up clips. A step counts as one during a save if the folder of the
checkpoint does not have its final name yet when the step begins, or if the step is the one that starts the save. The
longest step without a save, of as many windows of as many steps, is printed beside it: on a busy machine the two are
alike. Exit codes: 0 done; 1 a process failed; 2 wrong use.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags

from stattn_jax import command, files, run
from stattn_jax.benchmark import model
from stattn_jax.runtime import checkpoint, processes

# Classes, segments, mel frames and bands of the made-up clips.
DATA = model.Data(10, 8, (96, 64))


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_integer('processes', 2, 'How many processes train.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('saves', 5, 'How many checkpoints are written.', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('between', 20, 'Steps from one save to the next.', lower_bound=2, flag_values=values)
    flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=values)
    flags.DEFINE_string('coordinator', None, 'Set by this command for its processes.', flag_values=values)
    flags.DEFINE_integer('process', None, 'Set by this command for its processes.', flag_values=values)
    flags.DEFINE_string('folder', None, 'Set by this command for its processes.', flag_values=values)
    return values


def steps(config: ml_collections.ConfigDict, folder: pathlib.Path, saves: int, between: int) -> dict[str, Any]:
    """Trains in this process and saves after every `between` steps; returns seconds of the steps and of the saves.

    Each window is the seconds of the steps after a save has begun, that step included, and how many were during it.
    """
    strategy = run.make_strategy(config, config.train.batch)
    case = model.Case('train', config.parallel, config.model.dtype, config.train.batch)
    made = model.prepare(config, DATA, case, strategy, config.train.batch // jax.process_count())
    state, batch = strategy.place_state(made.state), strategy.place_batch(made.rows)
    keeper = checkpoint.Checkpointer(str(folder), keep=2)
    windows: list[dict[str, Any]] = []
    for number in range(-2, (saves + 1) * between):
        start = time.perf_counter()
        saving = bool(windows) and not (folder / str(windows[-1]['step'])).exists()
        state, metrics = made.compiled(state, batch)
        jax.block_until_ready(metrics)
        if number >= 0 and number % between == 0 and number:
            windows.append({'step': number, 'begun': start, 'seconds': [], 'during': 0})
            keeper.save(number, strategy.to_global(state), {})
            saving = True
        elif number == 0:
            windows.append({'step': number, 'begun': start, 'seconds': [], 'during': 0})
            keeper.save(number, strategy.to_global(state), {})
            keeper.wait()
            continue
        if windows:
            windows[-1]['seconds'].append(time.perf_counter() - start)
            windows[-1]['during'] += saving
    keeper.close()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state['params'])) * 3
    return {'windows': windows[1:], 'megabytes': size / 1e6}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the median step without a save, and the longest steps with and without one, as multiples of it."""
    windows = found['windows']
    quiet = [seconds for window in windows for seconds in window['seconds'][window['during'] :]]
    if not quiet:
        raise command.RunError('every step was during a save; expected some without one; give a larger --between')
    median = float(np.median(quiet))
    longest = [max(window['seconds'][: window['during']]) for window in windows]
    count = max(window['during'] for window in windows)
    others = [
        max(window['seconds'][window['during'] :][:count]) for window in windows if len(window['seconds']) > count
    ]
    return {
        'megabytes': found['megabytes'],
        'median_step_seconds': median,
        'steps_during_a_save': [window['during'] for window in windows],
        'longest_during_a_save': [seconds / median for seconds in longest],
        'longest_without_a_save': [seconds / median for seconds in others],
    }


def main(argv: list[str] | None = None) -> int:
    """Parses flags, starts the processes or is one of them, prints, writes JSON, and returns the exit code."""
    code = 1
    try:
        code = command.run(argv, __doc__, make_flags(), _main, config=command.ConfigFlag())
        return code
    finally:
        processes.leave(code)


def _main(values: flags.FlagValues) -> int:
    if values.process is None:
        return _start(values)
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 1)
    processes.join(values.coordinator, values.processes, values.process)
    found = steps(values.config, pathlib.Path(values.folder), values.saves, values.between)
    if values.process == 0:
        result = summary(found) | {'processes': values.processes}
        print(json.dumps(result, indent=1))
        if values.out:
            files.write_text(values.out, json.dumps(result, indent=1) + '\n')
    return 0


def _start(values: flags.FlagValues) -> int:
    """Starts the processes with the arguments of this one, and returns the exit code."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(('localhost', 0))
        place = (f'--coordinator=localhost:{probe.getsockname()[1]}', f'--folder={folder}')
        probe.close()
        words = [sys.executable, '-m', 'benchmarks.saving', *sys.argv[1:], *place]
        children = [subprocess.Popen([*words, f'--process={index}']) for index in range(values.processes)]
        return max(child.wait() for child in children)


if __name__ == '__main__':
    sys.exit(main())
