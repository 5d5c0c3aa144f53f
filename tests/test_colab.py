"""Tests that the notebooks run from top to bottom, show the promised output and are stored cleanly."""

import json
import os
import re
import subprocess
import sys

import av
import pytest
import runs

NOTEBOOKS = sorted((runs.ROOT / 'colab').glob('*.ipynb'))
# This imitates a notebook's kernel: it runs the cells in order and shows the last expression of each.
RUNNER = """
import ast, json, sys
path, given = sys.argv[1], json.loads(sys.argv[2])
space = {'__name__': '__main__'}
for cell in json.load(open(path, encoding='utf-8'))['cells']:
    tags = cell['metadata'].get('tags', [])
    if cell['cell_type'] != 'code' or 'colab' in tags:
        continue
    tree = ast.parse(''.join(cell['source']), cell['id'])
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, cell['id'], 'exec'), space)
    if 'parameters' in tags:
        unknown = set(given) - set(space)
        assert not unknown, unknown
        space.update(given)
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), cell['id'], 'eval'), space)
        if hasattr(shown, '_repr_html_'):
            print('SHOWN', cell['id'], shown._repr_html_()[:30])
"""


def execute(name, folder, devices=1, **parameters):
    """Runs the cells of a notebook that are not specific to Colab in a new process and returns their output."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(runs.ROOT),
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    }
    environment.pop('XLA_FLAGS', None)
    command = [sys.executable, '-c', RUNNER, str(runs.ROOT / 'colab' / name), json.dumps(parameters)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path):
    """Verifies that a notebook has no outputs and no counts, and that ids describe the cells.

    The file must be formatted as json.dumps does, so that a diff shows only the changes.
    """
    text = path.read_text(encoding='utf-8')
    content = json.loads(text)
    assert text == json.dumps(content, indent=1, ensure_ascii=False) + '\n'
    assert (content['nbformat'], content['nbformat_minor']) == (4, 5)
    assert set(content['metadata']) == {'kernelspec', 'language_info'}
    cells = content['cells']
    names = [cell['id'] for cell in cells]
    assert len(set(names)) == len(names) and all(re.fullmatch(r'[a-z-]{2,20}', name) for name in names)
    assert sum('parameters' in cell['metadata'].get('tags', []) for cell in cells) == 1
    for cell in cells:
        assert set(cell['metadata'].get('tags', [])) <= {'colab', 'parameters'} and set(cell['metadata']) <= {'tags'}
        assert cell['source'] and all(len(line) <= 160 for line in cell['source'])
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == [] and cell['execution_count'] is None


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ['quickstart', 'tpu_demo']


def test_only_colabs_own_cells_need_colab():
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            own = 'colab' in cell['metadata'].get('tags', [])
            asks = re.search(r'google\.colab|\bpip\b|/content', ''.join(cell['source']))
            assert own == (cell['cell_type'] == 'code' and asks is not None), cell['id']


@pytest.mark.slow
def test_the_quick_start_trains_and_shows_an_explanation(tmp_path, scene_video):
    small = {name: value for name, value in runs.SMALL.items() if name != 'train.steps'}
    # The clips of the quick start have its own 64 pixels; the network resizes them to the size that the tests use.
    parameters = {'OUT': 'out', 'TRAIN_CLIPS': 16, 'TEST_CLIPS': 4, 'STEPS': 4}
    said = execute('quickstart.ipynb', tmp_path, **parameters, FIELDS=small, OWN_VIDEO=str(scene_video))
    assert re.findall(r'SHOWN (\S+) (\S+)', said) == [('explanation', '<iframe'), ('own', '<iframe')]
    table = dict(re.findall(r'^(accuracy|where: attention on the object) .* ([\d.]+)%$', said, re.MULTILINE))
    assert table['accuracy'] == '10.0' and 0 < float(table['where: attention on the object']) < 100
    total, logit = re.search(r'sum ([+-][\d.]+), logit ([+-][\d.]+)', said).groups()
    assert float(total) == pytest.approx(float(logit), abs=2e-4)
    kinds = {path.suffix for path in (tmp_path / 'out' / 'explained').iterdir()}
    assert kinds == {'.html', '.mp4', '.png', '.json', '.csv', '.vtt'}
    with av.open(tmp_path / 'out' / 'explained' / 'explanation.mp4') as container:
        assert container.duration == pytest.approx(8e6, abs=0.2e6)


@pytest.mark.slow
def test_the_race_runs_on_all_devices_and_both_get_the_same_losses(tmp_path):
    said = execute(
        'tpu_demo.ipynb',
        tmp_path,
        devices=2,
        BATCH_PER_DEVICE=4,
        SEGMENTS=6,
        TRUNK='tiny',
        FRAME_SIZE=16,
        WIDTH=16,
        WARM_UP=2,
        REPETITIONS=3,
        STEPS=2,
    )
    assert re.findall(r'clips (\d) to (\d) of 8', said) == [('0', '3'), ('4', '7')]
    rows = re.findall(
        r'^(jit|pmap) (float32|bfloat16) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)', said, re.MULTILINE
    )
    speeds = {row[:2]: [float(x) for x in row[2:]] for row in rows if '.' in row[6]}
    assert len(speeds) == 4
    for clips, each, milliseconds, fastest, slowest in speeds.values():
        assert clips == pytest.approx(2 * each, rel=0.1) and fastest <= milliseconds <= slowest
        assert clips == pytest.approx(8 / milliseconds * 1000, rel=0.05)
    difference = dict(re.findall(r'(float32|bfloat16): largest relative difference (\S+)', said))
    assert float(difference['float32']) < 1e-4 and float(difference['bfloat16']) < 0.05
