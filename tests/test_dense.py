"""Tests models/layers/dense.py in both forms against nnx.Linear, and the sums of layers/cpu.py against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stattn_jax.models.layers import FORMS, cpu, dense


@pytest.mark.parametrize('shape', [(1, 3), (7, 5), (8, 1), (13, 4), (2, 3, 5, 7, 6), (16, 112, 112, 2), (0, 3)])
def test_sums_are_numpys(shape):
    x = np.random.default_rng(0).normal(3, 1, shape).astype(np.float32)
    exact = x.astype(np.float64).sum(tuple(range(x.ndim - 1)))
    np.testing.assert_allclose(cpu.sums(jnp.asarray(x)), exact, rtol=1e-5)
    rounded = cpu.sums(jnp.asarray(x, jnp.bfloat16))
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, rtol=1e-2)


@pytest.mark.parametrize('shape', [(4,), (5, 4), (2, 3, 7, 4)])
@pytest.mark.parametrize('options', [{}, {'use_bias': False}, {'dtype': jnp.bfloat16}])
@pytest.mark.parametrize('form', FORMS)
def test_a_layer_and_its_gradients_are_those_of_flax(shape, options, form):
    ours, theirs = (make(4, 6, rngs=nnx.Rngs(3), **options) for make in (dense.Linear, nnx.Linear))
    ours.form = form
    if ours.bias is not None:
        ours.bias[...] = theirs.bias[...] = jnp.arange(6.0)
    x = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(*shape[:-1], 6)), jnp.float32)

    def gradients(layer):
        graphdef, params = nnx.split(layer)
        return jax.grad(lambda x, params: (nnx.merge(graphdef, params)(x) * weight).sum(), argnums=(0, 1))(x, params)

    assert ours(x).dtype == theirs(x).dtype and ours(x).shape == theirs(x).shape
    tolerance = {'rtol': 2e-2, 'atol': 5e-2} if 'dtype' in options else {'rtol': 1e-5, 'atol': 1e-5}
    np.testing.assert_allclose(ours(x).astype(jnp.float32), theirs(x).astype(jnp.float32), **tolerance)
    found, expected = (jax.tree.leaves(gradients(layer)) for layer in (ours, theirs))
    assert len(found) == len(expected)
    for mine, other in zip(found, expected):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, **tolerance)


@pytest.mark.parametrize('form', FORMS)
def test_a_layer_has_forward_mode_derivatives(form):
    layer = dense.Linear(4, 6, rngs=nnx.Rngs(3))
    layer.form = form
    x, direction = (jnp.asarray(np.random.default_rng(seed).normal(size=(2, 3, 4)), jnp.float32) for seed in (1, 2))
    _, slope = jax.jvp(layer, (x,), (direction,))
    np.testing.assert_allclose(slope, direction @ layer.kernel[...], rtol=1e-4, atol=1e-5)
