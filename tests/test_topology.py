"""Tests compiling for described TPUs: names, refusals, resuming; a slow test compiles where libtpu is installed."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest
import runs
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.benchmark import __main__ as benchmark
from stattn_jax.benchmark import cost_model, topology, topology_command
from stattn_jax.benchmark.cost_model import Slice

CONFIG = f'--config={runs.ROOT / "configs/synthetic.py"}'
SMALL = [f'--config.{name}={x}' for name, x in runs.SMALL.items()] + ['--classes=5', '--segments=3']
ROW = {'chip': 'v5e', 'sides': [2, 2], 'chips': 4, 'device_kind': 'TPU v5 lite', 'layers': 'plain', 'effort': 0.0}
COUNTS = {
    'fits': True, 'lower_seconds': 1.0, 'compile_seconds': 2.0, 'argument_bytes': 3 * 2**20, 'output_bytes': 2**20,
    'temp_bytes': 5 * 2**20, 'alias_bytes': 2**20, 'generated_code_bytes': 2**20, 'used_bytes': 9 * 2**20,
    'hbm_bytes': 16128 * 2**20, 'products_flops': 197e9, 'xla_flops': 2e11, 'moved_bytes': 819e6,
    'xla_moved_bytes': 1e9, 'padding': {'arguments': 0.25, 'moved': 0.5},
    'collectives': [{'kind': 'all-reduce', 'bytes': 4 * 10**6, 'devices': 4}], 'compute_seconds': 1e-3,
    'estimated_cycles': {'visual/conv': 3 * 10**6, 'head/dot': 10**6},
    'memory_seconds': 1e-3, 'interconnect_seconds': 6e-5, 'step_seconds': 1.06e-3, 'binding': 'compute',
}  # fmt: skip


@pytest.mark.parametrize(
    'name, where',
    [
        ('v5e-1', Slice('v5e', (1, 1))),
        ('v5e-4', Slice('v5e', (2, 2))),
        ('v5litepod-8', Slice('v5e', (2, 4))),
        ('v5e:2x2', Slice('v5e', (2, 2))),
        ('v5e-256', Slice('v5e', (16, 16))),
        ('v4-8', Slice('v4', (2, 2, 1))),
        ('v5p-16', Slice('v5p', (2, 2, 2))),
        ('v5p:4x4x8', Slice('v5p', (4, 4, 8))),
        ('h100-8', Slice('h100', (8,))),
    ],
)
def test_names_of_slices(name, where):
    """The types of v4 and v5p count cores, of which a chip has two."""
    assert topology.parse(name) == where


@pytest.mark.parametrize(
    'name', ['v5e', 'v5e-3', 'v5e-0', 'v5p-2', 'v5e:2x2x1', 'v4:2x2', 'v5e:0x2', 'v9-4', 'h100', 'h100-16', 'a100:8']
)
def test_unknown_names_are_one_line_with_known_ones(name):
    with pytest.raises(ValueError, match='v5e-1, v5e-4 .*a100-8, h100-8') as error:
        topology.parse(name)
    assert f'--topology={name};' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name, extra', [('v5e-4', 'tpu'), ('h100-8', 'cuda12')])
def test_missing_compiler_is_one_line_with_the_extra(name, extra, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert runs.run_here(benchmark.main, CONFIG, *SMALL, f'--topology={name}') == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert f'pip install "stattn-jax[{extra}]"' in line


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--topology=v5e-4', '--batches=6'], '4 chips, over which 6 clips do not split'),
        (['--topology=v5e-4', '--modes=fed', '--config.data.dir=somewhere'], '--modes has fed, which measures'),
        (['--topology=v5e-4,v9'], '--topology=v9;'),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_compiled(flags, words, monkeypatch, capsys):
    monkeypatch.setattr(topology, 'devices', lambda where: [])
    assert runs.run_here(benchmark.main, CONFIG, *SMALL, *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert words in line


def test_refusals_of_the_compiler():
    text = (
        'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. '
        'Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.\n\nTotal hbm usage >= 20.75G:'
    )
    assert topology._refusal(text)['used_bytes'] == 20.5 * 2**30
    other = 'the total memory required for HLO temporaries (201.00G) exceeds available HBM (15.75G).'
    assert topology._refusal(other) == {'refusal': other, 'used_bytes': 201 * 2**30}


@pytest.fixture
def fake(monkeypatch):
    """Puts a program that fits up to ten clips a chip in place of every compiled one; returns the compiled cases."""
    compiled = []

    def measure(config, data, case, where, effort):
        compiled.append((where.sides, case.mode, case.batch))
        row = {**vars(case), **ROW, 'sides': list(where.sides), 'chips': where.chips, 'effort': effort}
        if case.batch > 10 * where.chips:
            return row | {'fits': False, 'lower_seconds': 1.0, 'compile_seconds': 2.0, 'refusal': 'exceeds it'}
        return row | COUNTS

    monkeypatch.setattr(topology, 'measure', measure)
    monkeypatch.setattr(topology, 'devices', lambda where: [])
    monkeypatch.setattr(topology_command.metadata, 'version', lambda name: '0')
    return compiled


def test_a_repeated_command_continues_after_the_written_rows(fake, tmp_path, capsys):
    out = tmp_path / 'rows.json'
    flags = [CONFIG, *SMALL, '--modes=train', '--per_chip', '--batches=8', f'--out={out}', '--core_clips=100']
    assert runs.run_here(benchmark.main, *flags, '--topology=v5e-4') == 0
    printed = capsys.readouterr().out
    assert 'fits: 9 of 16128 MiB of each chip (arguments 3, temporaries 5' in printed
    assert 'estimates 4.0 million cycles, most of them for visual/conv (75%), head/dot (25%)' in printed
    assert '1 all-reduce: 4.000 MB, the largest 4.000 MB' in printed and 'compute binds' in printed
    assert runs.run_here(benchmark.main, *flags, '--topology=v5e-4,v5e-8') == 0
    assert fake == [((2, 2), 'train', 32), ((2, 4), 'train', 64)]
    content = json.loads(out.read_text())
    assert [row['batch'] for row in content['rows']] == [32, 64]
    assert content['rows'][0]['plan']['rows'] == cost_model.plan(
        topology.work_of(content['rows'][0]), 'v5e', clips=8, clips_per_core=100
    )
    assert runs.run_here(benchmark.main, *flags, '--topology=v5e-4', '--config.seed=6') == 2
    assert 'rows of other config' in capsys.readouterr().err


def test_the_largest_batch_is_searched(fake, tmp_path, capsys):
    out = tmp_path / 'rows.json'
    flags = ['--modes=train', '--per_chip', '--batches=4', '--largest', '--topology=v5e-4', f'--out={out}']
    assert runs.run_here(benchmark.main, CONFIG, *SMALL, *flags) == 0
    assert [batch // 4 for _, _, batch in fake] == [4, 8, 16, 12, 10, 11]
    assert 'the largest batch found: 40, 10 a chip' in capsys.readouterr().out
    assert json.loads(out.read_text())['rows'][-1]['largest']


def test_a_program_that_does_not_compile_ends_no_others(fake, monkeypatch, capsys):
    measure = topology.measure

    def refuse(config, data, case, where, effort):
        if where.chips == 4:
            raise jax.errors.JaxRuntimeError('INTERNAL: a bug\nof the compiler')
        return measure(config, data, case, where, effort)

    monkeypatch.setattr(topology, 'measure', refuse)
    flags = ['--modes=train', '--per_chip', '--batches=8', '--topology=v5e-4,v5e-8']
    assert runs.run_here(benchmark.main, CONFIG, *SMALL, *flags) == 1
    assert fake == [((2, 4), 'train', 64)]
    printed = capsys.readouterr().err
    assert 'error: v5e-4, train, jit: INTERNAL: a bug of the compiler' in printed
    assert '1 of 2 programs did not compile' in printed


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu (the extra tpu)')
@pytest.mark.parametrize('strategy', ['jit', 'pmap'])
def test_a_tiny_step_compiles_for_four_chips(strategy, tmp_path):
    """A process of its own compiles it: libtpu can be loaded by one process at a time."""
    out = tmp_path / 'rows.json'
    flags = ['--modes=train', f'--strategies={strategy}', '--topology=v5e-4', '--effort=-1', f'--out={out}']
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    environment.pop('JAX_DISABLE_MOST_OPTIMIZATIONS', None)
    subprocess.run(
        [sys.executable, '-m', 'stattn_jax.benchmark', CONFIG, *SMALL, *flags],
        cwd=runs.ROOT, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    (row,) = json.loads(out.read_text())['rows']
    assert row['fits'] and row['device_kind'] == 'TPU v5 lite' and row['layers'] == 'tpu'
    # jax 0.10.2 and libtpu 0.0.42.1; another version may plan a little differently.
    assert row['used_bytes'] < 1.1 * 31e6 and row['moved_bytes'] < 1.1 * 122.5e6
    assert row['argument_bytes'] > 3e6 and row['products_flops'] > 1e6
    reduced = [collective for collective in row['collectives'] if collective['kind'] == 'all-reduce']
    assert reduced and all(collective['devices'] == 4 for collective in reduced)
    assert 0 < row['step_seconds'] < 1e-2 and sum(row['estimated_cycles'].values()) > 1e4
