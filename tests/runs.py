"""The commands at toy size, for their tests: a tiny synthetic data set, the flags of a tiny run, and its process."""

import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from data_prep import prepare, scenes, synthetic
from stattn_jax import main
from stattn_jax.data import media

ROOT = pathlib.Path(__file__).parents[1]
SEGMENTS, SIDE = 6, 16
SMALL = {
    'data.frame_size': SIDE,
    'data.threads': 1,
    'model.frame_size': SIDE,
    'model.width': 16,
    'model.hidden': 8,
    'loss.negatives': 1,
    'optim.warmup_steps': 2,
    'train.steps': 10,
    'train.batch': 8,
    'train.log_every_steps': 1,
    'train.eval_every_steps': 5,
    'train.save_every_steps': 2,
    'eval.batch': 8,
    'eval.shortcut_clips': 4,
}
# Several packages look for a heavy library; a stand-in records that a run would have imported it if it were installed.
HEAVY = ('tensorflow', 'torch')
STAND_IN = 'import pathlib\npathlib.Path(__file__ + ".imported").touch()\nraise ImportError("a stand-in")\n'


def make_data(out: pathlib.Path, train: int, seed: int = 0, val: int = 6) -> pathlib.Path:
    """Prepares `train` clips of the variant events, of six seconds and 16 pixels, `val` for val and six for test."""
    counts = {'train': train, 'val': val, 'test': 6}
    prepare.prepare(
        out,
        'synthetic_events',
        [synthetic.job('events', SEGMENTS, seed, split, i) for split, n in counts.items() for i in range(n)],
        functools.partial(synthetic.make_record, 'events'),
        classes=scenes.CLASSES,
        spec=media.ClipSpec(segments=SEGMENTS, short_side=SIDE),
        multi_label=False,
        workers=0,
    )
    return out


def make_video(path: pathlib.Path, number: int, sound: bool = True) -> pathlib.Path:
    """Writes a scene of the variant events, by its number in the test split, as a small mp4."""
    scene = scenes.make_scene('events', SEGMENTS, (0, 2, number))
    frames = scenes.draw(scene, np.arange(SEGMENTS * 4) / 4, 64)
    media.write_video(path, frames, 4, scenes.sound(scene) if sound else None, scenes.RATE)
    return path


def make_flags(workdir, data, config='configs/synthetic.py', **fields) -> list[str]:
    """Returns the command line of a tiny run; `fields` are written as train__steps=3."""
    values = SMALL | {'data.dir': data} | {name.replace('__', '.'): value for name, value in fields.items()}
    return [
        f'--config={ROOT / config}',
        f'--workdir={workdir}',
        *(f'--config.{name}={x}' for name, x in values.items()),
    ]


def run_main(*arguments: str) -> int:
    """Runs `python -m stattn_jax.main ARGUMENTS` in this process and returns its exit code."""
    return run_here(main.main, *arguments)


def run_here(command: Callable[[list[str]], int], *arguments: str) -> int:
    """Runs a command that takes --config in this process and returns its exit code."""
    return command(['command', *map(str, arguments)])


def start(module: str, *arguments: str, path: str = '', devices: int = 1) -> subprocess.Popen:
    """Starts `python -m MODULE ARGUMENTS` on CPU devices.

    Most optimisations of the compiler are disabled, since compilation takes most of the time of a tiny run.
    """
    environment = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
        'PYTHONPATH': os.pathsep.join(filter(None, [str(path), str(ROOT)])),
    }
    return subprocess.Popen(
        [sys.executable, '-m', module, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Returns the output of a process, which must end with exit code 0."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return output


def metrics(workdir: pathlib.Path, name: str = 'train/loss') -> dict[int, float]:
    """Returns step -> value from metrics.jsonl and asserts that every step occurs once."""
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    values = [(row['step'], row[name]) for row in rows if name in row]
    assert len(dict(values)) == len(values)
    return dict(values)


def stand_ins(folder: pathlib.Path) -> pathlib.Path:
    """Makes a folder for PYTHONPATH whose modules HEAVY fail to import and record the attempt."""
    folder.mkdir(exist_ok=True)
    for name in HEAVY:
        (folder / f'{name}.py').write_text(STAND_IN)
    return folder
