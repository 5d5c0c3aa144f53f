"""Tests of the schedule against its closed form and of one and two updates of each optimiser by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.training import optim

PARAMS = {'kernel': np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), 'bias': np.array([2.0, -1.0], np.float32)}
GRADS = {'kernel': np.array([[0.1, 0.2], [-0.3, 0.0]], np.float32), 'bias': np.array([0.4, -0.2], np.float32)}
DECAYS = {'kernel': 1, 'bias': 0}


def test_schedule_is_a_line_then_a_cosine():
    schedule = optim.make_schedule(lr=0.3, warmup_steps=10, total_steps=110)
    steps = np.arange(121)
    cosine = 0.15 * (1 + np.cos(np.pi * np.clip((steps - 10) / 100, 0, 1)))
    expected = np.where(steps < 10, 0.03 * steps, cosine)
    np.testing.assert_allclose([schedule(step) for step in steps], expected, atol=1e-7)


def test_schedule_without_warmup_starts_at_its_height_and_a_short_run_stays_in_warmup():
    assert optim.make_schedule(lr=0.3, warmup_steps=0, total_steps=10)(0) == pytest.approx(0.3)
    short = optim.make_schedule(lr=0.3, warmup_steps=100, total_steps=10)
    np.testing.assert_allclose([short(5), short(10)], [0.015, 0.03], rtol=1e-5)


def test_kernels_decay_and_biases_do_not():
    tree = {
        'conv': jnp.zeros((3, 3, 1, 2)),
        'norm': {'scale': jnp.zeros(2), 'bias': jnp.zeros(2)},
        'log_scale': jnp.zeros(1),
    }
    assert optim.decay_mask(tree) == {'conv': True, 'norm': {'scale': False, 'bias': False}, 'log_scale': False}


def two_updates(name, clip_norm, schedule=None):
    rule = optim.make_optimiser(
        schedule or optax.constant_schedule(0.1), name=name, weight_decay=0.01, clip_norm=clip_norm, momentum=0.9
    )
    params, state, history = PARAMS, rule.init(PARAMS), []
    for _ in range(2):
        updates, state = rule.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def clipped(clip_norm):
    norm = np.sqrt(sum((g**2).sum() for g in GRADS.values()))
    return {name: g * min(1, clip_norm / norm) for name, g in GRADS.items()}


@pytest.mark.parametrize('clip_norm', [100.0, 0.05])
def test_sgd_by_hand(clip_norm):
    history = two_updates('sgd', clip_norm)
    for name, grad in clipped(clip_norm).items():
        param, momentum = PARAMS[name], 0
        for params in history:
            decayed = grad + 0.01 * DECAYS[name] * param
            momentum = decayed + 0.9 * momentum
            param = param - 0.1 * (decayed + 0.9 * momentum)
            np.testing.assert_allclose(params[name], param, rtol=1e-6)


@pytest.mark.parametrize('clip_norm', [100.0, 0.05])
def test_adamw_by_hand(clip_norm):
    history = two_updates('adamw', clip_norm)
    for name, grad in clipped(clip_norm).items():
        param, first, second = PARAMS[name], 0, 0
        for count, params in enumerate(history, 1):
            first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
            step = first / (1 - 0.9**count) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
            param = param - 0.1 * (step + 0.01 * DECAYS[name] * param)
            np.testing.assert_allclose(params[name], param, rtol=1e-5)


@pytest.mark.parametrize('name', ['adamw', 'sgd'])
def test_the_first_update_of_a_warmup_changes_nothing(name):
    first, second = two_updates(name, 1.0, optim.make_schedule(lr=0.1, warmup_steps=5, total_steps=10))
    np.testing.assert_array_equal(first['kernel'], PARAMS['kernel'])
    assert np.abs(second['kernel'] - PARAMS['kernel']).min() > 0


def test_unknown_optimiser_is_one_clear_line():
    with pytest.raises(ValueError, match="config.optim.name is 'adam'; expected 'adamw' or 'sgd'"):
        optim.make_optimiser(optax.constant_schedule(0.1), name='adam', weight_decay=0, clip_norm=1, momentum=0.9)


def test_the_norm_is_that_of_optax_for_small_and_large_leaves():
    sizes = [(3,), (2, 5), (300, 300), (512, 129), (2**16 + 1,)]
    tree = [np.random.default_rng(i).normal(size=size).astype(np.float32) for i, size in enumerate(sizes)]
    exact = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in tree))
    np.testing.assert_allclose(optim.norm(tree), exact, rtol=1e-6)
    np.testing.assert_allclose(optim.norm(tree), optax.tree.norm(tree), rtol=1e-6)


def test_a_trunk_learns_at_a_rate_of_its_own_that_falls_from_its_last_block_backwards():
    blocks = {i: {'kernel': jnp.ones((2, 2))} for i in range(3)}
    visual = {'blocks': blocks, 'cls_token': jnp.ones((1, 2)), 'norm': {'scale': jnp.ones(2)}}
    params = {
        'visual': visual,
        'audio': {'blocks': {0: {'kernel': jnp.ones((2, 2))}}},
        'head': {'kernel': jnp.ones((2, 2))},
    }
    options = {'name': 'sgd', 'weight_decay': 0.0, 'clip_norm': 1e9, 'momentum': 0.0}
    rule = optim.make_optimiser(optax.constant_schedule(1.0), **options, visual_lr=0.5, audio_lr=0.25, layer_decay=0.1)
    updates, _ = rule.update(params, rule.init(params), params)
    sizes = {jax.tree_util.keystr(path): -float(x.max()) for path, x in jax.tree_util.tree_leaves_with_path(updates)}
    assert sizes == pytest.approx({
        "['visual']['blocks'][2]['kernel']": 0.5,
        "['visual']['blocks'][1]['kernel']": 0.05,
        "['visual']['blocks'][0]['kernel']": 0.005,
        "['visual']['norm']['scale']": 0.5,
        "['visual']['cls_token']": 0.0005,
        "['audio']['blocks'][0]['kernel']": 0.25,
        "['head']['kernel']": 1.0,
    })  # fmt: skip
