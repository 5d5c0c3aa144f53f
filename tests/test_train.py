"""Tests training through the command: started, killed, stopped, resumed, spread over devices, and refused."""

import json
import shutil
import signal
import socket
import time

import jax
import numpy as np
import pytest
import runs

from stattn_jax import evaluate, run

# Without augmentation a step is the same function on any number of devices.
PLAIN = {
    'augment__crop': 1.0,
    'augment__flip': 0.0,
    'augment__colour': 0.0,
    'train__steps': 4,
    'train__eval_every_steps': 4,
}


def state_of(workdir):
    """Every array of the latest state, on one device."""
    trained = run.load(workdir, parallel_kind='jit', devices=jax.devices()[:1])
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(trained.state)}


def wait_for(process, text, workdir=None, checkpoint=None):
    """Reads what a run prints up to a line with `text`, then waits for a checkpoint."""
    for line in process.stdout:
        if text in line:
            break
    else:
        pytest.fail(f'the run ended without {text!r}: {process.stderr.read()}')
    while checkpoint is not None and not (workdir / run.CHECKPOINTS / str(checkpoint)).exists():
        time.sleep(0.01)


def start_processes(count: int, *flags) -> list:
    """Starts the command as `count` processes of one run."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    shared = (f'--coordinator=127.0.0.1:{port}', f'--processes={count}')
    return [runs.start('stattn_jax.main', *flags, *shared, f'--process={index}') for index in range(count)]


@pytest.fixture(scope='module')
def interrupted(tmp_path_factory, tiny_data, compiled):
    """A run killed after its fourth step, resumed, asked to stop at its fifth, and resumed to the end."""
    workdir = tmp_path_factory.mktemp('runs') / 'interrupted'
    flags = runs.make_flags(workdir, tiny_data, compile_cache=compiled)
    killed = runs.start('stattn_jax.main', *flags)
    wait_for(killed, 'step  4/10', workdir, 2)
    killed.kill()
    killed.communicate()
    # This is the state after a kill in the middle of a write.
    with (workdir / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 5, "train/lo')
    stopped = runs.start('stattn_jax.main', *flags)
    wait_for(stopped, 'step  5/10')
    stopped.send_signal(signal.SIGTERM)
    output = runs.finish(stopped)
    return {
        'workdir': workdir,
        'killed': killed.returncode,
        'stopped': output,
        'last': runs.finish(runs.start('stattn_jax.main', *flags)),
    }


def test_killed_and_stopped_run_ends_bit_identical(trained, interrupted):
    assert interrupted['killed'] == -signal.SIGKILL
    whole, resumed = state_of(trained), state_of(interrupted['workdir'])
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    assert (interrupted['workdir'] / 'eval_test.json').read_text() == (trained / 'eval_test.json').read_text()


def test_sigterm_saves_and_says_how_to_go_on(interrupted):
    assert (
        f'stopped after step 6, saved in {interrupted["workdir"]}; run the same command again' in interrupted['stopped']
    )
    assert 'resuming at step 6 of 10' in interrupted['last']


def test_each_step_is_recorded_once_after_resuming(trained, interrupted):
    assert runs.metrics(interrupted['workdir']) == runs.metrics(trained)
    assert sorted(runs.metrics(trained)) == list(range(1, 11))
    assert runs.metrics(interrupted['workdir'], 'val/classification/map') == runs.metrics(
        trained, 'val/classification/map'
    )
    assert sorted(runs.metrics(trained, 'val/classification/map')) == [5, 10]


def test_the_numbers_of_the_evaluation_are_recorded_once(trained, interrupted):
    for workdir in (trained, interrupted['workdir']):
        numbers = json.loads((workdir / 'eval_test.json').read_text())
        for name in ('classification/top1', 'checkpoint/step', 'classification/n'):
            assert runs.metrics(workdir, f'eval_test/{name}') == {10: numbers[name]}


def test_weights_and_biases_must_be_installed_and_is_for_training(tmp_path, tiny_data, monkeypatch, capsys):
    flags = runs.make_flags(tmp_path / 'run', tiny_data)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert runs.run_main(*flags, '--wandb=project') == 2
    assert 'error: --wandb=project needs the package wandb; pip install "stattn-jax[wandb]"' in capsys.readouterr().err
    assert runs.run_main(*flags, '--wandb=project', '--mode=eval') == 2
    assert '--wandb=project is for training; expected it without --mode=eval' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_run_record_names_versions_data_and_devices(trained):
    record = json.loads((trained / 'run.json').read_text())
    assert record['seed'] == 0 and record['devices']['devices'] == 1 and record['versions']['jax'] == jax.__version__
    assert len(record['data']['classes']) == 10 and record['data']['fingerprint']


@pytest.fixture(scope='module')
def spread(tmp_path_factory, tiny_data):
    """Four steps without augmentation over eight devices by each strategy, in this process."""
    jax.config.update('jax_disable_most_optimizations', True)
    workdirs = {kind: tmp_path_factory.mktemp('spread') / kind for kind in ('jit', 'pmap')}
    for kind, workdir in workdirs.items():
        assert runs.run_main(*runs.make_flags(workdir, tiny_data, parallel=kind, **PLAIN)) == 0
    yield workdirs
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.slow
def test_jit_and_pmap_on_eight_devices_give_the_same_losses(spread):
    jit, pmap = (runs.metrics(spread[kind]) for kind in ('jit', 'pmap'))
    assert sorted(jit) == [1, 2, 3, 4]
    np.testing.assert_allclose([pmap[i] for i in sorted(jit)], [jit[i] for i in sorted(jit)], rtol=1e-5)
    described = [json.loads((spread[kind] / 'run.json').read_text())['devices'] for kind in ('jit', 'pmap')]
    assert [(d['strategy'], d['devices']) for d in described] == [('jit', 8), ('pmap', 8)]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['jit', 'pmap'])
def test_checkpoint_of_eight_devices_evaluates_alike_on_one(spread, kind):
    trained = run.load(spread[kind], parallel_kind='jit', devices=jax.devices()[:1])
    numbers = evaluate.Evaluator(trained.graphdef, trained.strategy, trained.config).split(
        trained.state, 'test', shortcuts=True
    )
    expected = json.loads((spread[kind] / 'eval_test.json').read_text())
    assert expected.pop('checkpoint/step') == trained.step
    assert numbers == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['jit', 'pmap'])
def test_two_processes_give_the_losses_of_one(spread, tiny_data, tmp_path, kind):
    pair = start_processes(2, *runs.make_flags(tmp_path, tiny_data, parallel=kind, **PLAIN))
    try:
        first, second = [runs.finish(process) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert 'starting from step 0' in first and 'step' not in second
    # Process 0 alone writes the strip of explained clips, and the other one does not wait for it.
    assert b'explained/val' in b''.join(path.read_bytes() for path in (tmp_path / 'tensorboard').iterdir())
    one, two = runs.metrics(spread['jit']), runs.metrics(tmp_path)
    assert sorted(two) == sorted(one)
    np.testing.assert_allclose([two[i] for i in sorted(one)], [one[i] for i in sorted(one)], rtol=1e-5)
    numbers, expected = (json.loads((path / 'eval_test.json').read_text()) for path in (tmp_path, spread['jit']))
    assert numbers['classification/n'] == 6
    assert numbers['attention/null'] == pytest.approx(expected['attention/null'], rel=1e-3)


def test_state_that_is_not_finite_stops_the_run_and_is_not_saved(tiny_data, tmp_path, capsys, quick_compile):
    flags = runs.make_flags(tmp_path, tiny_data, **PLAIN | {'optim__lr': 1e38, 'train__save_every_steps': 1})
    assert runs.run_main(*flags) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: train/') and error.count('\n') == 1
    assert 'of step 2 is ' in error and 'the last good checkpoint is step 1;' in error
    assert [path.name for path in (tmp_path / run.CHECKPOINTS).iterdir()] == ['1']
    assert all(np.isfinite(array).all() for array in state_of(tmp_path).values())


def test_workdir_of_another_config_is_refused(trained, tiny_data, capsys):
    before = (trained / 'config.json').read_text()
    assert runs.run_main(*runs.make_flags(trained, tiny_data, train__batch=16, optim__lr=0.5)) == 2
    error = capsys.readouterr().err
    assert 'optim.lr is 0.5, was 0.002' in error and 'train.batch is 16, was 8' in error and error.count('\n') == 1
    assert 'eval' not in error and 'another --workdir' in error
    assert (trained / 'config.json').read_text() == before


def test_workdir_of_other_data_is_refused_and_left_as_it_was(trained, tmp_path, capsys, quick_compile):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    other = runs.make_data(tmp_path / 'other', train=4, seed=1)
    assert runs.run_main(*runs.make_flags(workdir, other)) == 2
    assert f'config.data.dir={other} is not the data' in capsys.readouterr().err
    for name in ('config.json', 'run.json', 'metrics.jsonl', 'eval_test.json'):
        assert (workdir / name).read_text() == (trained / name).read_text()


def test_start_that_fails_does_not_claim_the_workdir(tiny_data, tmp_path, capsys):
    assert runs.run_main(*runs.make_flags(tmp_path / 'run', tiny_data, train__batch=12)) == 2
    assert 'global batch 12 does not split over 8 devices' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_preempted_and_lost_processes_continue_on_another_number_of_them(tiny_data, compiled, tmp_path):
    """Four processes, of which one gets SIGTERM; two, of which one is killed; one."""
    steps = PLAIN | {
        'train__steps': 12,
        'train__eval_every_steps': 12,
        'compile_cache': compiled,
    }
    whole, workdir = tmp_path / 'whole', tmp_path / 'run'
    flags = runs.make_flags(workdir, tiny_data, **steps)
    four = start_processes(4, *flags)
    wait_for(four[0], 'step  2/12')
    four[2].send_signal(signal.SIGTERM)
    preempted = [process.communicate(timeout=300) for process in four]
    assert [process.returncode for process in four] == [0] * 4 and 'error' not in str(preempted).lower()
    stopped = max(int(path.name) for path in (workdir / run.CHECKPOINTS).iterdir())
    assert f'stopped after step {stopped}, saved in {workdir}' in preempted[0][0]
    two = start_processes(2, *flags)
    wait_for(two[0], f'step {stopped + 3:2}/12', workdir, (stopped + 2) // 2 * 2)
    two[1].kill()
    began = time.monotonic()
    _, errors = two[0].communicate(timeout=60)
    assert (two[0].returncode, errors.count('\n')) == (1, 1) and time.monotonic() - began < 60
    assert errors.startswith(f'error: process 1 of 2 on {socket.gethostname()} is lost: ')
    two[1].communicate()
    runs.finish(runs.start('stattn_jax.main', *flags))
    runs.finish(runs.start('stattn_jax.main', *runs.make_flags(whole, tiny_data, **steps)))
    ours, expected = runs.metrics(workdir), runs.metrics(whole)
    assert sorted(ours) == sorted(expected) == list(range(1, 13))
    np.testing.assert_allclose([ours[i] for i in sorted(ours)], [expected[i] for i in sorted(ours)], rtol=5e-3)
