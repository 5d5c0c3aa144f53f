"""Tests the benchmark's command at toy size: its output, its requirements, and the flags that it rejects."""

import json
import subprocess
import sys

import pytest
import runs
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.benchmark import __main__ as benchmark
from stattn_jax.benchmark import timing

CONFIG = f'--config={runs.ROOT / "configs/synthetic.py"}'
SMALL = [f'--config.{name}={x}' for name, x in runs.SMALL.items()] + [
    '--calls=2',
    '--warmup=1',
    '--classes=5',
    '--segments=3',
]


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['jit', 'pmap'])
def test_lines_hold_times_counts_and_memory(strategy, tmp_path, capsys, tiny_data):
    out = tmp_path / 'benchmark.json'
    flags = [CONFIG, *SMALL, f'--strategies={strategy}', '--modes=train,head,explain,fed', f'--out={out}']
    assert runs.run_here(benchmark.main, *flags, f'--config.data.dir={tiny_data}') == 0
    results = json.loads(out.read_text())
    train, head, explain, fed = results['rows']
    assert [row['mode'] for row in results['rows']] == ['train', 'head', 'explain', 'fed']
    assert train['seconds']['fastest'] <= train['seconds']['median'] and train['compile_seconds'] > 0
    assert train['clips_per_second'] == pytest.approx(8 / train['seconds']['median'])
    assert train['temp_bytes'] > 0 and train['moved_bytes'] > 0 and train['devices'] == 8
    assert train['products_flops'] > 2 * explain['products_flops'] > 0
    assert 0 < head['products_flops'] < train['products_flops'] / 5
    assert fed['input_clips_per_second'] > 0 and 0 <= fed['wait_share'] <= 1
    assert results['data'] == {'classes': 10, 'segments': 6, 'mel': [96, 64]}
    printed = capsys.readouterr().out
    assert printed.count('\n') == 6 and 'waiting' in printed and f'of the step ({strategy}, float32, 8)' in printed


ABSENT = ('tensorflow_datasets', 'grain', 'librosa', 'av', 'simplejpeg', 'PIL', 'google_crc32c', 'orbax', 'matplotlib')


def test_model_modes_need_jax_and_flax_alone():
    """Verifies that the model modes need neither records, TFDS, Grain nor media libraries.

    Importing the modules of ABSENT fails here.
    """
    code = (
        'import sys\n'
        f'absent = {ABSENT!r}\n'
        'sys.modules.update(dict.fromkeys(absent))\n'
        'from stattn_jax.benchmark import __main__ as benchmark\n'
        f'sys.exit(benchmark.main(["benchmark", {CONFIG!r}, *{SMALL!r}, "--modes=forward"]))'
    )
    environment = {'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'PATH': ''}
    run = subprocess.run([sys.executable, '-c', code], cwd=runs.ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'forward' in run.stdout


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--strategies=jit,xmap', "--strategies has 'xmap'; expected some of jit, pmap"),
        ('--modes=fed', 'give --config.data.dir=DIR'),
        ('--config.data.dir=nowhere', "data directory 'nowhere' does not exist"),
        ('--batches=8,many', '--batches=8,many; expected whole numbers'),
        ('--batches=12', 'global batch 12 does not split over 8 devices'),
        ('--config.model.widht=3', 'model.width'),
        ('--config.model.kind=cam', "--modes has explain, but the logits of config.model.kind 'cam' are no sum"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_compiled(flag, words, capsys):
    assert runs.run_here(benchmark.main, CONFIG, *SMALL, flag) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert words in line


def test_times_are_those_of_a_call(monkeypatch):
    """The calls advance a fake clock by 1 s in the warm-up, then by 2 s and once by 10 s."""
    clock = {'now': 0.0, 'steps': iter([1, 2, 2, 10, 2, 2, 2])}
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock['now'])

    def call():
        clock['now'] += next(clock['steps'])

    found = timing.repeat(call, calls=3, warmup=1, together=2)
    assert (found.median, found.fastest, found.host) == (2, 2, 2)
    assert found.high == pytest.approx((2 + 6) / 2)
