"""The two strategies are compared with each other, one device and NumPy.

Run as a script, this module is one of two processes.
"""

import contextlib
import functools
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_processes import run_pair

from stattn_jax.runtime import parallel

BATCH, SIZE, CLASSES, WIDTH = 16, 8, 5, 6
OPTIMIZER = optax.adamw(1e-2)
FILTERS_SHAPE = (3, 3, 3, WIDTH)


def make_state():
    """State: parameters of a convolution, attention and a head; optimiser; running mean; both kinds of key."""
    filters, query, head = jax.random.split(jax.random.key(7), 3)
    params = {
        'filters': 0.3 * jax.random.normal(filters, FILTERS_SHAPE),
        'query': 0.3 * jax.random.normal(query, (4, WIDTH)),
        'head': jax.random.normal(head, (WIDTH, CLASSES)),
    }
    return {
        'params': params,
        'optimizer': OPTIMIZER.init(params),
        'mean': jnp.zeros(WIDTH),
        'step': jnp.asarray(0),
        'key': jax.random.key(3),
        'raw_key': jax.random.PRNGKey(4),
    }


def make_batches(count):
    random = np.random.default_rng(0)
    return [
        {
            'frames': random.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32),
            'sound': random.normal(size=(BATCH, 4)).astype(np.float32),
            'label': random.integers(CLASSES, size=BATCH).astype(np.int32),
        }
        for _ in range(count)
    ]


def forward(params, batch, axis):
    def mean(x):
        return jax.lax.pmean(x, axis) if axis else x

    x = jax.lax.conv_general_dilated(
        batch['frames'], params['filters'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    centre = mean(x.mean((0, 1, 2)))
    x = (x - centre) * jax.lax.rsqrt(mean(jnp.square(x - centre).mean((0, 1, 2))) + 1e-5)
    cells = jax.nn.relu(x).reshape(len(x), -1, WIDTH)
    alpha = jax.nn.softmax(jnp.einsum('bsd,bd->bs', cells, batch['sound'] @ params['query']))
    return jnp.einsum('bs,bsd->bd', alpha, cells) @ params['head'], centre


def train_step(state, batch, axis=None):
    def loss_fn(params):
        logits, centre = forward(params, batch, axis)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch['label']).mean(), centre

    (loss, centre), grads = jax.value_and_grad(loss_fn, has_aux=True)(state['params'])
    hits = batch['sound'].sum()
    if axis:
        loss, grads, hits = jax.lax.pmean(loss, axis), jax.lax.pmean(grads, axis), jax.lax.psum(hits, axis)
    updates, optimizer = OPTIMIZER.update(grads, state['optimizer'], state['params'])
    new = dict(
        state,
        params=optax.apply_updates(state['params'], updates),
        optimizer=optimizer,
        mean=0.9 * state['mean'] + 0.1 * centre,
        step=state['step'] + 1,
        key=jax.random.fold_in(state['key'], state['step']),
    )
    return new, {'loss': loss, 'sound_sum': hits}


def eval_rows(state, batch):
    return {'sound': batch['sound'] + state['params']['head'][0, 0], 'label': batch['label']}


def run(strategy, state, batches):
    """Losses of the steps over `batches`, the other metric, and the state on the host."""
    step = strategy.compile(functools.partial(train_step, axis=strategy.axis))
    state, metrics = strategy.place_state(state), []
    for batch in batches:
        state, metric = step(state, strategy.place_batch(batch))
        metrics.append(jax.device_get(metric))
    return [float(m['loss']) for m in metrics], [float(m['sound_sum']) for m in metrics], state


def host(state):
    state = dict(state, key=jax.random.key_data(state['key']))
    return [np.asarray(x) for x in jax.tree.leaves(jax.device_get(state))]


@pytest.fixture(scope='module')
def runs():
    batches = make_batches(10)
    strategies = {
        'jit8': parallel.make_strategy('jit'),
        'pmap8': parallel.make_strategy('pmap'),
        'jit1': parallel.make_strategy('jit', jax.devices()[:1]),
    }
    return {name: run(strategy, make_state(), batches) for name, strategy in strategies.items()}


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_an_abstract_batch_has_the_shapes_and_the_sharding_of_a_placed_one(kind):
    strategy = parallel.make_strategy(kind, jax.devices()[:4])
    (batch,) = make_batches(1)
    placed = strategy.place_batch(batch)
    abstract = strategy.abstract_batch({name: x[:1] for name, x in batch.items()}, BATCH)
    for name, x in placed.items():
        assert (abstract[name].shape, abstract[name].dtype) == (x.shape, x.dtype)
        assert abstract[name].sharding.is_equivalent_to(x.sharding, x.ndim)
    with pytest.raises(ValueError, match='global batch 6 does not split over 4 devices'):
        strategy.abstract_batch(batch, 6)


@pytest.mark.parametrize('name', ['jit8', 'pmap8'])
def test_eight_devices_train_as_one_does(runs, name):
    np.testing.assert_allclose(runs[name][0], runs['jit1'][0], rtol=1e-5)
    assert len(set(runs['jit1'][0])) == 10
    for one, many in zip(host(runs['jit1'][2]), host(runs[name][2]), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['jit8', 'pmap8', 'jit1'])
def test_metrics_reduce_over_shards_that_differ(runs, name):
    expected = [batch['sound'].sum() for batch in make_batches(10)]
    np.testing.assert_allclose(runs[name][1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('first', 'second'), [('jit', 'pmap'), ('pmap', 'jit')])
def test_state_continues_under_the_other_strategy(runs, first, second):
    batches = make_batches(10)
    first, second = parallel.make_strategy(first), parallel.make_strategy(second, jax.devices()[:4])
    losses_a, _, state = run(first, make_state(), batches[:5])
    losses_b, _, state = run(second, first.to_global(state), batches[5:])
    np.testing.assert_allclose(losses_a + losses_b, runs['jit1'][0], rtol=1e-5)
    assert jax.tree.structure(state) == jax.tree.structure(make_state())
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, make_state())


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_evaluation_returns_rows_in_batch_order(kind):
    strategy, batch = parallel.make_strategy(kind), make_batches(1)[0]
    state = make_state()
    evaluate = strategy.compile_eval(eval_rows)
    for shift in (0.0, 1.0):
        moved = dict(batch, sound=batch['sound'] + shift)
        rows = evaluate(strategy.place_state(state), strategy.place_batch(moved))
        assert isinstance(rows['sound'], np.ndarray)
        np.testing.assert_allclose(rows['sound'], moved['sound'] + state['params']['head'][0, 0], rtol=1e-6)
        np.testing.assert_array_equal(rows['label'], batch['label'])


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_donation_spares_the_state_that_was_placed(kind):
    strategy, state = parallel.make_strategy(kind), make_state()
    before = host(state)
    placed = strategy.place_state(state)
    step = strategy.compile(functools.partial(train_step, axis=strategy.axis))
    step(placed, strategy.place_batch(make_batches(1)[0]))
    assert placed['params']['filters'].is_deleted()
    for old, new in zip(before, host(state), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_flops_are_those_of_all_devices(kind):
    def step(state, batch):
        return state, {'sum': jax.lax.psum((batch @ state).sum(), 'data') if kind == 'pmap' else (batch @ state).sum()}

    strategy = parallel.make_strategy(kind)
    compiled = strategy.compile(step, donate=False)
    assert compiled.flops is None
    state = strategy.place_state(np.ones((256, 256), np.float32))
    compiled(state, strategy.place_batch(np.ones((64, 256), np.float32)))
    assert compiled.flops == pytest.approx(2 * 64 * 256 * 256, rel=0.1)


def test_another_batch_shape_is_one_clear_line():
    strategy = parallel.make_strategy('jit')
    step = strategy.compile(lambda state, batch: (state, {'sum': batch.sum()}), donate=False)
    state = strategy.place_state(np.zeros(2, np.float32))
    step(state, strategy.place_batch(np.ones((16, 2), np.float32)))
    with pytest.raises(ValueError, match=r'batch shapes \[\(8, 2\)\] differ from \[\(16, 2\)\].*pad the last batch'):
        step(state, strategy.place_batch(np.ones((8, 2), np.float32)))


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_uneven_batch_is_one_clear_line(kind):
    strategy = parallel.make_strategy(kind)
    with pytest.raises(ValueError, match='global batch 12 does not split over 8 devices.*set the batch size to 8 '):
        strategy.place_batch({'x': np.zeros((12, 3))})
    with pytest.raises(ValueError, match='global batch 3 .*set the batch size to 8 '):
        strategy.check_batch(3)
    strategy.check_batch(24)


def test_unknown_strategy_is_one_clear_line():
    with pytest.raises(ValueError, match="parallel is 'tpu'; expected one of jit, pmap"):
        parallel.make_strategy('tpu')


def test_describe_is_json_and_abstract_covers_all_devices():
    strategy = parallel.make_strategy('pmap', jax.devices()[:4])
    record = json.loads(json.dumps(strategy.describe()))
    assert (record['strategy'], record['devices'], record['processes']) == ('pmap', 4, 1)
    abstract = strategy.abstract(make_state())
    assert all(len(x.sharding.device_set) == 4 for x in jax.tree.leaves(abstract))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), make_state()
    )


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_a_training_loop_makes_explicit_transfers_only(kind):
    strategy, state = parallel.make_strategy(kind), make_state()
    jax.config.update('jax_transfer_guard', 'disallow')
    try:
        step = strategy.compile(functools.partial(train_step, axis=strategy.axis))
        evaluate, placed = strategy.compile_eval(eval_rows), strategy.place_state(state)
        with contextlib.closing(parallel.prefetch(iter(make_batches(2)), strategy.place_batch)) as batches:
            for batch in batches:
                placed, metrics = step(placed, batch)
                evaluate(placed, batch)
        assert np.isfinite(jax.device_get(metrics)['loss'])
        with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
            jax.jit(lambda x: x + 1)(np.ones(3))
    finally:
        jax.config.update('jax_transfer_guard', 'allow')


def test_two_processes_train_as_one_does(runs, tmp_path):
    run_pair(__file__, str(tmp_path))
    rows = {kind: [] for kind in parallel.KINDS}
    for process, kind in itertools.product(range(2), parallel.KINDS):
        result = np.load(tmp_path / f'{kind}{process}.npz')
        np.testing.assert_allclose(result['losses'], runs['jit1'][0], rtol=1e-5)
        np.testing.assert_allclose(result['sums'], runs['jit1'][1], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(result['filters'], runs['jit1'][2]['params']['filters'], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(result['key'], jax.random.key_data(runs['jit1'][2]['key']))
        assert result['flops'] > 0
        rows[kind].append(result['labels'])
    for kind in parallel.KINDS:
        np.testing.assert_array_equal(np.concatenate(rows[kind]), make_batches(1)[0]['label'])


def worker(process, port, directory):
    """Runs as one of two processes with two devices each and trains on half of every batch under both strategies."""
    jax.config.update('jax_num_cpu_devices', 2)
    jax.distributed.initialize(f'localhost:{port}', num_processes=2, process_id=process)
    half = BATCH // 2
    batches = [jax.tree.map(lambda x: x[process * half : (process + 1) * half], batch) for batch in make_batches(10)]
    for kind in parallel.KINDS:
        strategy = parallel.make_strategy(kind)
        losses, sums, state = run(strategy, make_state(), batches)
        stored = strategy.to_global(state)
        assert all(len(x.sharding.device_set) == 4 for x in jax.tree.leaves(stored))
        placed = strategy.place_state(stored)
        rows = strategy.compile_eval(eval_rows)(placed, strategy.place_batch(batches[0]))
        step = strategy.compile(functools.partial(train_step, axis=strategy.axis))
        step(placed, strategy.place_batch(batches[0]))
        np.savez(
            Path(directory) / f'{kind}{process}.npz',
            losses=losses,
            sums=sums,
            labels=rows['label'],
            flops=step.flops,
            filters=jax.device_get(stored['params']['filters']),
            key=jax.device_get(jax.random.key_data(stored['key'])),
        )


if __name__ == '__main__':
    worker(int(sys.argv[1]), sys.argv[2], sys.argv[3])
