"""Tests the tiny log-mel trunk: its pooling, and that its gradient is the same when compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stattn_jax.models.trunks import small


def make():
    model = small.TinyAudio(axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.as_pure(params), nnx.as_pure(rest)


def log_mel(clips):
    return np.random.default_rng(0).normal(size=(clips, 96, 64)).astype(np.float32)


@pytest.mark.parametrize('few_optimisations', [pytest.param(False, marks=pytest.mark.slow), True])
def test_gradient_is_the_same_compiled_and_step_by_step(few_optimisations):
    graphdef, params, rest = make()

    def loss(params, x):
        return jnp.square(nnx.merge(graphdef, params, rest)(x, train=True)).mean()

    with jax.disable_jit():
        exact = jax.grad(loss)(params, log_mel(8))
    jax.config.update('jax_disable_most_optimizations', few_optimisations)
    compiled = jax.jit(jax.grad(loss))(params, log_mel(8))
    jax.config.update('jax_disable_most_optimizations', False)
    for mine, theirs in zip(jax.tree.leaves(compiled), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max() + 1e-9)


def test_output_is_mean_and_maximum_over_the_patch(monkeypatch):
    seen = []
    relu = nnx.relu
    monkeypatch.setattr(nnx, 'relu', lambda x: seen.append(relu(x)) or seen[-1])
    out = nnx.merge(*make())(log_mel(2), train=False)
    last = np.asarray(seen[-1])
    np.testing.assert_allclose(
        out, np.concatenate([last.mean((1, 2)), last.max((1, 2))], axis=-1), rtol=1e-5, atol=1e-6
    )
