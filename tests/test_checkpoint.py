"""Tests checkpoints and StopSignal.

Checkpoints must be bit-identical, also on other devices, and survive SIGKILL; damaged ones are reported.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_processes import run_pair

from stattn_jax import files
from stattn_jax.runtime import checkpoint, parallel

META = {'config': {'lr': 1e-3, 'sizes': [3, 4], 'name': None}, 'seed': 2**70, 'text': 'naïve'}
ROOT = str(Path(__file__).parents[1])


def make_state(seed=0):
    """Returns a state with leaves of every kind.

    These are float32, bfloat16, NaN, -0.0, integers, booleans, scalars and both kinds of PRNG keys.
    """
    normal = np.random.default_rng(seed).normal(size=(64, 33)).astype(np.float32)
    normal[0, :3] = np.nan, -0.0, np.inf
    params = {'layers': [{'w': jnp.asarray(normal)}, {'w': jnp.asarray(normal, jnp.bfloat16)}]}
    return {
        'params': params,
        'optimizer': optax.adamw(1e-3).init(params),
        'step': jnp.asarray(7 + seed, jnp.int32),
        'scale': jnp.asarray(0.1, jnp.bfloat16),
        'mask': jnp.arange(5) > 2,
        'key': jax.random.key(3 + seed),
        'raw_key': jax.random.PRNGKey(4 + seed),
        'empty': {},
    }


def same_bits(one, other):
    def raw(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.device_get(jax.random.key_data(x) if is_key else x))

    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert raw(a).tobytes() == raw(b).tobytes()


def saved(directory, steps=(1,), **options):
    """Writes and closes a checkpoint directory with these steps; returns the strategy that wrote it (8 devices)."""
    strategy = parallel.make_strategy('jit')
    keeper = checkpoint.Checkpointer(directory, **options)
    for step in steps:
        keeper.save(step, strategy.place_state(make_state(step)), META)
    keeper.close()
    return strategy


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_eight_devices_to_one_is_bit_identical(tmp_path, kind):
    eight, one = parallel.make_strategy(kind), parallel.make_strategy('jit', jax.devices()[3:4])
    keeper = checkpoint.Checkpointer(tmp_path / 'checkpoints')
    keeper.save(5, eight.to_global(eight.place_state(make_state())), META)
    keeper.wait()
    state, meta = keeper.restore(5, one.abstract(make_state()))
    keeper.close()
    same_bits(state, make_state())
    assert meta == META
    assert all(x.sharding.device_set == {jax.devices()[3]} for x in jax.tree.leaves(state))
    same_bits(eight.place_state(state), make_state())


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    strategy = parallel.make_strategy('jit')
    step = strategy.compile(lambda state, batch: (jax.tree.map(lambda x: x + 1, state), {}))
    batch = strategy.place_batch(np.zeros((8, 1), np.float32))
    state = strategy.place_state({'x': np.zeros((500, 500), np.float32)})
    keeper = checkpoint.Checkpointer(tmp_path)
    for number in range(3):
        keeper.save(number, state, {})
        state, _ = step(state, batch)
    keeper.wait()
    for number in range(3):
        assert (np.asarray(keeper.restore(number, strategy.abstract(state))[0]['x']) == number).all()
    keeper.close()


@pytest.mark.parametrize(('mode', 'best'), [('max', 2), ('min', 1)])
def test_keeps_the_last_and_the_best(tmp_path, mode, best):
    metrics = [{'top1': 0.5}, {'top1': 0.1}, {'top1': 0.8}, {'top1': np.nan}, None, {'loss': 1.0}, {'top1': 0.5}]
    state = {'x': jnp.zeros(2)}
    keeper = checkpoint.Checkpointer(tmp_path, keep=2, best_metric='top1', best_mode=mode)
    assert (keeper.latest(), keeper.best(), keeper.steps()) == (None, None, [])
    for step, metric in enumerate(metrics):
        keeper.save(step, state, {}, metric)
    keeper.close()
    keeper = checkpoint.Checkpointer(tmp_path, keep=2, best_metric='top1', best_mode=mode)
    assert (keeper.steps(), keeper.latest(), keeper.best()) == ([best, 5, 6], 6, best)
    keeper.save(7, state, {}, {'top1': 0.9 if mode == 'max' else 0.0})
    keeper.wait()
    assert (keeper.steps(), keeper.best()) == ([6, 7], 7)
    with pytest.raises(FileExistsError, match='7'):
        keeper.save(7, state, {})
    keeper.close()


def test_meta_is_read_without_the_state(tmp_path):
    saved(tmp_path, steps=(1, 2))
    keeper = checkpoint.Checkpointer(tmp_path)
    assert keeper.load_meta(1) == META
    with pytest.raises(checkpoint.CheckpointError, match='no checkpoint of step 9 in .*; steps there: 1, 2$'):
        keeper.load_meta(9)
    keeper.close()


def replaced(path, leaf):
    state = make_state(1)
    if path == 'params/layers/1/w':
        state['params']['layers'][1]['w'] = leaf
    elif leaf is None:
        del state[path]
    else:
        state[path] = leaf
    return state


@pytest.mark.parametrize(
    ('path', 'leaf', 'message'),
    [
        (
            'params/layers/1/w',
            jax.ShapeDtypeStruct((64, 32), jnp.bfloat16),
            r'has bfloat16\[64, 33\], the run wants bfloat16\[64, 32\]',
        ),
        (
            'params/layers/1/w',
            jax.ShapeDtypeStruct((64, 33), jnp.float32),
            r'has bfloat16\[64, 33\], the run wants float32\[64, 33\]',
        ),
        ('mask', None, r'has bool\[5\], the run wants no such array'),
        ('extra', jax.ShapeDtypeStruct((3,), jnp.float32), r'has no such array, the run wants float32\[3\]'),
    ],
)
def test_another_tree_is_one_line_that_names_the_path(tmp_path, path, leaf, message):
    strategy = saved(tmp_path)
    keeper = checkpoint.Checkpointer(tmp_path)
    line = f'1 does not fit this run: {path}: the checkpoint {message}'
    with pytest.raises(checkpoint.CheckpointError, match=line) as error:
        keeper.restore(1, strategy.abstract(replaced(path, leaf)))
    assert '\n' not in str(error.value)
    keeper.close()


def empty_folder(path):
    shutil.rmtree(path)
    path.mkdir()


def flip_index(path):
    for file in (path / 'state' / 'd').iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)


@pytest.mark.parametrize(
    'damage',
    [
        empty_folder,
        lambda path: (path / '_CHECKPOINT_METADATA').unlink(),
        lambda path: (path / '_CHECKPOINT_METADATA').write_text('{"half'),
        lambda path: (path / 'state' / 'manifest.ocdbt').unlink(),
        lambda path: shutil.rmtree(path / 'state' / 'ocdbt.process_0'),
        flip_index,
    ],
    ids=['empty', 'no_metadata', 'torn_metadata', 'no_manifest', 'no_data', 'flipped_byte'],
)
# Orbax leaves the coroutines of a failed read unawaited; this package cannot prevent the warnings that follow.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning', 'ignore::RuntimeWarning')
def test_damaged_checkpoint_is_one_line_and_the_one_before_still_works(tmp_path, damage):
    strategy = saved(tmp_path, steps=(1, 2))
    damage(tmp_path / '2')
    keeper = checkpoint.Checkpointer(tmp_path)
    line = '2 is damaged: .*; remove that folder to continue from step 1$'
    with pytest.raises(checkpoint.CheckpointError, match=line) as error:
        keeper.restore(2, strategy.abstract(make_state()))
    assert '\n' not in str(error.value)
    same_bits(keeper.restore(1, strategy.abstract(make_state()))[0], make_state(1))
    keeper.close()


@pytest.mark.parametrize(
    ('options', 'message'), [({'keep': 0}, 'keep=0'), ({'best_mode': 'least'}, "best_mode='least'")]
)
def test_bad_options_are_one_line(tmp_path, options, message):
    with pytest.raises(ValueError, match=f'{message}.*expected'):
        checkpoint.Checkpointer(tmp_path, **options)


KILLED_IN_MID_SAVE = """
import os, signal, sys
import jax.numpy as jnp
import numpy as np
from stattn_jax.runtime import checkpoint
noise = jnp.asarray(np.random.default_rng(0).random((3000, 3000), np.float32))
keeper = checkpoint.Checkpointer(sys.argv[1])
keeper.save(1, {'x': noise + 1}, {'step': 1})
keeper.wait()
keeper.save(2, {'x': noise + 2}, {'step': 2})
while not any('tmp' in name for name in os.listdir(sys.argv[1])):
    assert '2' not in os.listdir(sys.argv[1]), 'saved too fast to be killed'
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_in_mid_save_leaves_the_checkpoint_before(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', KILLED_IN_MID_SAVE, str(tmp_path)],
        env=dict(os.environ, PYTHONPATH=ROOT),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(os.listdir(tmp_path)) == 2
    keeper = checkpoint.Checkpointer(tmp_path)
    abstract = parallel.make_strategy('jit').abstract({'x': jnp.zeros((3000, 3000))})
    state, meta = keeper.restore(keeper.latest(), abstract)
    np.testing.assert_array_equal(state['x'], 1 + np.random.default_rng(0).random((3000, 3000), np.float32))
    assert meta == {'step': 1}
    keeper.save(3, state, {})
    keeper.close()
    assert sorted(os.listdir(tmp_path)) == ['1', '3']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_sets_the_flag_and_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with checkpoint.StopSignal() as stop:
        assert not stop.should_stop(1)
        os.kill(os.getpid(), number)
        assert stop.should_stop(2)
        assert stop.should_stop(3)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_second_interrupt_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), checkpoint.StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_two_processes_agree_on_the_step_to_stop_and_save_under_pmap(tmp_path):
    stopped = [int(out.splitlines()[-1]) for out in run_pair(__file__, str(tmp_path))]
    assert stopped[0] == stopped[1] > 3
    keeper = checkpoint.Checkpointer(tmp_path)
    assert keeper.steps() == [stopped[0]]
    same_bits(keeper.restore(stopped[0], parallel.make_strategy('jit').abstract(make_state()))[0], make_state())
    keeper.close()


def worker(process, port, directory):
    """Runs one of two processes: the second receives SIGTERM at step 3, and both must save the same step."""
    jax.config.update('jax_num_cpu_devices', 2)
    jax.distributed.initialize(f'localhost:{port}', num_processes=2, process_id=process)
    strategy = parallel.make_strategy('pmap')
    state = strategy.place_state(make_state())
    total = strategy.compile(lambda state, batch: (state, {'sum': jax.lax.psum(batch.sum(), 'data')}), donate=False)
    batch = strategy.place_batch(np.ones((4, 1), np.float32))
    keeper = checkpoint.Checkpointer(directory)
    with checkpoint.StopSignal() as stop:
        for step in range(1, 2000):
            assert jax.device_get(total(state, batch)[1])['sum'] == 8
            if process == 1 and step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if stop.should_stop(step):
                keeper.save(step, strategy.to_global(state), META)
                break
    keeper.wait()
    restored, meta = keeper.restore(step, strategy.abstract(state))
    same_bits(strategy.place_state(restored), make_state())
    assert meta == META
    keeper.close()
    print(step)


if __name__ == '__main__':
    worker(int(sys.argv[1]), sys.argv[2], sys.argv[3])


@pytest.mark.parametrize('where', ['save', 'wait'])
def test_a_full_disk_is_one_error_that_names_the_folder(tmp_path, monkeypatch, where):
    keeper = checkpoint.Checkpointer(tmp_path / 'checkpoints')

    def full(*_, **__):
        # As TensorStore reports it (orbax 0.12).
        raise ValueError('RESOURCE_EXHAUSTED: Failed writing: "x": No space left on device [os_error_code=\'28\']')

    monkeypatch.setattr(keeper._orbax, 'save_checkpointables_async' if where == 'save' else 'wait', full)
    with pytest.raises(OSError) as caught:
        if where == 'save':
            keeper.save(1, {'x': jnp.zeros(3)}, {})
        keeper.wait()
    assert files.reason(caught.value).startswith(
        f'{tmp_path / "checkpoints"}: No space left on device; free some space'
    )
    monkeypatch.undo()
    keeper.close()
