"""Tests that the notebooks run from top to bottom in an empty folder, and that their stored outputs are small."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import types

import av
import PIL.Image
import pytest
import runs

NOTEBOOKS = sorted((runs.ROOT / 'colab').glob('*.ipynb'))
MOST_BYTES = 200_000


def execute(name, folder, devices=1, **parameters):
    """Runs every cell of a notebook in a new process, in an empty folder, and returns its output."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(runs.ROOT),
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    }
    environment.pop('XLA_FLAGS', None)
    words = [f'{name}={json.dumps(value)}' for name, value in parameters.items()]
    command = [sys.executable, str(runs.ROOT / 'tools' / 'run_notebook.py'), str(runs.ROOT / 'colab' / name), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_small(path):
    """Verifies that ids describe the cells, and that outputs are small, whole and without errors or foreign paths.

    The file must be formatted as json.dumps does, so that a diff shows only the changes.
    """
    text = path.read_text(encoding='utf-8')
    content = json.loads(text)
    assert text == json.dumps(content, indent=1, ensure_ascii=False) + '\n' and len(text) < MOST_BYTES
    assert (content['nbformat'], content['nbformat_minor']) == (4, 5)
    assert set(content['metadata']) == {'accelerator', 'colab', 'kernelspec', 'language_info'}
    cells = content['cells']
    names = [cell['id'] for cell in cells]
    assert len(set(names)) == len(names) and all(re.fullmatch(r'[a-z-]{2,20}', name) for name in names)
    assert sum('parameters' in cell['metadata'].get('tags', []) for cell in cells) == 1
    for cell in cells:
        assert set(cell['metadata'].get('tags', [])) <= {'parameters'} and set(cell['metadata']) <= {'tags'}
        assert cell['source'] and all(len(line) <= 160 for line in cell['source'] if '](https://' not in line)
        if cell['cell_type'] == 'code':
            assert cell['execution_count'] is None
            assert {output['output_type'] for output in cell['outputs']} <= {'stream', 'display_data'}
            assert not re.search(r'(?<![\w.])/(tmp|home|root|work|content)/', json.dumps(cell['outputs']))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_notebooks_show_their_outputs(path):
    cells = {cell['id']: cell for cell in json.loads(path.read_text(encoding='utf-8'))['cells']}
    silent = {name for name, cell in cells.items() if cell['cell_type'] == 'code' and not cell['outputs']}
    assert silent <= {'install', 'parameters', 'run'}
    if path.stem == 'quickstart':
        picture = cells['picture']['outputs'][0]['data']['image/jpeg']
        assert PIL.Image.open(io.BytesIO(base64.b64decode(picture))).width > 500


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ['quickstart', 'tpu_demo']


@pytest.mark.parametrize(('name', 'accelerator'), [('quickstart', 'GPU'), ('tpu_demo', 'TPU')])
def test_the_badge_and_pip_use_the_same_address_and_the_runtime_is_set(name, accelerator):
    content = json.loads((runs.ROOT / 'colab' / f'{name}.ipynb').read_text(encoding='utf-8'))
    cells = {cell['id']: ''.join(cell['source']) for cell in content['cells']}
    repository = re.match(r"REPOSITORY = 'https://github.com/(.*?)'", cells['install'])[1]
    badge = f'](https://colab.research.google.com/github/{repository}/blob/main/colab/{name}.ipynb)'
    assert badge in cells['title'] and badge in (runs.ROOT / 'README.md').read_text(encoding='utf-8')
    assert content['metadata']['accelerator'] == accelerator


def test_pip_installs_from_the_address_where_the_program_is_not_there(monkeypatch):
    cells = json.loads(NOTEBOOKS[0].read_text(encoding='utf-8'))['cells']
    code = next(''.join(cell['source']) for cell in cells if cell['id'] == 'install')
    commands = []
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setattr(subprocess, 'run', lambda words: commands.append(words) or types.SimpleNamespace(returncode=1))
    monkeypatch.setattr(os.path, 'exists', lambda path: path == '/dev/accel0')
    with pytest.raises(SystemExit, match='pip could not install from https://.*: set REPOSITORY to the address'):
        exec(code, {})
    assert commands[0][1:] == ['-m', 'pip', 'install', '--quiet', commands[0][-1]]
    assert re.fullmatch(r'stattn-jax\[tpu\] @ git\+https://github\.com/\w+/stattn_jax', commands[0][-1])


@pytest.mark.slow
def test_the_quick_start_trains_and_shows_an_explanation(tmp_path, scene_video):
    small = {name: value for name, value in runs.SMALL.items() if name != 'train.steps'}
    # The clips of the quick start have its own 64 pixels; the network resizes them to the size that the tests use.
    parameters = {'OUT': 'out', 'TRAIN_CLIPS': 16, 'TEST_CLIPS': 4, 'STEPS': 4}
    out = execute('quickstart.ipynb', tmp_path, **parameters, FIELDS=small, OWN_VIDEO=str(scene_video))
    assert re.findall(r'SHOWN (\S+) (<iframe|\d+ bytes)', out)[::2] == [('explanation', '<iframe'), ('own', '<iframe')]
    assert int(re.search(r'SHOWN picture (\d+) bytes of JPEG', out)[1]) < MOST_BYTES
    table = dict(re.findall(r'^(accuracy|where: attention on the object) .* ([\d.]+)%$', out, re.MULTILINE))
    assert table['accuracy'] == '10.0' and 0 < float(table['where: attention on the object']) < 100
    total, logit = re.search(r'sum ([+-][\d.]+), logit ([+-][\d.]+)', out).groups()
    assert float(total) == pytest.approx(float(logit), abs=2e-4)
    kinds = {path.suffix for path in (tmp_path / 'out' / 'explained').iterdir()}
    assert kinds == {'.html', '.mp4', '.png', '.json', '.csv', '.vtt'}
    with av.open(tmp_path / 'out' / 'explained' / 'explanation.mp4') as container:
        assert container.duration == pytest.approx(8e6, abs=0.2e6)


@pytest.mark.slow
def test_the_race_runs_on_all_devices_and_both_get_the_same_losses(tmp_path):
    out = execute('tpu_demo.ipynb', tmp_path, devices=2)
    assert re.findall(r'clips (\d) to (\d) of 8', out) == [('0', '3'), ('4', '7')]
    rows = re.findall(
        r'^(jit|pmap) (float32|bfloat16) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)', out, re.MULTILINE
    )
    speeds = {row[:2]: [float(x) for x in row[2:]] for row in rows if '.' in row[6]}
    assert len(speeds) == 4
    for clips, each, milliseconds, fastest, slowest in speeds.values():
        assert clips == pytest.approx(2 * each, rel=0.1) and fastest <= milliseconds <= slowest
        assert clips == pytest.approx(8 / milliseconds * 1000, rel=0.05)
    difference = dict(re.findall(r'(float32|bfloat16): largest relative difference (\S+)', out))
    assert float(difference['float32']) < 1e-4 and float(difference['bfloat16']) < 0.05
