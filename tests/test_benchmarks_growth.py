"""Tests the counts of benchmarks/growth.py and memory.py against numbers computed by hand."""

import json

import pytest
import runs
from tiny import quick_compile  # noqa: F401  autouse

from benchmarks import growth, memory
from configs import synthetic

NO_LOSS = {'audio': 0.0, 'visual': 0.0, 'frame_mil': 0.0, 'correspondence': 0.0, 'mismatched_uniform': 0.0}


def small_config():
    config = synthetic.get_config()
    config.model.update({'width': 16, 'hidden': 8})
    # Without these losses, compilation takes a third of the time.
    config.loss.update(NO_LOSS)
    return config


def test_a_line_is_fitted_and_a_curve_has_a_large_residual():
    line = growth.fit([1, 2, 4], [5, 7, 11])
    assert line['slope'] == pytest.approx(2) and line['intercept'] == pytest.approx(3)
    assert line['residual'] == pytest.approx(0, abs=1e-12)
    assert growth.fit([1, 2, 3], [1, 4, 9])['residual'] > 0.3


def test_products_grow_with_segments_and_batch_as_they_must(monkeypatch):
    """With a fake in place of compilation, every size is counted once and in its own place."""
    counted = []

    def fake(config, classes, segments, size, batch):
        counted.append((segments, size, batch))
        return dict.fromkeys(growth.COUNTS, 10 + segments * size**2 * batch)

    monkeypatch.setattr(growth, 'counts', fake)
    found = growth.grow(None, 3, {'segments': [1, 2, 3], 'sizes': [4, 8, 16], 'batches': [5, 6, 9]})
    assert counted == [(1, 4, 5), (2, 4, 5), (3, 4, 5), (1, 8, 5), (1, 16, 5), (1, 4, 6), (1, 4, 9)]
    for axis, slope in (('segments', 16 * 5), ('sizes', 5), ('batches', 16)):
        assert found[axis]['fits']['moved_bytes']['slope'] == pytest.approx(slope)
        assert found[axis]['fits']['moved_bytes']['residual'] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['jit', 'pmap'])
def test_a_device_does_the_same_when_there_are_more(kind):
    rows = growth.spread_out(small_config(), 3, {'segments': 2, 'sizes': 16, 'batches': 2}, [1, 2], [kind])
    one, two = rows
    assert [(row['strategy'], row['devices']) for row in rows] == [(kind, 1), (kind, 2)]
    if kind == 'jit':
        assert one['collectives'] == {}
    assert two['collectives']['all-reduce'][0] > 0 and two['products_flops'] == one['products_flops']
    assert two['flops'] == pytest.approx(one['flops'], rel=0.05)
    assert len(list(growth.lines({}, json.loads(json.dumps(rows))))) == 3


@pytest.mark.slow
def test_a_device_does_the_same_in_a_process_of_its_own():
    first = {'segments': 2, 'sizes': 16, 'batches': 2}
    (alone,) = growth.in_processes(small_config(), 3, first, [2])
    (together,) = growth.spread_out(small_config(), 3, first, [2], ['jit'])
    assert alone.pop('processes') == 2 and together.pop('processes') == 1
    # The program equals the one that one process compiles for two devices.
    assert json.dumps(alone) == json.dumps(together)


def test_wrong_use_is_one_line_before_anything_is_compiled(capsys):
    config = f'--config={runs.ROOT / "configs/synthetic.py"}'
    for command, flag, words in (
        (growth.main, '--segments=5,10', '--segments=5,10; expected at least 3'),
        (growth.main, '--devices=two', '--devices=two; expected at least 1'),
        (growth.main, '--processes=0', '--processes=0; expected at least 1'),
        (memory.main, '--data=/nowhere', 'does not exist'),
    ):
        assert runs.run_here(command, config, flag) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
        assert words in line


@pytest.mark.parametrize('sizes, flat, slope', [([100, 102, 104], True, 20_000), ([100, 100, 105], False, 25_000)])
def test_flat_is_two_percent_around_the_middle(sizes, flat, slope):
    result = memory.flatness(dict(zip([100, 200, 300], sizes)))
    assert result['flat'] is flat and result['slope_bytes_per_1000_steps'] == pytest.approx(slope / 1000)
    assert (result['least_bytes'], result['greatest_bytes']) == (min(sizes), max(sizes))


def test_memory_is_looked_at_after_the_warm_up(tiny_data, tmp_path, capsys):
    out = tmp_path / 'memory.json'
    flags = [f'--data={tiny_data}', '--steps=8', '--warmup=2', '--every=2', f'--out={out}']
    flags += [f'--config.loss.{name}={value}' for name, value in NO_LOSS.items()]
    code = runs.run_here(memory.main, f'--config={runs.ROOT / "configs/synthetic.py"}', *flags)
    results = json.loads(out.read_text())
    assert list(results['resident_bytes']) == ['4', '6', '8'] and code == (0 if results['flat'] else 1)
    assert results['config']['train']['batch'] == memory.TOY['train']['batch'] and 'MB' in capsys.readouterr().out
