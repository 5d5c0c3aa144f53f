"""Installs the wheel in a fresh environment and runs its commands from another folder.

The wheel must contain no top-level package whose name could clash with another package.
"""

import configparser
import json
import os
import pathlib
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile

import pytest
import runs

from data_prep import scenes

PARTS = ('stattn_jax', 'data_prep', 'configs', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')


def listed_packages():
    """Returns the packages that setup.cfg names."""
    setup = configparser.ConfigParser()
    setup.read(runs.ROOT / 'setup.cfg')
    return setup['options']['packages'].split()


def test_every_package_is_listed():
    folders = [p.parent for top in ('stattn_jax', 'data_prep') for p in (runs.ROOT / top).rglob('__init__.py')]
    names = {'.'.join(folder.relative_to(runs.ROOT).parts) for folder in folders}
    assert set(listed_packages()) == names | {'stattn_jax.config_files.configs'}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Path of a wheel built from a copy of the sources, because building writes beside them."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for part in PARTS:
        path = runs.ROOT / part
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(path, source / part, ignore=ignored) if path.is_dir() else shutil.copy(path, source)
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', out, source], check=True)
    (path,) = out.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def scripts(wheel, tmp_path_factory):
    """Path of the commands of an environment that holds the wheel; its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp('environment')
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    python = folder / 'bin' / 'python'
    own = subprocess.run(
        [python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
        check=True,
        capture_output=True,
        text=True,
    )
    (pathlib.Path(own.stdout.strip()) / 'dependencies.pth').write_text(sysconfig.get_path('purelib'))
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', wheel], check=True)
    return folder / 'bin'


def run(scripts, name, *arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    environment |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
    done = subprocess.run(
        [scripts / name, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_two_packages_and_the_configs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split('/')[0] for name in names if '.dist-info' not in name} == {'stattn_jax', 'data_prep'}
    assert {
        'stattn_jax/py.typed',
        'stattn_jax/config_files/configs/own.py',
        'stattn_jax/explain/page/style.css',
        'stattn_jax/pretrained/demo/model.safetensors',
        'stattn_jax/pretrained/av_digits/model.safetensors',
        'stattn_jax/pretrained/av_digits/NOTICE',
    } <= set(names)


@pytest.mark.slow
def test_three_videos_are_prepared_trained_on_and_explained_from_another_folder(scripts, tmp_path):
    assert not any((pathlib.Path(p) / 'stattn_jax').exists() for p in site.getsitepackages()), (
        'the wheel would not be tried'
    )
    videos = tmp_path / 'videos'
    videos.mkdir()
    for number in range(3):
        runs.make_video(videos / f'{number}.mp4', number)
    rows = [
        f'{n},{n}.mp4,0,6,{split},{label}'
        for n, split, label in ((0, 'train', 'a'), (1, 'train', 'b'), (2, 'test', 'a'))
    ]
    (tmp_path / 'clips.csv').write_text('\n'.join(['clip_id,video,start,end,split,labels', *rows]) + '\n')
    # A folder named like ours must not be imported instead.
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / '__init__.py').write_text('')

    prepare = ('folder', '--videos=videos', '--clips=clips.csv', '--out=data', '--segments=6', '--workers=0')
    run(scripts, 'stattn-prepare', *prepare, cwd=tmp_path)
    assert 'train' in run(scripts, 'stattn-verify', 'data', cwd=tmp_path)
    fields = runs.SMALL | {'data.dir': 'data', 'train.batch': 2, 'train.steps': 2, 'eval.batch': 2}
    flags = [f'--config.{name}={value}' for name, value in fields.items()]
    assert 'accuracy' in run(scripts, 'stattn-train', '--config=own:tiny', '--workdir=run', *flags, cwd=tmp_path)
    explain = [f'--video=videos/{number}.mp4' for number in range(3)]
    run(scripts, 'stattn-explain', '--workdir=run', '--out=pages', *explain, cwd=tmp_path)
    assert len(list((tmp_path / 'pages').glob('*/*.html'))) == 3
    demo = run(scripts, 'stattn-explain', '--workdir=demo', '--video=videos/0.mp4', '--out=tried', cwd=tmp_path)
    assert f'{scenes.CLASSES[scenes.make_scene("events", runs.SEGMENTS, (0, 2, 0)).label]} ' in demo
    run(scripts, 'stattn-export', '--workdir=run', '--out=shared', cwd=tmp_path)
    run(scripts, 'stattn-explain', '--workdir=shared', '--video=videos/0.mp4', '--out=again', cwd=tmp_path)
    ours, theirs = (json.loads((tmp_path / name / 'explanation.json').read_text()) for name in ('pages/0', 'again'))
    assert theirs['model'] == ours['model'] and theirs['probabilities'] == pytest.approx(
        ours['probabilities'], abs=1e-6
    )
    assert 'resnet50' in run(scripts, 'stattn-weights', 'list', cwd=tmp_path)
    for name, flag in (('benchmark', 'strategies'), ('study', 'workers')):
        assert f'--{flag}' in run(scripts, f'stattn-{name}', '--help', cwd=tmp_path)
